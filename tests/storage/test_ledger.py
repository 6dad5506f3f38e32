from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rram_hil.array import Cells, Geometry
from rram_hil.errors import ConfigError, DataError, LimitError
from rram_hil.storage.ledger import Ledger

GEOMETRY = Geometry(2, 3, 4)
SOME = Cells.of([(0, 1, 2), (1, 2, 3)])


def opened(path: Path, limit: int = 100, chip: str = "T1", geometry: Geometry = GEOMETRY) -> Ledger:
    return Ledger(path / "l.npy", geometry, chip, limit=limit)


def test_counts_outlive_runs_and_numpy_reads_them(tmp_path: Path) -> None:
    with opened(tmp_path) as ledger:
        assert ledger.created
        ledger.charge(SOME, np.array([5, 7]))
        ledger.correct(SOME, np.array([2, 0]))
        ledger.charge(Cells.all(GEOMETRY), 1)
    with opened(tmp_path) as ledger:
        assert not ledger.created
        assert ledger.counts[0, 1, 2] == 4
        assert ledger.counts[1, 2, 3] == 8
        assert ledger.counts.sum() == 24 + 10
        np.testing.assert_array_equal(np.load(tmp_path / "l.npy"), ledger.counts)


def test_a_cell_beyond_its_limit_is_named_and_nothing_is_charged(tmp_path: Path) -> None:
    with opened(tmp_path, limit=10) as ledger:
        ledger.charge(SOME, 8)
        with pytest.raises(
            LimitError,
            match=r"cell \(1, 2, 3\): 8 pulses so far and up to 3 more .* limit of 10 pulses",
        ):
            ledger.charge(SOME, np.array([2, 3]))
        assert ledger.counts.sum() == 16
        ledger.charge(SOME, 2)
        ledger.charge(SOME, 0)
        with pytest.raises(LimitError):
            ledger.charge(SOME, np.iinfo(np.int64).max)


def test_reads_stay_allowed_on_a_worn_cell(tmp_path: Path) -> None:
    with opened(tmp_path, limit=10) as ledger:
        ledger.charge(SOME, 10)
    with opened(tmp_path, limit=5) as ledger:
        ledger.charge(SOME, 0)


def test_more_cannot_come_back_than_was_counted(tmp_path: Path) -> None:
    with opened(tmp_path) as ledger:
        ledger.charge(SOME, 3)
        with pytest.raises(
            DataError, match=r"cell \(0, 1, 2\): 4 pulses given back, only 3 counted"
        ):
            ledger.correct(SOME, 4)
        ledger.correct(SOME, -2)
        assert ledger.counts.max() == 5


@pytest.mark.parametrize("pulses", [1.0, np.nan, np.zeros(3, dtype=int), -1])
def test_a_charge_must_be_a_whole_number_a_cell(pulses: object, tmp_path: Path) -> None:
    with opened(tmp_path) as ledger, pytest.raises(DataError, match=r"whole number|negative"):
        ledger.charge(SOME, pulses)  # type: ignore[arg-type]


def test_a_cell_off_the_chip_is_refused(tmp_path: Path) -> None:
    with opened(tmp_path) as ledger, pytest.raises(ConfigError, match="row must lie in"):
        ledger.charge(Cells.of([(0, 3, 0)]), 1)


def test_a_ledger_of_another_chip_or_size_is_refused(tmp_path: Path) -> None:
    opened(tmp_path).close()
    with pytest.raises(DataError, match=r"ledger of chip 'T1'.*this bench has chip 'T2'"):
        opened(tmp_path, chip="T2")
    with pytest.raises(DataError, match=r"shape \[2, 4, 3\]"):
        opened(tmp_path, geometry=Geometry(2, 4, 3))


def test_a_damaged_or_foreign_ledger_is_never_taken_for_a_new_one(tmp_path: Path) -> None:
    with opened(tmp_path) as ledger:
        ledger.charge(SOME, 9)
    path = tmp_path / "l.npy"
    whole = path.read_bytes()
    for length in (*range(0, 800, 3), *range(800, len(whole), 211), len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(DataError, match="damaged"):
            opened(tmp_path)
    np.save(path, np.zeros(GEOMETRY.shape, dtype=np.int64))
    with pytest.raises(DataError, match="not a pulse ledger"):
        opened(tmp_path)
    path.write_bytes(whole)
    opened(tmp_path).close()


def test_a_second_user_is_refused_until_the_first_is_gone(tmp_path: Path) -> None:
    with opened(tmp_path), pytest.raises(DataError, match="in use by another run"):
        opened(tmp_path)
    opened(tmp_path).close()


def test_a_missing_folder_or_a_full_disk_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(DataError, match="No such file"):
        Ledger(tmp_path / "no" / "l.npy", GEOMETRY, "T1", limit=1)
    monkeypatch.setattr(os, "write", lambda fd, data: 1)
    with pytest.raises(DataError, match="the disk is full"):
        opened(tmp_path)
    assert not (tmp_path / "l.npy").exists()
    monkeypatch.undo()
    with opened(tmp_path) as ledger:
        monkeypatch.setattr(os, "write", lambda fd, data: 1)
        with pytest.raises(DataError, match="the disk is full"):
            ledger.charge(SOME, 1)
        monkeypatch.undo()
        ledger.charge(SOME, 2)
        assert (np.load(tmp_path / "l.npy") == ledger.counts).all()


@settings(max_examples=25, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.lists(st.integers(0, 23), unique=True, min_size=1),
            st.integers(0, 9),
            st.integers(0, 9),
        ),
        max_size=8,
    )
)
def test_the_file_always_holds_the_sum_of_charges_and_corrections(
    tmp_path_factory: pytest.TempPathFactory, changes: list[tuple[list[int], int, int]]
) -> None:
    path = tmp_path_factory.mktemp("ledger")
    expected = np.zeros(GEOMETRY.size, dtype=np.int64)
    with opened(path, limit=1000) as ledger:
        for index, charge, back in changes:
            cells = Cells.from_index(index, GEOMETRY)
            ledger.charge(cells, charge)
            ledger.correct(cells, min(charge, back))
            expected[index] += charge - min(charge, back)
            np.testing.assert_array_equal(np.load(path / "l.npy").ravel(), expected)
