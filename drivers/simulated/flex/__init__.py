"""FLEX as the B1500A parses it."""
