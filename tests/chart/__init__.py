"""Tests of the Helm chart; none needs an engine, a cluster or a network.

rendering.py         the chart as Helm renders it: documents, and the pods that come of them
validation.py        what is wrong with a document, by Kubernetes' own schemas and by those in schemas/
environment.py       what a container finds when it starts: its variables, and the files of its volumes
entries.py           a model and a provider, to put into values
references.py        what pods refer to by name
selectors.py         what a selector takes
spoiling.py          documents with one thing changed, for rules to find
template_reads.py    which values a template reads by name
releases.py          a release that is installed into cluster_api.py, an API server in memory (cluster_*.py, object_rules.py,
                     field_ownership.py, protobuf.py)
upgrading.py         what a change of a release does to the engines that are there
network_policies.py  who may reach whom
"""
