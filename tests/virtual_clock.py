"""The virtual clock of the benchmarks, under the tests' own name."""

from benchmarks.virtual_clock import VirtualLoop, run_virtual

__all__ = ["VirtualLoop", "run_virtual"]
