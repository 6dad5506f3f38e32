"""The contracts that drivers and instruments keep."""
