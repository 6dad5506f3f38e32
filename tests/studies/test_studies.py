"""Studies from their file to their table, run on simulated chips."""

from __future__ import annotations

import re
import time
from pathlib import Path

import numpy as np
import pytest
from small_studies import write_small_study

pytest.importorskip("sklearn", reason="studies need the extra [study]")
pytest.importorskip("joblib", reason="studies need the extra [study]")

from rram_hil.cli import main
from rram_hil.errors import DataError
from rram_hil.networks.network import Network
from rram_hil.studies.paper import ARMS
from rram_hil.studies.runner import Workers
from rram_hil.studies.study import run_study
from rram_hil.studies.study_file import load_study

ONE = Workers(1)
PAGE = (Path(__file__).parents[2] / "docs/studies.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


def study_command(*arguments: str) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["study", *arguments])
    assert not ended.value.code


@pytest.mark.long
@pytest.mark.timeout(400)
def test_the_study_of_the_page_runs_as_it_stands_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (study,) = [text for text in blocks("toml") if text.startswith("title")]
    (arm,) = [text for text in blocks("python") if text.startswith('"""verify_then_words.py')]
    Path("mine.toml").write_text(study)
    Path("verify_then_words.py").write_text(arm)
    study_command("mine.toml")
    folder = tmp_path / "rram-hil-study-mine"
    table = (folder / "table.md").read_text(encoding="utf-8")
    rows = [line.split(" | ")[0] for line in table.splitlines() if line.startswith("| ")]
    assert rows == ["| arm", "| ---", "| float", "| RSA 10 %", "| R-V-W + RSA"]
    assert "R-V-W + RSA" in capsys.readouterr().out

    xarray = pytest.importorskip("xarray")
    with xarray.open_dataset(folder / "results.h5", engine="h5netcdf") as results:
        own = results.sel(device="A", chip=1)
        accuracy = own.accuracy.to_series()
        assert accuracy["float"] == own.float_accuracy.sel(arm="float") > 0.9
        # A wide margin: which is better by how much is no matter of one chip and 300 images.
        assert accuracy["R-V-W + RSA"] > accuracy["float"] - 0.1
        assert results.sizes["image"] == 300
        np.testing.assert_allclose(own.right.mean("image"), own.accuracy)
        assert own.words.sel(arm="RSA 10 %") + own.digital.sel(arm="RSA 10 %") == 366
        assert own.pulses.sel(arm="float") == 0 < own.pulses.sel(arm="RSA 10 %")
        assert own.pulses.sel(arm="R-V-W + RSA") > own.pulses.sel(arm="RSA 10 %")
        assert own.vectors.sel(arm="R-V-W + RSA") > own.vectors.sel(arm="RSA 10 %") > 0

    # Everything is done: the same command only writes its files again.
    kept = {path: path.stat().st_mtime_ns for path in (folder / "jobs").iterdir()}
    study_command("mine.toml")
    assert {path: path.stat().st_mtime_ns for path in (folder / "jobs").iterdir()} == kept
    assert (folder / "table.md").read_text(encoding="utf-8") == table


@pytest.mark.long
@pytest.mark.timeout(240)
def test_an_arm_that_fails_keeps_no_other_from_being_done(tmp_path: Path) -> None:
    path = write_small_study(tmp_path)
    bad = '[[arm]]\nname = "too few"\narm = "./quick.py:Quick"\nfraction = 1e-6\n'
    path.write_text(f"{path.read_text()}\n{bad}")
    study = load_study(path).model_copy(update={"chips": 1})
    with pytest.raises(DataError, match=r"1 of 7 jobs failed; the first: A, chip 1, too few: .*"):
        run_study(study, tmp_path / "out", beside=tmp_path, workers=ONE)
    table = (tmp_path / "out/table.md").read_text(encoding="utf-8")
    assert "| words, 10 %" in table
    assert "too few" not in table
    assert not list((tmp_path / "out/jobs").glob("scratch/*"))

    whole = path.read_text().removesuffix(bad)
    path.write_text(whole)
    begun = time.monotonic()
    study = load_study(path).model_copy(update={"chips": 1})
    assert run_study(study, tmp_path / "out", beside=tmp_path, workers=ONE).is_whole
    assert time.monotonic() - begun < 60, "all that is left is to write the table"

    trained = list((tmp_path / "out/jobs").glob("training-*.safetensors"))
    assert len(trained) == 1
    assert Network.load(trained[0]).matrices


def test_commands_that_cannot_be_are_refused_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_small_study(tmp_path)
    for arguments, told in (
        (["paper"], "give --model"),
        (["paper", "--model", "lenet"], "did you mean lenet5"),
        (["paper", "--model", "lenet5"], "--data: missing"),
        (["paper", "--model", "digits", "--arms", "KD,Kd"], "--arms: 'Kd' is unknown"),
        ([str(path), "--model", "digits"], "--model goes with `paper`"),
        ([str(tmp_path / "none.toml")], "no such file"),
        ([str(path), "--data", str(tmp_path)], "the digits come with scikit-learn"),
        ([str(path), "--scheduler", "tcp://127.0.0.1:9"], "no scheduler answers"),
    ):
        with pytest.raises(SystemExit) as ended:
            main(["study", *arguments, "--out", str(tmp_path / "out")])
        assert ended.value.code == 2
        (line,) = capsys.readouterr().err.strip().splitlines()[-1:]
        assert told in line


@pytest.mark.long
@pytest.mark.timeout(600)
def test_the_short_study_of_the_paper_has_a_row_of_every_kind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On two free processors it is done in less than three minutes."""
    monkeypatch.chdir(tmp_path)
    # Without those that differ from another one in their fraction alone.
    wanted = [arm["name"] for arm in ARMS if not re.search(r"\(\d+ %\)$", arm["name"])]
    study_command("paper", "--model", "digits", "--workers", "2", "--arms", ",".join(wanted))
    table = (tmp_path / "rram-hil-study-paper-digits/table.md").read_text(encoding="utf-8")
    cells = [[part.strip() for part in line.split("|")[1:-1]] for line in table.splitlines()]
    rows = {row[0]: row for row in cells if len(row) > 1}
    assert set(rows) == {"arm", "---", *wanted}
    mean = {name: float(row[2].rstrip(" %")) for name, row in rows.items() if row[1] == "2"}
    assert len(mean) == len(wanted)
    assert mean["one-shot"] < mean["KD"] < mean["KD + RSA"] < mean["float"]
    assert mean["one-shot"] < mean["variation-aware"]
    assert mean["KD"] < mean["fault-aware"] < mean["fault-aware (permuted)"]
    assert rows["fault-aware"][7] == "" != rows["fault-aware (permuted)"][7]
    assert rows["RSA"][6] == "5.00 %"
    assert rows["float"][9] == ""
