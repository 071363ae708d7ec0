"""Eight small services and what befalls them, healed before your eyes."""

from prunella.demo.play import demo

__all__ = ["demo"]
