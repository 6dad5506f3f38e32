"""What stands in a run file: its format, the columns of its tables, their units and codes."""

from __future__ import annotations

import numpy as np

from rram_hil.array import Status
from rram_hil.storage.hdf5 import TEXT, Column

FORMAT = "rram_hil run"
FORMAT_VERSION = 1
KINDS = ("Apply", "Program", "Multiply", "WriteWords", "Wait", "CodedRead")
OUTCOMES = ("done", "interrupted", "no_result")
EVENTS = ("info", "interrupted", "resumed", "aborted", "error")
_ADDRESS = (
    Column("tile", np.int32, "tile of the cell, from 0"),
    Column("row", np.int32, "row (word line) of the cell, from 0"),
    Column("column", np.int32, "column (bit line) of the cell, from 0"),
)
OPERATIONS = (
    Column("operation", np.int64, "number of the operation"),
    Column("step", np.int32, "step of the recipe, 0 outside one"),
    Column("kind", np.uint8, "kind of operation", flags=KINDS),
    Column("label", TEXT, "label given by the protocol"),
    Column("settings", np.int32, "row of the group settings that says what was done"),
    Column("outcome", np.uint8, "how the operation ended", flags=OUTCOMES),
    Column("started_s", np.float64, "start on the bench clock", "s"),
    Column("ended_s", np.float64, "end on the bench clock", "s"),
    Column(
        "away_s", np.float64, "time for which the bench was alone, of an interrupted operation", "s"
    ),
    Column("cells", np.int64, "cells addressed", "1"),
    Column("charged", np.int64, "pulses charged beforehand, worst case, all cells", "1"),
    Column("pulses", np.int64, "pulses given, all cells", "1"),
    Column("reads", np.int64, "measurements taken, all cells", "1"),
    Column("not_ok", np.int64, "values kept whose status is not ok", "1"),
    Column("vectors", np.int64, "input vectors of a multiply, and of coded readings", "1"),
    Column("saturated", np.int64, "clipped ADC codes of a multiply", "1"),
    Column("lsb_a", np.float64, "current of one ADC code step of a multiply", "A"),
    Column("emulated", np.uint8, "1: the multiply was made of single reads"),
)
CELLS = (
    Column("operation", np.int64, "number of the operation"),
    *_ADDRESS,
    Column(
        "measurement", np.int32, "place among the operation's measurements of this cell, from 0"
    ),
    Column("current_a", np.float64, "measured current, raw", "A"),
    Column(
        "gate_a",
        np.float64,
        "current into the word line beside current_a, raw; only in runs that asked for it",
        "A",
        optional=True,
    ),
    Column("conductance_s", np.float64, "conductance, calibrated", "S"),
    Column(
        "status", np.uint8, "what the value is worth", flags=tuple(s.name.lower() for s in Status)
    ),
    Column("time_s", np.float64, "time of the measurement on the bench clock", "s"),
    Column(
        "pulses", np.int32, "pulses given in this operation, in the cell's first row, else 0", "1"
    ),
    Column("set_pulses", np.int32, "SET pulses of a Program, else 0", "1"),
    Column("reset_pulses", np.int32, "RESET pulses of a Program, else 0", "1"),
    Column(
        "reads",
        np.int32,
        "measurements taken in this operation, in the cell's first row, else 0",
        "1",
    ),
    Column("inside", np.int8, "accepted in its window by a Program: 1 yes, 0 no; -1: no Program"),
)
CODES = (
    Column("operation", np.int64, "number of the operation"),
    Column("vector", np.int32, "input vector of the multiply, from 0"),
    Column("column", np.int32, "column of the multiply's block, from 0"),
    Column("code", np.int32, "ADC code; times lsb_a of the operation it is a current"),
    Column("word_sum", np.int64, "sum of input code x on-chip word; 0 where words were not used"),
)
STEPS = (
    Column("step", np.int32, "number of the step"),
    Column("name", TEXT, "name of the step"),
    Column("protocol", TEXT, "protocol"),
    Column("version", TEXT, "version of the protocol"),
    Column("started_s", np.float64, "start on the bench clock", "s"),
    Column("ended_s", np.float64, "end on the bench clock, NaN where the step did not end", "s"),
    Column("operations", np.int64, "operations with a result", "1"),
    Column("pulses", np.int64, "pulses given", "1"),
    Column("reads", np.int64, "measurements taken", "1"),
)
NOTES = (
    Column("event", np.uint8, "kind of note", flags=EVENTS),
    Column("text", TEXT, "what happened"),
    Column("utc", TEXT, "UTC time, ISO 8601"),
    Column("time_s", np.float64, "time on the bench clock", "s"),
)
SETTINGS = (
    Column(
        "text", TEXT, "settings of operations as JSON, SI units; a per-cell value as its extremes"
    ),
)
