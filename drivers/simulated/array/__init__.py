"""The array behind simulated terminals: network, clock, loads, errors."""
