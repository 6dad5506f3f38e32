"""Neural networks on cells: layers, their place on the array, inference through it."""
