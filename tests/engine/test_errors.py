"""Errors carry what a program may decide by, and keep it through a journal."""

from __future__ import annotations

import copy
import math
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from rram_hil.array import Apply, Cells, Geometry, Limits, Scheme, Step, check
from rram_hil.bench.recipe import load_recipe
from rram_hil.errors import (
    BenchError,
    ConfigError,
    InstrumentError,
    LimitError,
    LinkError,
    UnknownOutcomeError,
)
from rram_hil.hardware.driver import Identity
from rram_hil.protocols.forming import Forming
from rram_hil.protocols.write_verify import WriteVerify
from rram_hil.storage.frames import Failed, Header
from rram_hil.storage.journal import Journal, read_journal
from rram_hil.storage.ledger import Ledger
from rram_hil.wire.open_link import make_link

LIMITS = Limits(
    bl_v=4.0,
    sl_v=3.0,
    wl_v=4.0,
    cell_v=4.0,
    gate_over_v=4.0,
    half_select_v=0.3,
    read_v=0.25,
    current_a=1e-3,
    energy_j=1e-8,
    width_s=1e-5,
    pulses_per_cell=100,
)
GEOMETRY = Geometry(tiles=1, rows=4, columns=4)


def test_the_text_is_made_of_step_place_and_message() -> None:
    error = LinkError("no reply", where="COM3")
    assert (str(error), error.message, error.resource) == ("COM3: no reply", "no reply", "COM3")
    error.step, error.step_name = 2, "form"
    assert str(error) == "step 2 (form): COM3: no reply"
    assert str(BenchError("plain")) == "plain"
    assert repr(LimitError("too much")) == "LimitError('too much')"


@pytest.mark.parametrize("again", [copy.copy, lambda e: pickle.loads(pickle.dumps(e))])
def test_errors_can_be_copied_and_pickled(again: Any) -> None:
    error = InstrumentError("bad", where="smu", code=-113, command="*IDN?")
    error.outputs_off = True
    other = again(error)
    assert type(other) is InstrumentError
    assert (str(other), other.code, other.command) == ("smu: bad", -113, "*IDN?")
    assert other.outputs_off is True


def test_a_limit_says_cell_line_value_and_range() -> None:
    step = Step(np.array([0.5, 5.0]), 0.0, 2.0, 1e-6)
    operation = Apply(Cells.of([(0, 1, 2), (0, 3, 1)]), (step,), Scheme.INHIBIT)
    with pytest.raises(LimitError) as caught:
        check(operation, GEOMETRY, LIMITS)
    error = caught.value
    assert (error.cell, error.line, error.value) == ((0, 3, 1), "BL", 5.0)
    assert error.allowed == (-4.0, 4.0)


def test_a_worn_cell_says_chip_count_and_range(tmp_path: Path) -> None:
    with Ledger(tmp_path / "l.npy", GEOMETRY, "c7", limit=10) as ledger:
        cells = Cells.of([(0, 0, 3)])
        ledger.charge(cells, 8)
        with pytest.raises(LimitError) as caught:
            ledger.check(cells, 3)
    error = caught.value
    assert (error.chip, error.cell, error.line) == ("c7", (0, 0, 3), "pulses")
    assert (error.value, error.allowed) == (11, (0, 10))


def test_a_link_says_its_resource() -> None:
    with pytest.raises(LinkError) as caught:
        make_link("/dev/no_such_port").open()
    assert caught.value.resource == "/dev/no_such_port"
    assert str(caught.value).startswith("/dev/no_such_port: cannot be opened")


@pytest.mark.parametrize(
    "error",
    [
        ConfigError("bad key", where="bench.toml", key="chip.id", value="../x"),
        LimitError("x", cell=(0, 1, 2), line="WL", value=math.inf, allowed=(-4.0, 4.0)),
        LinkError("gone", where="COM3"),
        UnknownOutcomeError("gone", where="COM3"),
        InstrumentError("bad", code=-113, command="*IDN?"),
    ],
)
def test_a_replayed_error_is_the_one_that_was_met(error: BenchError, tmp_path: Path) -> None:
    frame = Failed.of(7, error)
    header = Header("r", "c1", GEOMETRY, "", "", "", "virtual", Identity("m", "1"), "0.1.0")
    with Journal.create(tmp_path / "j", header) as journal:
        journal.append(frame)
    assert list(read_journal(tmp_path / "j"))[1:] == [frame]
    restored = frame.restored()
    assert type(restored) is type(error)
    assert str(restored) == str(error)
    assert vars(restored) == vars(error)


def test_a_failure_kept_by_an_earlier_version_is_read() -> None:
    restored = Failed(3, "LimitError", "cell (0, 0, 0): WL 5 V is beyond the limit").restored()
    assert type(restored) is LimitError
    assert str(restored) == "cell (0, 0, 0): WL 5 V is beyond the limit"
    assert type(Failed(3, "_BoardLostError", "gone").restored()) is LinkError


def test_what_a_value_cannot_be_kept_as_is_kept_in_words() -> None:
    frame = Failed.of(1, ConfigError("odd", value={1, 2}))
    assert frame.restored().value == "{1, 2}"  # type: ignore[attr-defined]


def test_a_protocol_made_in_python_is_refused_in_one_line() -> None:
    with pytest.raises(ConfigError) as caught:
        Forming(width_s="short")  # type: ignore[arg-type]
    error = caught.value
    assert str(error) == f"Forming: {error.message}"
    assert error.message.startswith("width_s: 'short' is wrong: ")
    assert (error.where, error.key, error.value) == ("Forming", "width_s", "short")
    assert error.__cause__ is None
    assert "\n" not in str(error)


def test_nested_models_tell_the_whole_path_and_unknown_keys_their_name() -> None:
    with pytest.raises(ConfigError, match=r"^Forming: bad: unknown key$"):
        Forming(bad=1)  # type: ignore[call-arg]
    with pytest.raises(ConfigError, match=r"^WriteVerify: bad: unknown key \(and"):
        WriteVerify(bad=1)  # type: ignore[call-arg]
    with pytest.raises(ConfigError, match=r"^Forming: cells\.rows\.1: 'x' is wrong: ") as caught:
        Forming(cells={"rows": [0, "x"]})  # type: ignore[arg-type]
    assert caught.value.key == "cells.rows.1"
    with pytest.raises(ConfigError, match=r"^Forming: cells\.rows\.1: 'x' is wrong: "):
        Forming.model_validate({"cells": {"rows": [0, "x"]}})
    with pytest.raises(ConfigError, match=r"^WriteVerify: targets: give either network"):
        WriteVerify(targets={})  # type: ignore[arg-type]


def test_a_recipe_names_file_step_and_protocol_and_keeps_the_key(tmp_path: Path) -> None:
    path = tmp_path / "r.toml"
    path.write_text("[[step]]\nprotocol = 'forming'\nwidth_s = 'short'\n")
    with pytest.raises(ConfigError) as caught:
        load_recipe(path)
    assert caught.value.where == f"{path}: step 1 (forming)"
    assert (caught.value.key, caught.value.value) == ("width_s", "short")


def test_pydantic_still_tells_its_own_error_of_other_models() -> None:
    with pytest.raises(ValidationError):
        Limits(bl_v=-1.0)  # type: ignore[call-arg]
