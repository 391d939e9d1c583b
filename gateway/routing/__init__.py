"""Which model answers: what its name in a request stands for, what the work asks for, and who is there.

signals.py   what of a request decides where it goes
choose.py    the models that may answer it, in the order in which they are tried
budget.py    how many requests may go on to another model
"""
