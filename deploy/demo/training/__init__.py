"""How the demo models that see are trained; `python -m deploy.demo.train` is the command.

inspectors.py  the two models: architecture, tokenizer, processor
lessons.py     scenes as what a model reads and is to answer, in batches
network.py     the same network, faster to train on a CPU; what its vision is taught beside
trainer.py     the loop: steps, checkpoints, the way back from one
adapter.py     low-rank additions to a trained model
exam.py        what a model gets right of scenes that it has not seen
"""
