"""`rram-hil list`: what is installed, where it comes from, and why something cannot be used."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from rram_hil import __version__
from rram_hil.bench.plugins import GROUPS

METADATA = "Metadata-Version: 2.1\nName: rram-hil-broken\nVersion: 3.1\n"
ENTRY_POINTS = """
[rram_hil.instruments]
half = broken_half:Half
gone = no_such_module:Gone

[rram_hil.calibration_kinds]
not-a-kind = broken_half:VALUE
"""
MODULE = """
from rram_hil.hardware.instrument import Instrument
VALUE = 3
class Half(Instrument): pass
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a package in it whose plug-ins are of no use."""
    folder = tmp_path_factory.mktemp("site")
    (folder / "broken_half.py").write_text(MODULE)
    info = folder / "rram_hil_broken-3.1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(METADATA)
    (info / "entry_points.txt").write_text(ENTRY_POINTS)
    return folder


def listed(site: Path, *options: str, width: int = 160) -> str:
    done = subprocess.run(
        [sys.executable, "-P", "-m", "rram_hil.cli", "list", *options],
        env=os.environ | {"PYTHONPATH": str(site), "COLUMNS": str(width)},
        capture_output=True,
        text=True,
        timeout=110,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_everything_is_listed_with_the_package_it_comes_from(site: Path) -> None:
    rows = json.loads(listed(site, "--json"))
    assert {row["sort"] for row in rows} == set(GROUPS)
    own = [row for row in rows if row["package"] == "rram-hil"]
    assert {row["version"] for row in own} == {__version__}
    assert not any(row["problem"] for row in own)
    assert {"paper", "smu-matrix", "keithley-2450", "forming"} <= {row["name"] for row in own}
    assert len([row for row in own if row["name"] == "leads"]) == 2


@pytest.mark.long
def test_what_cannot_be_used_says_why_in_one_line(site: Path) -> None:
    rows = json.loads(listed(site, "--json"))
    broken = {r["name"]: r["problem"] for r in rows if r["package"] == "rram-hil-broken"}
    assert broken == {
        "half": "instrument kind 'half' is not a complete subclass of"
        " rram_hil.hardware.instrument.Instrument",
        "gone": "instrument kind 'gone': no_such_module:Gone cannot be imported: No module named"
        " 'no_such_module'",
        "not-a-kind": "calibration kind 'not-a-kind' is not a complete subclass of"
        " rram_hil.corrections.kind.CalibrationKind",
    }


@pytest.mark.long
def test_the_screen_has_a_table_for_each_sort(site: Path) -> None:
    told = listed(site)
    for sort in GROUPS:
        assert f"{sort[0].upper()}{sort[1:]}s" in told
    assert "rram-hil-broken 3.1" in told
    assert "rram_hil.drivers.smu_matrix:SmuMatrix" in told
    lines = [line.split() for line in listed(site, width=80).splitlines()]
    assert ["SimulatedArray"] in lines
