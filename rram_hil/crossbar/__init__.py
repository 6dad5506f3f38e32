"""The resistance of the array's lines: the exact solver, and maps freed from it."""
