"""Benchmarks print what they measure against a baseline of the same run. They assert no wall-clock figure."""
from machine.conftest import cloud, guest_image, lan, origin, service, world

__all__ = ["cloud", "guest_image", "lan", "origin", "service", "world"]
