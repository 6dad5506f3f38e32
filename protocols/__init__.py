"""Protocols: one file a procedure, a generator of operations."""
