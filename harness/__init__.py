"""Measure one workload as a container and as a virtual machine, fairly, on one host."""

__version__ = "0.1.0"
