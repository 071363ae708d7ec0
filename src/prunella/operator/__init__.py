"""Prunella's home in a Kubernetes cluster: policies come from objects, history goes to objects.

Imported only where the configuration has the key ``operator``. ``home`` puts it together:
``election`` says who acts, ``aims``, ``resolve`` and ``policies`` make services of HealingPolicy
objects, which ``statuses`` tells what came of them, ``pauses`` reads annotations, ``mirror`` and
``events`` tell what was done.
"""
