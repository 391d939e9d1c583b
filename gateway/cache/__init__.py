"""Stored answers: one question about one image is computed once.

key.py            what makes two questions one
policy.py         which answers are shared, and what a caller has to say to that
single_flight.py  one computation at a time, for all in this process who ask the same
results.py        what a store of answers promises
record.py         the bytes of a stored answer
memory.py         answers in this process
redis.py          answers that all gateways share
scripts.py        what Redis does in one step
connections.py    Redis's connections, lent to one command at a time
breaker.py        how long Redis is left alone, and how long it may take
tiered.py         memory in front of a shared store
flush.py          forgetting stored answers
"""
