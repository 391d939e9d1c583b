"""Compiling constraints as the engines do, where it may take too long or too much: for `python -m deploy.grammar`.

    deploy.grammar ── workers.py ═ pipes ═ keeper.py ─┬─ a worker for each question: compiler.py
                                                      └─ ...

question.py     what is asked and answered, and the limits
workers.py      asks the keeper, and starts it anew when it ends; imports neither torch nor xgrammar
keeper.py       loads the vocabularies once, forks a worker for each question, watches it, and kills it
compiler.py     what a worker does: compiles a constraint, and walks through the grammar
vocabularies.py the models' vocabularies, as the engines have them
vllm_checks.py  what vLLM asks of a constraint before it compiles one, in vLLM's own words
"""
