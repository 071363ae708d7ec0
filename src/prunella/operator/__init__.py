"""Prunella's home in a Kubernetes cluster: policies come from objects, history goes to objects.

Imported only where the configuration has the key ``operator``. ``home`` puts it together:
``election`` says who acts, ``resolve`` and ``policies`` make services of HealingPolicy objects,
``pauses`` reads annotations, ``mirror`` and ``events`` tell what was done.
"""
