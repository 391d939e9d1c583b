"""What Redis does in one step: nobody's command comes in between.

Each reads before it writes. So a Redis that is full, which refuses to write, still says what it has; for the scripts as a whole
to be refused then, they would have to declare flags (`#!lua`), which Redis 6 does not know.
"""

import hashlib
from dataclasses import dataclass, field

LEADING, FOLLOWING, ALONE = 1, 2, 3
"""What CLAIM replies, where it does not reply with an answer."""


@dataclass(frozen=True, slots=True)
class Script:
    """A script, and the name by which Redis knows it once it has run."""

    source: bytes
    name: bytes = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", hashlib.sha1(self.source, usedforsecurity=False).hexdigest().encode())


CLAIM = Script(b"""
-- Answer, flight; token, lease in ms, whether to pass over what is stored.
if ARGV[3] == '0' then
  local stored = redis.call('GET', KEYS[1])
  if stored then return stored end
end
if redis.call('SET', KEYS[2], ARGV[1], 'NX', 'PX', ARGV[2]) then return 1 end
if redis.call('GET', KEYS[2]) == '' then return 3 end
return 2
""")

RENEW = Script(b"""
-- Flight; token, lease in ms.
if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('PEXPIRE', KEYS[1], ARGV[2]) end
return 0
""")

RELEASE = Script(b"""
-- Flight; token.
if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end
return 0
""")

SETTLE = Script(b"""
-- Answer, flight; token, record or nothing, its ms, the ms for which followers are told that they are alone.
local outcome = 1
if ARGV[2] ~= '' then
  local kept = redis.pcall('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
  if kept.err then outcome = kept end
end
if redis.call('GET', KEYS[2]) == ARGV[1] then
  -- Without room for the note, or for the answer, the next to ask is told that Redis is full.
  if ARGV[2] ~= '' or redis.pcall('SET', KEYS[2], '', 'PX', ARGV[4]).err then redis.call('DEL', KEYS[2]) end
end
return outcome
""")
