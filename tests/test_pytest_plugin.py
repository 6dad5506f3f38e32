from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rram_hil.array import pulse, read, read_step
from rram_hil.bench.bench import Bench
from rram_hil.bench.bench_file import load_bench_file
from rram_hil.protocols.forming import Forming
from rram_hil.pytest_plugin import GroundTruth
from rram_hil.simulation.chip import SimulatedChip

EITHER = [
    pytest.param(d, marks=pytest.mark.rram(driver=d))
    for d in ("simulated-array", "test-chip-board")
]
DOC = Path(__file__).parents[1] / "docs" / "testing-your-lab.md"


def run_pytest(folder: Path, text: str, *options: str) -> subprocess.CompletedProcess[str]:
    (folder / "test_my_lab.py").write_text(text, encoding="utf-8")
    command = [
        sys.executable,
        "-P",
        "-m",
        "pytest",
        "--strict-markers",
        "-p",
        "no:cacheprovider",
        *options,
        ".",
    ]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=100)


@pytest.mark.long
def test_the_documented_example_runs_as_it_stands(tmp_path: Path) -> None:
    (example,) = re.findall(r"```python\n(.*?)```", DOC.read_text(encoding="utf-8"), re.DOTALL)
    done = run_pytest(tmp_path, example)
    assert done.returncode == 0, done.stdout
    assert "3 passed" in done.stdout


def test_a_wrong_marker_is_an_error_that_names_the_keywords(tmp_path: Path) -> None:
    tests = [
        f"@pytest.mark.rram({mark})\ndef test_{k}(rram_bench): ...\n"
        for k, mark in enumerate(("rows=4, colums=4", "16"))
    ]
    done = run_pytest(tmp_path, "import pytest\n" + "".join(tests))
    assert done.returncode == 1
    assert done.stdout.count("unknown; keywords are") >= 2
    assert "2 errors" in done.stdout


def test_nothing_heavy_is_imported_before_a_fixture_is_asked_for(tmp_path: Path) -> None:
    looks = (
        "import sys\ndef test_it():\n    assert not {'torch', 'numpy', 'scipy', 'h5py', 'pydantic'}"
        " & set(sys.modules)\n"
    )
    done = run_pytest(tmp_path, looks, "-p", "no:hypothesispytest")
    assert done.returncode == 0, done.stdout


@pytest.mark.rram(rows=3, columns=5, tiles=2, seed=9, limits={"bl_v": 3.3})
class TestTheMarker:
    def test_sets_the_bench(self, rram_bench: Bench) -> None:
        assert rram_bench.geometry.shape == (2, 3, 5)
        assert rram_bench.limits.bl_v == 3.3
        assert rram_bench.file.simulation is not None
        assert rram_bench.file.simulation.seed == 9

    @pytest.mark.rram(rows=4)
    def test_closest_to_the_test_wins(self, rram_bench: Bench) -> None:
        assert rram_bench.geometry.shape == (2, 4, 5)


@pytest.mark.rram(cell="1R", rows=2, columns=2, device="hfo2", converters=False, read_noise=False)
def test_every_keyword_reaches_the_bench_file(rram_bench_file: Path) -> None:
    file = load_bench_file(rram_bench_file)
    assert file.chip.cell == "1R"
    assert file.simulation is not None
    assert (file.simulation.device, file.simulation.converters, file.simulation.read_noise) == (
        "hfo2",
        False,
        False,
    )


@pytest.mark.rram(rows=6, columns=6)
@pytest.mark.parametrize("driver", EITHER)
def test_the_truth_of_either_driver(
    driver: str, rram_bench: Bench, rram_ground_truth: GroundTruth
) -> None:
    assert rram_bench.file.driver.name == driver
    rram_bench.run(Forming())
    np.testing.assert_array_equal(rram_ground_truth.pulses(), rram_bench.ledger.counts)  # type: ignore[union-attr]
    assert rram_ground_truth.conductance_s().shape == (1, 6, 6)
    assert not rram_ground_truth.outputs_on()


@pytest.mark.rram(rows=4, columns=4)
def test_the_chip_is_the_one_behind_the_bench(rram_chip: SimulatedChip, rram_bench: Bench) -> None:
    rram_bench.do(pulse(rram_bench.cells(rows=(0, 0)), bl_v=3.5, wl_v=2.0, width_s=1e-6))
    assert rram_chip.pulses.sum() == 4


def test_a_bench_that_is_opened_again_meets_the_same_chip(rram_bench_file: Path) -> None:
    with Bench.open(rram_bench_file) as bench:
        bench.run(Forming())
        truth = GroundTruth(bench).conductance_s()
    with Bench.open(rram_bench_file) as bench:
        np.testing.assert_array_equal(GroundTruth(bench).conductance_s(), truth)


@pytest.mark.rram(rows=6, columns=6)
@pytest.mark.parametrize("driver", EITHER)
def test_after_a_refusal_the_bench_of_a_notebook_goes_on(driver: str, rram_bench: Bench) -> None:
    cells = rram_bench.cells()
    with pytest.raises(Exception, match="BL 9 V"):
        rram_bench.do(pulse(cells, bl_v=9.0, wl_v=2.0, width_s=1e-6))
    result: Any = rram_bench.do(read(cells, read_step()))
    assert np.isfinite(result.last_s).all()


@pytest.mark.rram(driver="test-chip-board", rows=2, columns=2)
def test_both_drivers_give_the_same_numbers(rram_bench: Bench, tmp_path: Path) -> None:
    text = rram_bench.file.text.replace("test-chip-board", "simulated-array")
    (tmp_path / "direct").mkdir()
    (tmp_path / "direct" / "bench.toml").write_text(text, encoding="utf-8")
    with Bench.open(tmp_path / "direct" / "bench.toml") as direct:
        assert rram_bench.run(Forming()) == direct.run(Forming())
        np.testing.assert_array_equal(
            GroundTruth(rram_bench).conductance_s(), GroundTruth(direct).conductance_s()
        )
