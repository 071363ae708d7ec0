"""What is tested only where its program is."""

from tests.real.proxy import PROGRAM

collect_ignore = [] if PROGRAM.is_file() else ["test_kubernetes_proxy.py"]
