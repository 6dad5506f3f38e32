"""Instruments of RRAM labs that are known here and not driven.

Identifications: a 4200A-SCS answers `*IDN?` "KEITHLEY INSTRUMENTS,KI4200A,..." or "..., MODEL
4200A, ..." (the sources of two public programs, one with a recorded answer), with a NUL at the end
of each message over TCP port 1225 (PyMeasure 0.16.0, `keithley4200.py`). A 707A and a 708A know no
`*IDN?`: their device-dependent commands are those that 707B-901-01 rev. A, 5-23 to 5-28, sets
against TSP's.

A 2651A goes to 50 A (2651A-901-01 rev. A, 2-66). Unverified: how a 707A or 708A answers `*IDN?`;
the 20 V of a 2606B, the 3000 V of a 2657A; whether a 2601 to 2636 without a letter has the triggers
of 2600AS-901-01 rev. B, section 10.
"""

from __future__ import annotations

from rram_hil.hardware.undriven import Undriven

KEITHLEY_4200 = Undriven(
    r"(KI)?4200A?(-SCS)?",
    "a 4200A-SCS is not driven: nothing here speaks KXCI, to its SMUs or to its 4225-PMU; use a"
    " keysight-b1500 or keithley-2600b to sweep and a keysight-33500 to pulse, or add a driver"
    " (docs/adding-a-driver.md)",
)
KEITHLEY_707A = Undriven(
    r"70[78]A?",
    "a 707A or 708A is not driven: it speaks device-dependent commands (DDC) where a 707B or 708B"
    " speaks TSP; use one of those, or add a driver (docs/adding-a-driver.md)",
)
KEITHLEY_2600 = Undriven(
    r"26(01|02|11|12|35|36)",
    "a 2601 to 2636 without a letter is not driven: no document that was opened says that it"
    " has smuX.trigger, by which those with an A or B sweep; use one of those (keithley-2600b), or"
    " add a driver (docs/adding-a-driver.md)",
)
KEITHLEY_2650 = Undriven(
    r"2606B|265[17]A",
    "a 2606B (20 V), 2651A (50 A) or 2657A (3000 V) is not driven: it speaks TSP as a"
    " keithley-2600b does, but no table of that family is as tight as its ranges; add a driver with"
    " a table of its own (docs/adding-a-driver.md)",
)
