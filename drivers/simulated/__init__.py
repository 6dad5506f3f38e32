"""Simulated instruments: what stands on the far side of the wire."""
