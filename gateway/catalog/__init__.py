"""The catalog: one YAML file that names every model, read by the gateway, by `deploy/` and by `fovea plan`.

entry.py         what its entries have in common, and what the gateway needs of whoever answers (Protocol)
models.py        the types of the file
providers.py     the types of what somebody else serves
routes.py        the types of what leads a request to a model: tiers, rules, aliases
read.py          file to types; every mistake named with its key and line
families.py      what all models of one family share
image_rules.py   what becomes of an image: the tokens it costs, the size to send; families of one resize
tiling_rules.py  the same for families that cut an image into tiles
"""
