"""Composition: the bench, its file, recipes and their runs, forecasts, discovery, plug-ins."""

from rram_hil.bench.bench import Bench, make_driver, off_after

__all__ = ["Bench", "make_driver", "off_after"]
