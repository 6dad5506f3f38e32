"""Calibrations: one file a calibration."""
