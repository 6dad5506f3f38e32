"""Simulators as processes: sockets, faults, control."""
