"""Drivers: one file an instrument or board family."""
