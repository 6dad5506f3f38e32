"""What a new user starts from works."""

from __future__ import annotations

import re
import runpy
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rram_hil.bench.bench_file import load_bench_file
from rram_hil.calibration.device_fit.run_files import measured_of_run
from rram_hil.storage.run_reader import read_run

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


@pytest.fixture
def examples(here: Any) -> Any:
    """A copy of the examples, as the workplace."""
    for path in EXAMPLES.iterdir():
        if path.suffix in (".toml", ".npy", ".py", ".safetensors") and "ledger" not in path.name:
            shutil.copy(path, here.folder)
    return here


@pytest.mark.long
def test_the_program_recipe_runs_on_the_simulated_bench(examples: Any) -> None:
    assert examples.command("plan", "recipe-program.toml", "-b", "bench-simulated.toml").status == 0
    said = examples.command(
        "run", "recipe-program.toml", "-b", "bench-simulated.toml", "-o", "r.h5"
    )
    assert said.status == 0, said.err
    with read_run("r.h5") as run:
        target, inside = run.map("target").values[-1], run.map("inside").values[-1]
        programmed = run.map("conductance").values[-1]
    assert inside.sum() > 0.8 * np.isfinite(target).sum()
    good = inside.astype(bool)
    assert np.median(np.abs(programmed[good] / target[good] - 1)) < 0.05
    assert examples.command("check", "bench-simulated.toml").status == 0
    # On the formed array as its comment says: what did not form takes no pulse this time either.
    recipe = Path("recipe-program.toml").read_text()
    begin = recipe.index('protocol = "forming"')
    end = recipe.index("[[step]]", begin)
    recall = 'protocol = "recall"\nrun_file = "r.h5"\n\n'
    Path("again.toml").write_text(f"{recipe[:begin]}{recall}{recipe[end:]}")
    said = examples.command("run", "again.toml", "-b", "bench-simulated.toml", "-o", "again.h5")
    assert said.status == 0, said.err
    with read_run("again.h5") as run:
        dead = run.map("not_formed").values[-1] | run.map("stuck_high_resistance").values[-1]
        pulses = run.map("set_pulses").values[-1] + run.map("reset_pulses").values[-1]
    assert dead.any()
    assert not pulses[dead].any()
    assert pulses.any()


@pytest.mark.long
def test_the_gradient_recipe_runs_on_the_simulated_bench(examples: Any) -> None:
    kept = Path("network.safetensors").read_bytes()
    Path("network.safetensors").unlink()
    runpy.run_path("make_network.py")
    assert Path("network.safetensors").read_bytes() == kept
    assert (
        examples.command("plan", "recipe-gradient.toml", "-b", "bench-simulated.toml").status == 0
    )
    said = examples.command(
        "run", "recipe-gradient.toml", "-b", "bench-simulated.toml", "-o", "g.h5"
    )
    assert said.status == 0, said.err
    with read_run("g.h5") as run:
        errors = run.result("gradient-programming", "product_error").values
    assert errors[-1] < 0.5 * errors[0]


@pytest.mark.long
def test_the_characterise_recipe_measures_what_a_model_is_fitted_to(examples: Any) -> None:
    text = Path("recipe-characterise.toml").read_text(encoding="utf-8")
    rows = re.findall(r"cells = \{ rows = \[(\d+), (\d+)\], columns = \[0, 31\] \}", text)
    assert len(rows) == text.count("[[step]]")
    assert max(int(last) for _, last in rows) == 7
    said = examples.command(
        "run", "recipe-characterise.toml", "-b", "bench-simulated.toml", "-o", "c.h5"
    )
    assert said.status == 0, said.err
    kinds = [
        (one.kind, one.swept) if one.kind == "sweep" else one.kind
        for one in measured_of_run(Path("c.h5"))
    ]
    ramps = [("sweep", line) for line in ("wl_v", "wl_v", "bl_v", "sl_v")]
    assert kinds == ["forming", *ramps, "cycling", "relaxation", "read-noise"]


@pytest.mark.long
@pytest.mark.timeout(600)
def test_the_commands_of_the_page_make_a_twin_that_predicts_the_chip(here: Any) -> None:
    """On a simulated bench in place of the reader's own, with cells of the form that is fitted."""
    page = (EXAMPLES.parent / "docs" / "device-model.md").read_text(encoding="utf-8")
    commands = re.findall(
        r"^rram-hil ([^#\n]*)", page.split("```sh\n")[1].split("```")[0], re.MULTILINE
    )
    assert [command.split()[0] for command in commands] == ["new", "run", "calibrate"]
    bench = here.folder / "bench.toml"
    bench.unlink()
    here.command("new", "bench", "bench")
    told = bench.read_text(encoding="utf-8").replace('device = "hfo2"', 'device = "hfo2-measured"')
    bench.write_text(told, encoding="utf-8")
    for command in commands:
        said = here.command(*command.split())
        assert said.status == 0, said.err
    assert "determined: read noise, forming, relaxation, SET, RESET" in " ".join(said.out.split())
    assert here.command("calibrate", "check", "mine.toml", "run.h5").status == 0
    assert here.command("calibrate", "check", "paper", "run.h5").status == 1


def test_the_board_s_bench_file_is_valid_and_fits_the_recipe(examples: Any) -> None:
    assert load_bench_file("bench-board.toml").driver.settings["port"]
    said = examples.command("plan", "recipe-program.toml", "--bench", "bench-board.toml")
    assert said.status == 0, said.err
    assert "cannot be opened" in examples.refused("check", "bench-board.toml")


def test_the_target_map_is_what_its_script_makes(examples: Any) -> None:
    kept = np.load("target.npy")
    Path("target.npy").unlink()
    runpy.run_path("make_target.py")
    assert np.array_equal(np.load("target.npy"), kept, equal_nan=True)
