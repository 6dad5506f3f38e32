"""Checks that a driver keeps its contract, run against its simulator."""

from .checks import Check, checks_of, docstring_problems, kinds
from .station import Family, Station
from .whole_bench import BENCH_FAULTS, WholeBench, checks_of_bench

__all__ = [
    "BENCH_FAULTS",
    "Check",
    "Family",
    "Station",
    "WholeBench",
    "checks_of",
    "checks_of_bench",
    "docstring_problems",
    "kinds",
]
