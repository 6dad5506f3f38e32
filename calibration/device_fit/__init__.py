"""Fitting the device model to measured cells, and judging what it predicts."""
