"""The one engine that runs operations and protocols: limits, ledger, journal, driver, and back."""

from rram_hil.engine.engine import Engine, Watcher, unknown_result

__all__ = ["Engine", "Watcher", "unknown_result"]
