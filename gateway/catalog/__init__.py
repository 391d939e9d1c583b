"""The catalog: one YAML file that names every model, read by the gateway, by `deploy/` and by `fovea plan`.

models.py     the types of the file
read.py       file to types; every mistake named with its key and line
families.py   what all models of one family share
"""
