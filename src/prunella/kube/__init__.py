"""How a Kubernetes cluster is spoken to: shared by the platform, the gateway and the home in it.

Nothing here knows what a service is. ``access`` finds the cluster and our credentials, ``client``
asks and changes, ``reflector`` keeps what a watch tells, ``kinds`` names what there is.
"""
