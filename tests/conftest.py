"""Tiers of the tests: which files are fast, and how `pytest -m fast` reads no others."""

from __future__ import annotations

import gc
import os
from pathlib import Path
from uuid import uuid4

import pytest
from hypothesis import settings

pytest_plugins = ("calibrated_benches", "crash_shim", "forked_simulators")
"""What tests of several rooms share, in `helpers/`."""

FAST = {
    "test_bench_and_recipe_files",
    "test_board_codec",
    "test_cells",
    "test_codec",
    "test_console",
    "test_correction",
    "test_draws",
    "test_engine",
    "test_half_select",
    "test_ledger",
    "test_limits",
    "test_look",
    "test_model",
    "test_operations",
    "test_passive",
    "test_protocol_logic",
    "test_pulse_curves",
    "test_result_checks",
    "test_simulated_array",
    "test_simulated_errors",
    "test_tsp_interpreter",
    "test_write_verify_rules",
}
"""Files that start no process, open no socket and are done within seconds: what a change breaks
first.
"""

FIRST = {
    "test_adding_plugins",
    "test_arc_one",
    "test_bench_conformance",
    "test_board_faults",
    "test_calibrations",
    "test_cli_refusals",
    "test_cli_simulate",
    "test_compensation",
    "test_conformance",
    "test_crash_resume",
    "test_demo",
    "test_device_fit",
    "test_html_report",
    "test_pages_in_a_browser",
    "test_plan",
    "test_recovery",
    "test_run_file",
    "test_run_report",
    "test_smu_matrix",
}
"""Files that take longest, here or among the long tests: they come first, so that no worker is left
alone with one at the end.
"""

# The tests start hundreds of simulators: let these keep what they compile, whatever the shell says.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
# Several workers share the cores, and such small arrays and networks gain nothing from threads.
for library in ("OMP", "OPENBLAS", "MKL"):
    os.environ.setdefault(f"{library}_NUM_THREADS", "1")

# What is imported and collected stays to the end: let the garbage collector not go through it again
# and again, neither while it comes nor later (`pytest_runtestloop`).
gc.disable()

# On a busy machine any example may take long; what ends a test that hangs is pytest-timeout.
# `.ci/run` tries the same examples each time; new ones are looked for by hand, with "long".
settings.register_profile("rram_hil", deadline=None, max_examples=40, derandomize=True)
settings.register_profile("more", deadline=None, derandomize=True)
settings.register_profile("long", deadline=None, max_examples=1000)
settings.load_profile("rram_hil")


@pytest.fixture(autouse=True)
def ledgers_of_the_test(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No test writes to the ledgers that this machine keeps of its real chips, nor to the
    catalogue's files of its user.
    """
    for name in ("LEDGERS", "CATALOGUE"):
        own = tmp_path_factory.getbasetemp() / f"{name.lower()}-{uuid4()}"
        monkeypatch.setenv(f"RRAM_HIL_{name}", str(own))


def pytest_xdist_auto_num_workers() -> int:
    """Three workers for two cores: many tests wait for a link's timeout, and each worker more
    imports and collects everything once more.
    """
    return max(2, 3 * (os.cpu_count() or 1) // 2)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what is fast, and begin with what is long."""
    items.sort(key=lambda item: item.path.stem not in FIRST)
    for item in items:
        above = {mark.name for mark in item.iter_markers()} & {"long", "slow"}
        if item.path.stem in FAST and not above:
            item.add_marker(pytest.mark.fast)


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop() -> None:
    """Collect garbage from here on, of what the tests make."""
    gc.freeze()
    gc.set_threshold(10_000, 20, 20)
    gc.enable()


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """With `-m fast`, do not even import the others: that alone takes longer."""
    if config.option.markexpr == "fast" and collection_path.suffix == ".py":
        return collection_path.stem not in FAST or None
    return None
