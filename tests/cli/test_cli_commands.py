"""Each command does what it says on a bench that works."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from chain_benches import bench_text

from rram_hil import __version__
from rram_hil.array import Cells
from rram_hil.bench.bench import Bench
from rram_hil.simulation.chip import Fault
from rram_hil.storage.journal import Journal
from rram_hil.storage.run_reader import read_run

RUN = ("run", "recipe.toml", "--bench", "bench.toml", "--out", "r.h5")


def test_help_and_version_load_nothing_heavy(here: Any) -> None:
    code = (
        "import sys; from rram_hil.cli import main\ntry: main(['--help'])\nexcept SystemExit:"
        " pass\n"
    )
    code += (
        "print([m for m in ('numpy', 'torch', 'h5py', 'matplotlib', 'pydantic', 'rich') if m in"
        " sys.modules])"
    )
    told = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout
    assert told.splitlines()[-1] == "[]"
    assert "check" in told
    assert here.command("--version").out == f"rram-hil {__version__}\n"
    assert here.command().out == here.command("--help").out


def test_check_tells_the_envelope_and_that_a_sound_chip_is_sound(here: Any) -> None:
    said = here.command("check", "bench.toml")
    assert said.status == 0, said.err
    assert "-5 V to 5 V" in said.out
    assert "No shorts, no opens, no leaky gates." in said.out
    assert "tile 0 do not conduct" in said.out
    assert said.out.rstrip().endswith("Outputs are off, verified.")


def test_a_limit_that_the_bench_cannot_reach_is_told(here: Any) -> None:
    assert "is more than this bench can" not in here.command("check", "bench.toml").out
    here.bench("bl_v = 4.0", "bl_v = 400.0")
    said = here.command("check", "bench.toml", "--no-touch")
    assert said.status == 0, said.err
    assert "limits.bl_v of 400 V is more than this bench can (5 V)." in said.out


def test_a_chip_that_took_pulses_and_does_not_conduct_is_no_pristine_one(here: Any) -> None:
    assert here.command("ledger", "adopt", "--bench", "bench.toml", "--pulses", "3").status == 0
    said = here.command("check", "bench.toml")
    assert said.status == 0, said.err
    told = " ".join(said.out.split())
    assert "tile 0 do not conduct, yet 256 of 256 took pulses by the ledger (768 in all)" in told
    assert "Look at the cables" in told
    assert "No shorts" not in told
    assert "pristine" not in told


def test_check_names_what_is_broken_and_stresses_nothing(here: Any) -> None:
    here.command(*RUN)
    with Bench.open("bench.toml") as bench:
        chip: Any = bench.driver.chip  # type: ignore[attr-defined]
        chip.inject(Fault.SHORT, Cells.block(0, [5], range(16)))
        chip.inject(Fault.OPEN, Cells.block(0, range(16), [7, 8]))
        chip.inject(Fault.GATE_LEAK, Cells.of([(0, 11, 3)]))
        before = chip.pulses.sum()
    said = here.command("check", "bench.toml")
    assert said.status == 0
    table = " ".join(said.out.split())
    assert "short 0 1 row 5 10" in table, said.out
    assert "columns 7-8" in table
    assert "gate leak 0 1 row 11 3 uA" in table
    with Bench.open("bench.toml") as bench:
        assert bench.driver.chip.pulses.sum() == before  # type: ignore[attr-defined]


def test_check_without_touching_takes_no_ledger_and_arms_nothing(here: Any) -> None:
    said = here.command("check", "bench.toml", "--no-touch")
    assert said.status == 0
    assert "Not touched" in said.out
    assert not any("ledger" in f for f in here.files())


def test_plan_tells_the_worst_case_and_writes_no_file(here: Any) -> None:
    before = here.files()
    said = here.command("plan", "recipe.toml", "--bench", "bench.toml")
    assert said.status == 0, said.err
    assert here.files() == before
    assert "Nothing is beyond the limits" in said.out
    forming = next(line for line in said.out.splitlines() if "forming" in line).split()
    assert forming == ["1", "forming", "3.8", "0", "3", "3.8", "1", "us", "30"]


def test_run_then_show_and_resume(here: Any) -> None:
    said = here.command(*RUN)
    assert said.status == 0, said.err
    assert "rram-hil show r.h5" in said.out
    assert "formed" in said.out
    assert "step 1/2 forming" in said.err
    shown = here.command("show", "r.h5")
    assert shown.status == 0
    assert shown.out.startswith("r.h5  complete")
    for text in (
        "c1: 1 tile of 16 x 16, 1T1R",
        "1 forming",
        "2 read-map",
        "conductance",
        "uS",
        "stuck_high_resistance",
    ):
        assert text in shown.out
    kept = Path("r.h5").read_bytes(), Path("r.h5.journal").read_bytes()
    again = here.command(*RUN, "--resume")
    assert again.status == 0, again.err
    assert "r.h5 is complete; nothing to do" in again.out
    assert (Path("r.h5").read_bytes(), Path("r.h5.journal").read_bytes()) == kept


def test_a_lost_reply_is_told_by_run_show_and_report(here: Any) -> None:
    fault = 'kind = "drop-reply"\ninstrument = "smu"\non = "2.600000000e+00"'
    text = bench_text("B2902A + 707B", "1T1R", 4).replace("\nmodel =", "\ntimeout_s = 0.5\nmodel =")
    here.write("bench.toml", f"{text}\n[[simulation.faults]]\n{fault}\n")
    levels = "{ start_v = 2.2, stop_v = 3.8, step_v = 0.4 }"
    here.write(
        "recipe.toml",
        f'[[step]]\nprotocol = "forming"\nbl_v = {levels}\nwl_v = [2.0]\nwidth_s = 1e-3\n',
    )
    said = here.command("run", "recipe.toml", "-b", "bench.toml", "-o", "r.h5")
    assert said.status == 0, said.err
    assert "1 operation cut" in said.out
    in_doubt = "pulses that may not have been given"
    assert in_doubt in " ".join(said.err.split())
    shown = " ".join(here.command("show", "r.h5").out.split())
    assert "done, 1 cut" in shown
    assert in_doubt in shown
    assert here.command("report", "r.h5").status == 0
    assert in_doubt in Path("r.html").read_text(encoding="utf-8")


def test_a_complete_run_whose_file_was_not_written_any_more_gets_it_by_resume(here: Any) -> None:
    here.command(*RUN)
    journal, whole = Path("r.h5.journal").read_bytes(), here.command("show", "r.h5").out
    for left in (b"", Path("r.h5").read_bytes()[:5000]):
        Path("r.h5").write_bytes(left)
        again = here.command(*RUN, "--resume")
        assert "r.h5 is complete; nothing to do" in again.out, again.err
        assert here.command("show", "r.h5").out == whole
    assert Path("r.h5.journal").read_bytes() == journal


def test_run_writes_beside_the_caller_under_the_recipe_s_name(here: Any) -> None:
    assert here.command("run", "recipe.toml", "--bench", "bench.toml").status == 0
    assert Path("recipe.h5").exists()


def test_show_reads_the_journal_of_a_run_under_way(here: Any) -> None:
    here.command(*RUN)
    Path("r.h5").unlink()
    assert "forming" in here.command("show", "r.h5").out
    # A journal that ends before its close is a run that was cut, or is under way where someone
    # holds it.
    journal = Path("r.h5.journal")
    journal.write_bytes(journal.read_bytes()[:-30])
    assert here.command("show", "r.h5").out.startswith("r.h5  interrupted")
    with Journal.resume(journal):
        assert here.command("show", "r.h5").out.startswith("r.h5  under way")


def test_export_writes_every_table_and_array_with_units(here: Any) -> None:
    here.command(*RUN)
    said = here.command("export", "r.h5", "--csv", "tables", "--npz", "arrays.npz")
    assert said.status == 0, said.err
    with read_run("r.h5") as run:
        assert {p.stem for p in Path("tables").iterdir()} == set(run.tables)
        with open("tables/cells.csv", newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        kept = run.table("cells")
        assert list(rows[0])[:4] == ["operation", "tile", "row", "column"]
        assert [float(r["current_a [A]"]) for r in rows] == kept["current_a"].tolist()
        assert [r["status"] for r in rows] == kept["status"].tolist()
        with np.load("arrays.npz", allow_pickle=False) as arrays:
            assert np.array_equal(
                arrays["maps/conductance"], run.map("conductance").values, equal_nan=True
            )
            about = json.loads(str(arrays["about"]))
        assert about["arrays"]["maps/conductance"] == {
            "units": "S",
            "dims": ["save", "tile", "row", "column"],
        }
        assert about["run"]["chip_id"] == "c1"
    assert "exists" in here.refused("export", "r.h5", "--csv", "tables")
    assert (
        here.command("export", "r.h5", "--csv", "tables", "--npz", "arrays.npz", "--force").status
        == 0
    )


def test_demo_names_the_extra_that_is_missing(here: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    line = here.refused("demo")
    assert line == (
        "rram-hil: demo needs torch and scikit-learn and matplotlib and jinja2:"
        " pip install 'rram-hil[demo]'"
    )


def test_demo_hands_on_its_options(here: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch")
    pytest.importorskip("sklearn")
    seen: list[object] = []
    monkeypatch.setattr(
        "rram_hil.demo.run_demo", lambda *given, **named: seen.extend((*given, named))
    )
    options = ("--out", "d", "--data", "m", "--seed", "7", "--threads", "2")
    assert here.command("demo", *options).status == 0
    assert seen == [Path("d"), Path("m"), 7, {"threads": 2}]


def test_an_error_shows_its_traceback_on_request(here: Any) -> None:
    said = here.command("check", "nowhere.toml", "--debug")
    assert said.status == 2
    assert "Traceback" in said.err


def test_nothing_overwrites_a_run(here: Any) -> None:
    here.command("run", "recipe.toml", "--bench", "bench.toml", "--out", "r.h5")
    before = {name: Path(name).read_bytes() for name in ("r.h5", "r.h5.journal")}
    for name in before:
        told = f"{name} is a run file or journal; nothing overwrites one"
        assert told in here.refused("export", "r.h5", "--npz", name, "--force")
        assert "a run file or journal" in here.refused("--log-file", name, "show", "r.h5")
    assert before == {name: Path(name).read_bytes() for name in before}


def test_a_map_that_is_not_there_is_told_whatever_its_name(here: Any) -> None:
    here.command("run", "recipe.toml", "--bench", "bench.toml", "--out", "r.h5")
    for name in ("../cond", "conductance/row", "a/b/c", "/"):
        line = here.refused("export", "r.h5", "--map", name, "-o", "x.csv")
        assert f"no {name!r} in it; there are: conductance" in line
