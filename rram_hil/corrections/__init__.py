"""The calibration in force: its file, and how it corrects levels and readings."""
