"""What can be asked of cells, what comes back, and within which limits."""
