"""The only package that knows Ray, vLLM and xgrammar.

app.py        build(args) -> serve.Application: the import path of a RayService
engine.py     catalog entry -> LLMConfig
limits.py     every limit of an engine and of Serve, derived from the catalog's few numbers
placement.py  catalog -> GPUs, memory and concurrency of each model, or why it does not fit
plan_table.py a plan as text
status_table.py  what a running gateway's models have to do
cluster.py    Ray and the Serve applications of a catalog, in a process of their own
local.py      everything on this machine: what `fovea up` starts, watches and stops
grammar.py    `python -m deploy.grammar`: says whether a constraint compiles with the engines' xgrammar
loopback.py   what keeps the last of Ray's servers off the network in a local stack
processes.py  keeping hold of every process that the stack starts
warmup.py     the first requests to an engine
cli.py        the `fovea` command
catalogs/     catalogs to start from
chart/        what is made from the code for the Helm chart, and read out of its values
compiling/    the processes in which that is tried
cpu_torch/    what CPU engines need on their PYTHONPATH
images/       what container images are built from
evaluation/   how right a model's answers are: `fovea evaluate`
demo/         the demo models and the conversation of `make demo`
"""
