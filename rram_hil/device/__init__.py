"""The device model: cells, chip and seeded draws of the simulated bench."""
