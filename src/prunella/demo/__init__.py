"""Three small services, four faults, healed before your eyes."""

from prunella.demo.show import demo

__all__ = ["demo"]
