"""docs/adding-a-protocol.md and docs/adding-a-calibration.md build, install and pass as they stand,
as packages of a third party.
"""

from __future__ import annotations

import numpy as np
import pytest
from documented_packages import Lab

from rram_hil.storage.run_reader import read_run


@pytest.fixture(scope="module")
def protocol(tmp_path_factory: pytest.TempPathFactory) -> Lab:
    return Lab("adding-a-protocol.md", tmp_path_factory.mktemp("protocol"))


@pytest.fixture(scope="module")
def calibration(tmp_path_factory: pytest.TempPathFactory) -> Lab:
    return Lab("adding-a-calibration.md", tmp_path_factory.mktemp("calibration"))


@pytest.mark.long
def test_the_protocols_own_tests_pass(protocol: Lab) -> None:
    assert protocol.passes_its_tests("test_cell_window.py", 2)


@pytest.mark.long
def test_the_protocol_runs_as_a_step_of_a_recipe(protocol: Lab) -> None:
    owner = ("rram-hil-cell-window", "1.0", "cell_window:CellWindow", "")
    assert protocol.listed("cell-window") == [("protocol", "cell-window", *owner)]
    planned = protocol.cli("plan recipe.toml --bench bench.toml")
    assert "cell-window" in planned
    told = protocol.cli("run recipe.toml --bench bench.toml -o run.h5")
    assert "32 cells, median ratio" in told
    with read_run(protocol.work / "run.h5") as run:
        ratio = run.map("window").values[-1, 0]
    assert np.median(ratio[:4]) > 2
    assert np.isnan(ratio[4:]).all()
    assert "cell-window 1" in protocol.cli("show run.h5")
    # Its own section while it is installed; without it the run's page says what the file says.
    said = "32 cells have a window."
    for installed in (True, False):
        protocol.cli("report run.h5", installed=installed)
        page = (protocol.work / "run.html").read_text(encoding="utf-8")
        assert ("<figcaption>Windows</figcaption>" in page) == installed
        assert (said in page) == installed
        assert "2 cell-window" in page


@pytest.mark.long
def test_the_calibrations_own_tests_pass(calibration: Lab) -> None:
    assert calibration.passes_its_tests("test_bond_wires.py", 3)


@pytest.mark.long
def test_the_calibration_is_measured_put_in_force_and_seen_in_a_reading(calibration: Lab) -> None:
    owner = ("rram-hil-bond-wires", "1.0")
    assert calibration.listed("bond-wires") == [
        ("calibration", "bond-wires", *owner, "bond_wires:MeasureBondWires", ""),
        ("calibration kind", "bond-wires", *owner, "bond_wires:BondWires", ""),
    ]
    told = " ".join(calibration.cli("calibrate --help").split())
    assert "bond-wires Bond wires, from a row of equal resistors of known value." in told
    calibration.cli("calibrate bond-wires keys.toml --bench bench.toml -o bonds.toml")
    bench = (calibration.work / "bench.toml").read_text()
    section = '[calibration]\nfiles = ["bonds.toml"]\n'
    (calibration.work / "in-force.toml").write_text(bench + section)
    (calibration.work / "read.toml").write_text('[[step]]\nprotocol = "read-map"\nrepeat = 16\n')
    ohm = []
    for name in ("bench", "in-force"):
        calibration.cli(f"run read.toml --bench {name}.toml -o {name}.h5")
        with read_run(calibration.work / f"{name}.h5") as run:
            ohm.append(1 / run.map("conductance").values[-1, 0, 1, 2])
    assert ohm == pytest.approx([5040, 5000], rel=1e-3)
    assert "bonds.toml (bond-wires of" in calibration.cli("show in-force.h5")
    # Without the package its files are refused by name, and what was measured can still be read.
    told = calibration.cli("check in-force.toml", fails=True, installed=False)
    assert "bonds.toml: kind: 'bond-wires' is unknown; there is: board-converters, leads" in told
    assert len(told.splitlines()) == 1
    assert "bond-wires of" in calibration.cli("show in-force.h5", installed=False)
