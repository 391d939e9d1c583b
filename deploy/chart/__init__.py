"""The Helm chart in helm/fovea, as far as it is made from the code.

schema.py  values.schema.json
readme.py  the table of values in the chart's README.md
plain.py   k8s/: some scenarios as plain manifests
values.py  the values of a release -> what `fovea plan --values` says of each profile
"""
