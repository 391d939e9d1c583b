"""A coverage-guided fuzzer for what is done with a request's bytes (make fuzz).

__main__.py   the fuzzer: atheris, which only this file imports
oracle.py     what must hold for any bytes
documents.py  bytes that steer how a chat request is written
words.dict    what libFuzzer puts into bodies
corpus/       the inputs that reach everything, and those that once found something
"""
