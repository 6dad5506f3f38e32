"""From the records of a study to its tables, plots and file."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rram_hil.errors import DataError
from rram_hil.studies.jobs import ArmRecord, Costs, Done, Job, Right, TrainingRecord
from rram_hil.studies.models import Images, Pictures
from rram_hil.studies.plan import Planned, plan
from rram_hil.studies.plots import draw
from rram_hil.studies.results import Row, collect
from rram_hil.studies.results_file import write_results
from rram_hil.studies.store import Store
from rram_hil.studies.study_file import parse_study
from rram_hil.studies.tables import markdown, rows_of, spent
from rram_hil.studies.words_needed import Series, series_of

FLOAT = [True, True, True, True, False]
CHIPS = {1: [True, True, True, False, False], 2: [True, True, False, True, True]}


@pytest.fixture
def planned() -> Planned:
    pictures = Pictures(np.zeros((5, 1, 8, 8), np.uint8), np.zeros(5, np.int64))
    tables: dict[str, Any] = {
        "title": "Mine",
        "model": "digits",
        "chips": 3,
        "devices": ["A", "hfo2"],
        "arm": [{"name": "float", "arm": "float"}, {"name": "RSA", "arm": "random-words"}],
    }
    return plan(parse_study(tables, "here"), Images(pictures, pictures, pictures))


@pytest.fixture
def store(tmp_path: Path, planned: Planned) -> Any:
    """On device A, two of three chips of RSA are done; nothing of hfo2."""
    with Store(tmp_path / "jobs") as store:
        right = Right.of(np.array(FLOAT))
        for job in planned.jobs:
            if job.kind == "training":
                told = TrainingRecord(
                    title="t", host_s=1.0, as_trained=0.6, clipped=0.8, right=right
                )
                store.keep(job, Done(told, b"network"))
        for chip, found in CHIPS.items():
            costs = Costs(pulses=100 * chip, reads=0, vectors=10, bench_s=0.25)
            record = ArmRecord(
                title="a",
                host_s=2.0,
                accuracy=float(np.mean(found)),
                right=Right.of(np.array(found)),
                costs=costs,
                words=8,
                digital=2,
                fraction=0.05,
                bits=80,
                mac_share=0.04,
            )
            store.keep(planned.table["A", "RSA", chip], Done(record))
        yield store


def test_a_row_is_the_mean_and_the_least_of_the_chips_beside_the_network(
    planned: Planned, store: Store
) -> None:
    results = collect(planned, store)
    row = results.row("A", "RSA")
    assert row is not None
    assert (row.accuracy, row.least, row.float_accuracy) == pytest.approx((0.7, 0.6, 0.8))
    differences = [0.0, 0.0, -0.5, -0.5, 0.5]
    assert row.gap == pytest.approx(np.mean(differences))
    assert row.gap_error == pytest.approx(np.std(differences, ddof=1) / math.sqrt(5))
    assert row.mean("pulses") == 150
    assert results.row("hfo2", "RSA") is None


def test_the_table_shows_what_is_done(planned: Planned, store: Store) -> None:
    text = markdown(collect(planned, store))
    (line,) = [line for line in text.splitlines() if line.startswith("| RSA")]
    assert [part.strip() for part in line.split("|")[1:-1]] == [
        *("RSA", "2", "70.0 %", "60.0 %", "80.0 %", "−10.00 (18.71)"),
        *("5.00 %", "80", "4.00 %", "150", "0", "10", "250 ms"),
    ]
    assert "hfo2" not in text


def test_bits_of_an_order_are_shown_where_there_are_no_words(
    planned: Planned, store: Store
) -> None:
    right = Right.of(np.array(FLOAT))
    record = ArmRecord(title="a", host_s=2.0, accuracy=0.8, right=right, bits=700)
    store.keep(planned.table["hfo2", "RSA", 1], Done(record))
    results = collect(planned, store)
    row = results.row("hfo2", "RSA")
    assert row is not None
    assert spent(row)[:3] == ("", "700", "")


def test_xarray_opens_the_results_with_named_dimensions(
    planned: Planned, store: Store, tmp_path: Path
) -> None:
    xarray = pytest.importorskip("xarray")
    pytest.importorskip("h5netcdf")
    write_results(collect(planned, store), tmp_path / "results.h5")
    with xarray.open_dataset(tmp_path / "results.h5", engine="h5netcdf") as found:
        assert found.accuracy.dims == ("device", "arm", "chip")
        assert list(found.device.values) == ["A", "hfo2"]
        assert list(found.arm.values) == ["float", "RSA"]
        assert list(found.chip.values) == [1, 2, 3]
        mine = found.sel(device="A", arm="RSA")
        np.testing.assert_allclose(mine.accuracy, [0.6, 0.8, np.nan])
        np.testing.assert_array_equal(mine.right.sel(chip=1), CHIPS[1])
        assert (mine.right.sel(chip=3) == -1).all()
        assert np.isnan(found.sel(device="hfo2").accuracy).all()
        assert found.bench_s.attrs["units"] == "s"
        assert found.attrs["title"] == "Mine"


def test_a_study_of_which_nothing_is_done_has_a_file_too(planned: Planned, tmp_path: Path) -> None:
    with Store(tmp_path / "other") as empty:
        write_results(collect(planned, empty), tmp_path / "results.h5")
    with h5py.File(tmp_path / "results.h5") as file:
        assert np.isnan(file["accuracy"][()]).all()


@dataclass(frozen=True)
class _Row:
    """A row by its words and its gap alone."""

    fraction: float
    gap: float

    def mean(self, name: str) -> float:
        assert name == "fraction"
        return self.fraction


def _series(*rows: tuple[float, float]) -> Series:
    return Series("RSA", tuple(cast(Row, _Row(*row)) for row in rows))


def test_words_for_a_gap_lie_on_the_line_between_two_rows() -> None:
    series = _series((0.02, -0.03), (0.05, -0.01), (0.10, 0.001))
    assert series.needed(0.02) == pytest.approx(0.035)
    assert series.needed(0.01) == pytest.approx(0.05)
    assert series.needed(0.0) == pytest.approx(0.05 + 0.05 * 10 / 11)
    assert series.needed(0.03) == series.needed(0.5) == 0.02
    assert _series((0.02, -0.03), (0.05, -0.01)).needed(0.005) is None


def test_rows_of_one_arm_with_other_fractions_are_a_series(tmp_path: Path) -> None:
    arms = [
        {"name": "RSA", "arm": "random-words"},
        {"name": "RSA (10 %)", "arm": "random-words", "fraction": 0.1},
        {"name": "KD + RSA", "arm": "random-words", "teaching": "distilled"},
        {"name": "KD", "arm": "one-shot", "teaching": "distilled"},
    ]
    tables = {"model": "digits", "chips": 1, "devices": ["A", "B"], "arm": arms}
    pictures = Pictures(np.zeros((100, 1, 8, 8), np.uint8), np.zeros(100, np.int64))
    planned = plan(parse_study(tables, "here"), Images(pictures, pictures, pictures))
    wrong = {"RSA": 9, "RSA (10 %)": 5, "KD + RSA": 3, "KD": 8}
    fractions = {"RSA": 0.05, "RSA (10 %)": 0.1, "KD + RSA": 0.05, "KD": 0.0}
    with Store(tmp_path / "jobs") as store:
        for job in planned.jobs:
            if job.kind == "training":
                right = Right.of(np.arange(100) >= 3)
                store.keep(
                    job,
                    Done(
                        TrainingRecord(
                            title="t", host_s=1.0, as_trained=0.97, clipped=None, right=right
                        ),
                        b"network",
                    ),
                )
        for (_, name, _), job in planned.table.items():
            record = ArmRecord(
                title="a",
                host_s=1.0,
                accuracy=1 - wrong[name] / 100,
                right=Right.of(np.arange(100) >= wrong[name]),
                fraction=fractions[name],
            )
            store.keep(job, Done(record))
        results = collect(planned, store)
    found = {one.name: one.fractions for one in series_of(planned.study, rows_of(results, "A"))}
    assert found == {"RSA": [0.05, 0.1], "KD + RSA": [0.05]}
    text = markdown(results)
    assert "| RSA | > 10.00 % | > 10.00 % | > 10.00 % | > 10.00 % |" in text
    assert "| RSA (10 %) | 95.0 % | 95.0 % |" in text.split("## Mean accuracy")[1]


@dataclass(frozen=True)
class _Named(_Row):
    """A row with the name of its arm."""

    arm: str


def test_a_series_differs_in_its_words_and_not_in_what_it_verifies() -> None:
    rows = {
        "SWIM 10 % + RSA": (0.1, 0.05),
        "SWIM 50 % + RSA": (0.5, 0.05),
        "SWIM 10 % + RSA (8 %)": (0.1, 0.08),
    }
    tables = {
        "model": "digits",
        "devices": ["A"],
        "arm": [
            {"name": name, "arm": "selected-verify", "fraction": verified, "words": words}
            for name, (verified, words) in rows.items()
        ],
    }
    done = [cast(Row, _Named(words, -0.01, name)) for name, (_, words) in rows.items()]
    found = {one.name: one.fractions for one in series_of(parse_study(tables, "here"), done)}
    assert found == {"SWIM 10 % + RSA": [0.05, 0.08], "SWIM 50 % + RSA": [0.05]}


def test_plots_are_pictures(planned: Planned, store: Store, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    drawn = draw(collect(planned, store), tmp_path)
    assert [path.name for path in drawn] == ["accuracy-A.png", "words-A.png"]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in drawn)


@given(st.lists(st.booleans(), min_size=1, max_size=40))
def test_right_images_are_kept_a_bit_each(values: list[bool]) -> None:
    kept = Right.model_validate_json(Right.of(np.array(values)).model_dump_json())
    assert kept.values().tolist() == values


def test_a_folder_belongs_to_one_command_at_a_time(tmp_path: Path) -> None:
    with Store(tmp_path), pytest.raises(DataError, match="in use by another run"):
        Store(tmp_path)
    with Store(tmp_path):
        pass


def test_a_job_whose_record_was_not_finished_is_not_done(planned: Planned, tmp_path: Path) -> None:
    job = planned.table["A", "RSA", 1].needs["student.safetensors"]
    told = TrainingRecord(
        title="t", host_s=1.0, as_trained=1.0, clipped=None, right=Right.of(np.array([True]))
    )
    with Store(tmp_path) as store:
        assert not store.has(job)
        (tmp_path / f".{job.key}.json.unfinished").write_text("{")
        (tmp_path / f"{job.key}.safetensors").write_bytes(b"cut")
        assert not store.has(job)
        store.keep(job, Done(told, b"whole"))
        assert store.has(job)
        assert (store.record(job), store.file(job)) == (told, b"whole")


def test_a_damaged_record_is_named(planned: Planned, tmp_path: Path) -> None:
    job: Job = planned.table["A", "RSA", 1]
    with Store(tmp_path) as store:
        (tmp_path / f"{job.key}.json").write_text("{}")
        with pytest.raises(DataError, match=rf"{job.key}\.json: not a record of a study"):
            store.record(job)
