"""Checks that a driver keeps its contract, run against its simulator."""

from .checks import Check, checks_of, docstring_problems, kinds
from .station import Family, Station

__all__ = ["Check", "Family", "Station", "checks_of", "docstring_problems", "kinds"]
