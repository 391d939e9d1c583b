-- wrk's script for the cache: posts the body in the file of the first argument, with the key of the second. For "@@@@@@@@" in it
-- it puts numbers: as many as the fourth argument, from the third one on, again and again; if that is 0, each number once.
-- It tells what load.lua tells, and how often x-fovea-cache said what.
local threads = {}

function setup(thread)
  table.insert(threads, thread)
end

function init(args)
  local file = assert(io.open(args[1], "rb"))
  local text = file:read("*a")
  file:close()
  wrk.headers["Content-Type"] = "application/json"
  wrk.headers["Authorization"] = "Bearer " .. args[2]
  local place, last = assert(text:find("@@@@@@@@", 1, true))
  head, tail = text:sub(1, place - 1), text:sub(last + 1)
  first, different = tonumber(args[3]), tonumber(args[4])
  asked, made, outcomes = 0, {}, {}
  for index = 0, different - 1 do
    made[index] = numbered(first + index)
  end
end

function numbered(number)
  return wrk.format("POST", nil, nil, head .. string.format("%08d", number) .. tail)
end

function request()
  asked = asked + 1
  return different > 0 and made[asked % different] or numbered(first + asked)
end

function response(status, headers)
  local outcome = headers["x-fovea-cache"] or "unsaid"
  outcomes[outcome] = (outcomes[outcome] or 0) + 1
end

function done(summary, latency)
  local errors, told = summary.errors, {}
  for _, thread in ipairs(threads) do
    for outcome, times in pairs(thread:get("outcomes")) do
      table.insert(told, string.format('"%s": %d', outcome, times))
    end
  end
  io.write(string.format(
    '{"requests": %d, "microseconds": %d, "p50_us": %d, "p99_us": %d,'
      .. ' "errors": {"connect": %d, "read": %d, "write": %d, "timeout": %d, "status": %d}, "outcomes": {%s}}\n',
    summary.requests, summary.duration, latency:percentile(50), latency:percentile(99),
    errors.connect, errors.read, errors.write, errors.timeout, errors.status, table.concat(told, ", ")
  ))
end
