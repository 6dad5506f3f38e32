"""Uncertainty and references: fits with their 95 % intervals, meters, converters."""
