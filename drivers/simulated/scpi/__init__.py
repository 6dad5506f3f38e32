"""SCPI as instruments parse it."""
