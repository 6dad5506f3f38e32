"""The demonstration, with a training too short to be good: everything else is as a user runs it."""

import json
import multiprocessing
import time
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="the demonstration needs the extra [demo]")
pytest.importorskip("sklearn", reason="the demonstration needs the extra [demo]")

from rram_hil import demo, learning
from rram_hil.cli import main
from rram_hil.demo import training
from rram_hil.demo.chips import Step, side_by_side
from rram_hil.demo.table import chip_result
from rram_hil.errors import ConfigError, DataError
from rram_hil.storage.run_reader import read_run


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """A training of few epochs, and a small adaptation."""
    teacher, student = learning.train_teacher, learning.distil
    monkeypatch.setattr(
        learning, "train_teacher", lambda *a, **k: teacher(*a, **{**k, "epochs": 3})
    )
    monkeypatch.setattr(learning, "distil", lambda *a, **k: student(*a, **{**k, "epochs": 1}))
    plans = demo.plans
    monkeypatch.setattr(
        demo,
        "plans",
        lambda seed, mnist: [replace(p, adaptation_steps=3) for p in plans(seed, mnist=mnist)],
    )


@pytest.mark.long
@pytest.mark.timeout(240)
def test_the_command_leaves_a_table_that_comes_from_the_run_files(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    with pytest.raises(SystemExit) as ended:
        main(["demo", "--out", str(out), "--seed", "3"])
    assert not ended.value.code
    printed = capsys.readouterr().out
    summary = json.loads((out / "summary.json").read_text())
    assert [row["name"] for row in summary["rows"]] == [
        "float",
        "one-shot",
        "R-V-W",
        "coded R-V-W",
        "KD, one-shot",
        "KD + R-V-W",
        "KD + RSA",
    ]
    for row in summary["rows"]:
        columns = {"name", "accuracy", "pulses", "reads", "vectors", "bench_seconds", "words"}
        assert set(row) == columns
        assert f"{100 * row['accuracy']:.2f} %" in printed
    by_name = {row["name"]: row for row in summary["rows"]}
    words = by_name["KD + RSA"]["words"]
    assert words["words"] + words["digital"] == round(words["fraction"] * 3660) <= 0.05 * 3660
    assert by_name["KD + RSA"]["pulses"] == by_name["KD, one-shot"]["pulses"], (
        "adaptation writes no cell"
    )
    assert by_name["R-V-W"]["pulses"] > by_name["one-shot"]["pulses"]
    for device in summary["devices"].values():
        assert {"best", "difference", "standard_error", "equal"} == set(device["equality"])
        ratios = device["chips"][0]["compensation"]["ratios"]
        assert ratios["R-V-W"]["with_link"] > ratios["coded R-V-W"]["with_link"] > 10
        assert ratios["R-V-W"]["board_alone"] > ratios["coded R-V-W"]["board_alone"] > 100

    for device, folder in (("paper", out), ("hfo2", out / "hfo2-1")):
        result = chip_result(folder / "run.h5")
        kept = summary["devices"][device]["chips"][0]["rows"]
        assert [row["accuracy"] for row in kept] == [row.accuracy for row in result.rows]
        with read_run(folder / "run.h5") as run:
            assert run.status == "complete"
            classes = run.result("infer adapted", "predictions").values
            labels = run.result("infer adapted", "labels").values
            assert float(np.mean(classes == labels)) == kept[-1]["accuracy"]
    assert abs(chip_result(out / "run.h5").programming.sigma - 0.10) < 0.01

    page = (out / "report.html").read_text()
    HTMLParser().feed(page)
    assert "KD + RSA" in page
    assert "://" not in page.replace("http://www.w3.org/", ""), (
        "the page needs nothing from elsewhere"
    )


def test_a_folder_that_holds_something_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("keep me")
    with pytest.raises(ConfigError, match="not an empty folder"):
        demo.run_demo(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["mine.txt"]


def test_the_same_seed_trains_the_same_networks() -> None:
    first, second = training.train(None, 5), training.train(None, 5)
    for name, weight in first.student.weights.items():
        np.testing.assert_array_equal(weight, second.student.weights[name])


def test_missing_mnist_files_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["demo", "--out", str(tmp_path / "out"), "--data", str(tmp_path / "nothing")])
    assert ended.value.code == 2
    told = capsys.readouterr().err.strip().splitlines()[-1]
    assert "train-images" in told
    assert not list((tmp_path / "out").glob("*")) if (tmp_path / "out").exists() else True


@pytest.mark.long
@pytest.mark.timeout(120)
@pytest.mark.parametrize("fails", [False, True], ids=["interrupted", "one fails"])
def test_chips_side_by_side_stop_together(tmp_path: Path, fails: bool) -> None:
    training.train(None, 1, lambda fraction, text: None, 1).write(tmp_path)
    first, second = demo.plans(1, mnist=False)
    if fails:
        second = replace(second, rows=0)

    def told(step: Step) -> None:
        if step.chip == first.chip and step.name == "form" and not fails:
            raise KeyboardInterrupt

    with (
        pytest.raises(ConfigError if fails else KeyboardInterrupt),
        side_by_side([first, second], tmp_path, 0, told) as running,
    ):
        running.results()
    assert not multiprocessing.active_children()
    if (tmp_path / "run.h5").exists():
        with read_run(tmp_path / "run.h5") as run:
            assert "infer verified student" not in run.table("steps")["name"]


@pytest.mark.long
@pytest.mark.timeout(120)
@pytest.mark.parametrize("fails", ["training", "chip"])
def test_chips_that_wait_for_training_stop_with_it(tmp_path: Path, fails: str) -> None:
    training.load(None).write(tmp_path)
    first, second = demo.plans(1, mnist=False)
    if fails == "chip":
        second = replace(second, rows=0)
    waiting = set()

    def told(step: Step) -> None:
        if step.name == "float":
            waiting.add(step.chip)

    def train() -> None:
        with side_by_side([first, second], tmp_path, 0, told) as running:
            while len(waiting) < 2:
                running.look()
                time.sleep(0.05)
            raise DataError("nothing to learn from")

    with pytest.raises(ConfigError if fails == "chip" else DataError):
        train()
    assert not multiprocessing.active_children()
    if fails == "training":
        with read_run(tmp_path / "run.h5") as run:
            assert run.status == "aborted"
            assert run.table("steps")["name"][-1] == "measure pulse curves"
