"""A simulated ArC ONE board: its firmware's side of the serial protocol in a process of its own,
before one `SimulatedChip` (1R).

`launch` starts it for a bench, `start_alone` without one; `python -m
rram_hil.drivers.simulated.arc_one` is the process. It is written from the facts in the maker's
public host programs (arc1_pyqt with its VirtualArC, libarc1) and manual (arc1_docs), for the
firmware is not public: how modules step inside, that a number with a decimal point passes for a
whole one, that a job which is not known takes the lines that come with it, what a read of a cell
beyond the array answers (NaN), that jobs before the session's start or in an offline one are read
and ignored, and that a current over range is told as 0 ohm are assumptions.

Modelled: every job of those hosts, with its arguments and replies: lines, jobs by their exact code,
sessions, the selected cell, read modes by their number only, series resistors as a current limit,
cut-offs, the reset, which reaches the board at any time. Any other number is no job of theirs: the
lines that come with it are swallowed, a warning says so, and the status counts it
(`unknown_jobs`).
A read averages `read_cycles` samples: noise falls with their square root, each sample takes
`timing.conversion_s`. Half-selected cells are counted (truth "half_selected": exposures above the
read limit to V/2 or V/3 of somebody else's pulse; none where lines float) but not disturbed.

Virtual time: 1 ms a line from the host, as it must pace them; 11 bits a byte to the host at 921600
baud; `timing.link_s` once for what a host sends without waiting (a run of reads and pulses, a
masked read, one device of a module); 2 s for a reset.
"""

from __future__ import annotations

import logging
import math
import os
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from rram_hil.array import Geometry, Limits, Scheme
from rram_hil.errors import ConfigError
from rram_hil.hardware.far_side import FarSideRequest, SimulatedFarSide
from rram_hil.simulation.chip import SimulatedChip
from rram_hil.simulation.config import FaultEntry, Simulation
from rram_hil.simulation.converters import ADC_RANGES_A, DAC_STEP_V
from rram_hil.types import FloatArray

from .arc_one_array import SHORTEST_S, Array
from .server.control import (
    FaultQueue,
    Injected,
    LinkFault,
    checked_fault,
)
from .server.far_side import FarSide
from .server.process import GONE_S, serve, start
from .test_chip_board import HostLink, PtyLink, SocketLink

LOG = logging.getLogger(__name__)
MAKER = "ArC Instruments"
MODELS = ("ArC ONE",)
"""What `rram-hil simulate --model` takes."""
MODULE = "rram_hil.drivers.simulated.arc_one"
LINE_S = 1e-3
BYTE_S = 11 / 921600
RESET_S = 2.0
VERSION = (3, 2)
SIDE = 32
TOP_V = 12.0
LONGEST_S = 10.0
HOLD_S = 2e-3
"""How much longer than it is told the board holds a level of a curve tracer: the time that the
maker's panel takes off.
"""
STAMP_S = 1e-6
"""What a count of the volatility job's time stamps is (unverified)."""
TICK_S = 0.02
LONGEST_LINE = 1 << 16
TOGETHER_S = 0.05
"""Lines that come within this time of each other belong to one job, where the job is not known."""
MOST_REVERSALS = 5
MOST_CYCLES = 10**6
"""Samples of a read beyond which a number is none that a host means."""
LARGEST = float(np.finfo(np.float32).max)
END_OF_PHASE = -1.0
"""Width that ends the triplets of a multi-state job; lines of text follow."""
A_STATE = -1.0
"""Resistance that says: the next triplet is a state and its bounds."""
OFFLINE = 3
SCHEMES = {0: Scheme.THIRD, 1: Scheme.HALF}
"""Of unselected lines during pulses; any other code lets them float."""
SERIES_OHM = {1: 1e3, 2: 1e4, 3: 1e5, 4: 1e6}
STREAMED = frozenset({"1", "3", "02", "04"})
SILENT = frozenset({"01", "011", "02", "04"})
"""Jobs without a reply: no fault of a reply is spent on them."""

BEFORE = frozenset(
    {
        LinkFault.DROP_REQUEST,
        LinkFault.DELAY_REQUEST,
        LinkFault.DISCONNECT_REQUEST,
        LinkFault.LEFT_OVER,
        LinkFault.STUCK,
        LinkFault.CRASH,
    }
)
AFTER = frozenset(
    {
        LinkFault.DROP_REPLY,
        LinkFault.HALF_REPLY,
        LinkFault.GARBAGE,
        LinkFault.DELAY_REPLY,
        LinkFault.DISCONNECT_REPLY,
    }
)
SUPPORTED = BEFORE | AFTER | {LinkFault.LINE_OVERRUN, LinkFault.WRONG_MODEL}
NOISE = bytes([0xFF, 0xFE, 0x00, 0x80]) + b"#!garbage\n"


class _ResetError(Exception):
    """The host has reset the board: whatever it was doing ends."""


class Firmware(FarSide):
    """The board: a thread that takes lines in (and the reset at once), and one that works through
    them job by job.
    """

    TRUTHS = ("pulses", "formed", "stuck")

    def __init__(self, link: HostLink, array: Array) -> None:
        super().__init__(array.chip, threading.RLock())
        self.addresses["resource"] = link.resource
        self._link, self._array = link, array
        self._geometry = array.geometry
        self._timing = array.chip.simulation.timing
        self._pace = array.chip.simulation.pace
        self.faults = FaultQueue()
        self._news = threading.Condition()
        self._lines: deque[str] = deque()
        self._is_reset = False
        self._jobs = self._turns = self._taken = self._resets = 0
        self._unknown: Counter[str] = Counter()
        self._is_ignored = False
        self._is_busy = self._is_driving = False
        self._fault: Injected | None = None
        self._is_mute = False
        self._last = ""
        self._handlers: dict[str, tuple[str, Callable[[], None]]] = {
            "0": ("INIT", self._init),
            "01": ("SETTING", self._set_read),
            "011": ("UPDATE", self._update),
            "02": ("SELECT", self._select),
            "04": ("PULSE", self._pulse_selected),
            "1": ("READ", self._read_one),
            "2": ("READ ALL", self._read_all),
            "3": ("PULSE READ", self._pulse_read),
            "14": ("FORM FINDER", lambda: self._form_finder(has_mode=False)),
            "141": ("FORM FINDER", lambda: self._form_finder(has_mode=True)),
            "15": ("SWITCH SEEKER", lambda: self._switch_seeker(slow=False)),
            "152": ("SWITCH SEEKER", lambda: self._switch_seeker(slow=True)),
            "161": ("MULTI STATE", self._infer_polarity),
            "162": ("MULTI STATE", self._drive_to_baseline),
            "163": ("MULTI STATE", lambda: self._seek_states("volts")),
            "164": ("MULTI STATE", lambda: self._seek_states("width")),
            "165": ("MULTI STATE", lambda: self._seek_states("pulses")),
            "191": ("ENDURANCE", self._endurance),
            "201": ("CURVE TRACER", self._curve_tracer),
            "21": ("CONVERGE", self._converge),
            "220": ("CHRONOAMPEROMETRY", self._chronoamperometry),
            "33": ("VOLATILITY", self._volatility),
            "40": ("STDP", self._spikes),
            "50": ("MULTI BIAS", self._multi_bias),
            "999": ("VERSION", self._version),
        }
        self._boot()
        threading.Thread(target=self._work, name="work", daemon=True).start()

    def _boot(self) -> None:
        self._session: int | None = None
        self._cycles, self._words, self._bits = 50, SIDE, SIDE
        self._mode, self._sneak_path, self._read_v = 2, 0, 0.5
        self._selected: int | None = None
        self._is_busy = self._is_driving = self._is_mute = False
        self._last = ""

    # Lines

    @override
    def serve(self) -> None:
        """Take lines in until the process ends."""
        pending = bytearray()
        while True:
            pending += self._link.read(TICK_S)
            if len(pending) > LONGEST_LINE and b"\n" not in pending:
                pending.clear()  # no line of this protocol is that long: noise
            while (end := pending.find(b"\n")) >= 0:
                line = bytes(pending[:end]).decode("latin-1")
                del pending[: end + 1]
                if self.faults.take(frozenset({LinkFault.LINE_OVERRUN}), line):
                    continue
                self._taken_in(line)

    def _taken_in(self, line: str) -> None:
        with self._news:
            if line == "00":
                self._lines.clear()
                self._is_reset = True
                self._array.cancel.set()
            else:
                self._lines.append(line)
            self._news.notify()

    def _line(self) -> str:
        """The next line; waits for it. Raises `_ResetError`."""
        with self._news:
            while not self._lines and not self._is_reset:
                self._news.wait()
            self._stop_if_reset()
            line = self._lines.popleft()
        self._pass(LINE_S)
        self._taken += 1
        return line

    def _ahead(self, count: int) -> list[str]:
        """The next lines without taking them, as far as they are here already."""
        with self._news:
            return [self._lines[k] for k in range(min(count, len(self._lines)))]

    def _numbers(self, count: int) -> list[float]:
        return [_number(self._line()) for _ in range(count)]

    def _stop_if_reset(self) -> None:
        if self._is_reset:
            raise _ResetError

    def _pass(self, seconds: float) -> None:
        """Let virtual time pass; wall time too where the bench is paced, unless the host resets the
        board.
        """
        end_s = time.monotonic() + seconds * self._pace
        while (left_s := end_s - time.monotonic()) > 0 and not self._is_reset:
            time.sleep(min(left_s, TICK_S))
        with self.chip_lock:
            self.chip.advance(max(0.0, seconds))

    # Jobs

    def _work(self) -> None:
        """The working thread."""
        while True:
            try:
                self._job(self._line())
            except _ResetError:
                with self._news:
                    self._is_reset = False
                    self._array.cancel.clear()
                    self._resets += 1
                self._boot()
                self._pass(RESET_S)

    def _job(self, code: str) -> None:
        if code not in self._handlers:
            if code.isdigit():
                self._swallow(code)
            return
        name, handler = self._handlers[code]
        # Its lines are read all the same: none of them may pass for a job.
        self._is_ignored = self._session in (None, OFFLINE) and code not in ("0", "999")
        if not self._is_ignored:
            self._jobs += 1
            follows_at_once = self._last == "011" if code == "01" else self._last in ("01", "011")
            if not (follows_at_once or {code, self._last} <= STREAMED):
                self._turn()
            self._last = code
        self._code, self._name = code, name
        self._fault, self._is_mute, self._is_busy = None, False, not self._is_ignored
        try:
            handler()
        finally:
            self._is_busy = self._is_driving = False

    def _swallow(self, code: str) -> None:
        """A job that is not known here: the lines that come with it are its arguments, not jobs."""
        taken = 0
        while True:
            with self._news:
                self._news.wait_for(lambda: self._lines or self._is_reset, TOGETHER_S)
                self._stop_if_reset()
                if not self._lines:
                    break
                count = len(self._lines)
                self._lines.clear()
            self._pass(count * LINE_S)
            taken += count
        self._taken += taken
        self._refuse(code, f"{taken} lines that came with it were swallowed")

    def _refuse(self, code: str, what: str) -> None:
        self._unknown[code] += 1
        LOG.warning("ArC ONE: job %s is not simulated: %s", code, what)

    def _turn(self) -> None:
        self._turns += 1
        self._pass(self._timing.link_s)

    def _begins(self, *arguments: float) -> bool:
        """The job has its arguments: False where a fault or an offline session keeps it from being
        done, and nothing is replied.
        """
        self._is_mute = not (begins := self._is_begun(*arguments))
        return begins

    def _is_begun(self, *arguments: float) -> bool:
        if self._is_ignored:
            return False
        text = " ".join([f"{self._name}: {self._code}", *(f"{a:g}" for a in arguments)])
        self._fault = None if self._code in SILENT else self.faults.take(AFTER, text)
        before = self.faults.take(BEFORE, text)
        if before is None:
            return True
        if before.kind is LinkFault.STUCK:
            self._is_driving = True
            with self._news:
                while not self._is_reset:
                    self._news.wait()
            raise _ResetError
        if before.kind is LinkFault.CRASH:
            os._exit(3)
        if before.kind is LinkFault.LEFT_OVER:
            self._link.write(np.full(3, 1e4, dtype="<f4").tobytes())
            return True
        if before.kind is LinkFault.DELAY_REQUEST:
            time.sleep(before.seconds)
            return True
        if before.kind is LinkFault.DISCONNECT_REQUEST:
            self._link.drop()
        return False

    def _reply(self, data: bytes) -> None:
        """Send a part of a job's reply, with the fault that waits for it."""
        self._stop_if_reset()
        self._pass(BYTE_S * len(data))
        fault, self._fault = self._fault, None
        if fault is not None:
            if fault.kind is LinkFault.DELAY_REPLY:
                time.sleep(fault.seconds)
            if fault.kind is LinkFault.DISCONNECT_REPLY:
                self._link.drop()
            if fault.kind is LinkFault.HALF_REPLY:
                self._link.write(data[: len(data) // 2])
            if fault.kind in (
                LinkFault.DISCONNECT_REPLY,
                LinkFault.HALF_REPLY,
                LinkFault.DROP_REPLY,
            ):
                self._is_mute = True
            if fault.kind is LinkFault.GARBAGE:
                data = NOISE + data
        self._stop_if_reset()
        if not self._is_mute:
            self._link.write(data)

    def _floats(self, values: FloatArray | list[float]) -> None:
        self._reply(np.asarray(values, dtype="<f4").tobytes())

    # Session

    def _init(self) -> None:
        arguments = self._numbers(7)
        if not self._begins(*arguments):
            return
        cycles, words, bits, mode, session, sneak_path, read_v = arguments
        good = (
            1 <= words <= SIDE
            and 1 <= bits <= SIDE
            and session in (0, 1, 2, 3)
            and abs(read_v) <= TOP_V
        )
        if not good:
            self._reply(b"0\n")
            return
        self._cycles, self._words, self._bits = _samples(cycles), int(words), int(bits)
        self._mode, self._session, self._sneak_path, self._read_v = (
            int(mode),
            int(session),
            int(sneak_path),
            read_v,
        )
        self._reply(b"1\n")

    def _set_read(self) -> None:
        mode, read_v = self._numbers(2)
        if self._begins(mode, read_v):
            self._mode, self._read_v = int(mode), float(np.clip(read_v, -TOP_V, TOP_V))

    def _update(self) -> None:
        cycles, sneak_path = self._numbers(2)
        if self._begins(cycles, sneak_path):
            self._cycles, self._sneak_path = _samples(cycles), int(sneak_path)

    def _version(self) -> None:
        if self.faults.take(frozenset({LinkFault.WRONG_MODEL}), "VERSION"):
            self._reply(b"ESPRESSO MACHINE 3000\n")
        elif self._begins():
            self._reply(np.array(VERSION, dtype="<u2").tobytes())

    # Single cells

    def _place(self, word: float, bit: float) -> int | None:
        """Flat index of a cell; None for one that the array has not."""
        w, b = int(word), int(bit)
        inside = 1 <= w <= min(self._words, self._geometry.rows) and 1 <= b <= min(
            self._bits, self._geometry.columns
        )
        return (w - 1) * self._geometry.columns + b - 1 if inside else None

    def _select(self) -> None:
        word, bit = self._numbers(2)
        if self._begins(word, bit):
            self._selected = self._place(word, bit)

    def _pulse_selected(self) -> None:
        volts, width = self._numbers(2)
        if self._begins(volts, width) and self._selected is not None:
            self._pulse(self._selected, volts, width)

    def _read_one(self) -> None:
        word, bit = self._numbers(2)
        if self._begins(word, bit):
            self._selected = self._place(word, bit)
            self._floats(self._resistances([self._selected]))

    def _read_all(self) -> None:
        kind, words, bits = self._numbers(3)
        if int(kind) == 1:
            if self._begins(kind, words, bits):
                self._selected = None
                # An array at most at once: a host may ask for any number of words and bits.
                cells = ((w + 1, b + 1) for w in range(int(words)) for b in range(int(bits)))
                while part := list(islice(cells, SIDE**2)):
                    self._floats(self._resistances([self._place(w, b) for w, b in part]))
        elif int(kind) == 2:
            count = int(self._numbers(1)[0])
            if self._begins(kind, words, bits, count):
                self._selected = None
                while count > 0:
                    places = [self._place(*self._numbers(2))]
                    while len(places) < count and len(ahead := self._ahead(2)) == 2:
                        place = self._place(*map(_number, ahead))
                        if place in places:
                            break
                        self._numbers(2)
                        places.append(place)
                    count -= len(places)
                    self._floats(self._resistances(places))
            else:
                self._numbers(2 * max(0, count))
        else:
            self._refuse(f"2 of kind {int(kind)}", "no host has that kind of read")

    def _pulse_read(self) -> None:
        """Pulse and read; what has come behind and differs in cell and volts only is done in the
        same go.
        """
        word, bit, volts, width = self._numbers(4)
        if not self._begins(word, bit, volts, width):
            return
        batch = [(self._place(word, bit), volts)]
        plain = self._fault is None and batch[0][0] is not None and not len(self.faults)
        taken = {batch[0][0]}
        while plain and not len(self.faults) and (ahead := self._next_pulse()):
            w, b, v, s = map(_number, ahead[-4:])
            place = self._place(w, b)
            if place is None or place in taken or s != width:
                break
            for _ in ahead:
                self._line()
            self._jobs += 1
            batch.append((place, v))
            taken.add(place)
        self._selected = batch[-1][0]
        if batch[0][0] is None:
            self._floats([math.nan])
            return
        places = np.array([p for p, _ in batch], dtype=np.int64)
        levels = np.clip(np.array([v for _, v in batch]), -TOP_V, TOP_V)
        self._is_driving = True
        with self.chip_lock:
            ohms = self._array.pulse_and_read(
                places,
                levels if _is_width(width) else None,
                min(width, LONGEST_S),
                self._read_v,
                self._cycles,
                SCHEMES.get(self._sneak_path, Scheme.FLOATING),
            )
        self._rest()
        self._floats(ohms)

    def _next_pulse(self) -> list[str]:
        """The lines of a job of this kind that are here already, with one before them that is no
        job; empty if none.
        """
        ahead = self._ahead(6)
        at = 1 if ahead and not (ahead[0].isdigit() or ahead[0] in self._handlers) else 0
        return ahead[: at + 5] if ahead[at : at + 1] == ["3"] and len(ahead) >= at + 5 else []

    def _resistances(
        self, places: list[int | None], cycles: int | None = None, read_v: float | None = None
    ) -> FloatArray:
        """What reads of these places tell (ohm); NaN where there is no cell."""
        read_v = self._read_v if read_v is None else read_v
        ohms = np.full(len(places), np.nan)
        there = np.array([p is not None for p in places], dtype=np.bool_)
        index = np.array([p for p in places if p is not None], dtype=np.int64)
        if index.size and read_v != 0:
            with self.chip_lock:
                ohms[there] = self._array.pulse_and_read(
                    index, None, 0.0, read_v, cycles or self._cycles, Scheme.FLOATING
                )
        return ohms

    def _resistance(self, place: int | None) -> float:
        return float(self._resistances([place])[0])

    def _pulse(self, place: int | None, volts: float, width: float, most_a: float = 0.0) -> None:
        """A pulse as the board's drivers give it: within +-12 V, none at all for a width below 90
        ns or where there is no cell.
        """
        self._stop_if_reset()
        if place is not None and _is_width(width):
            self._is_driving = True
            level = float(np.clip(volts, -TOP_V, TOP_V))
            with self.chip_lock:
                self._array.pulse(
                    place,
                    level,
                    min(width, LONGEST_S),
                    most_a,
                    SCHEMES.get(self._sneak_path, Scheme.FLOATING),
                )
        self._rest()

    def _rest(self) -> None:
        self._is_driving = False
        self._stop_if_reset()

    # Modules

    def _devices(self, arguments: list[float]) -> Iterator[int]:
        """Places of the devices that the host names, one after the other; each ends with a
        terminator, sent here.
        """
        for place in self._talks(arguments):
            if place is not None:
                yield place
            self._triplet(0.0, 0.0, 0.0)

    def _talks(self, arguments: list[float]) -> Iterator[int | None]:
        """The same of a job whose host and board talk on about each device: None where no cell is,
        or the job is not done. Its frame is kept all the same.
        """
        count = int(self._numbers(1)[0])
        begins = self._begins(*arguments, count)
        for _ in range(count):
            place = self._place(*self._numbers(2))
            if begins:
                self._turn()
                self._selected = place
            yield place if begins else None

    def _triplet(self, resistance: float, volts: float, width: float) -> None:
        self._floats([resistance, volts, width])

    def _form_finder(self, *, has_mode: bool) -> None:
        arguments = self._numbers(12 if has_mode else 11)
        linear = has_mode and int(arguments[9]) == 1
        v_min, v_step, v_max, w_min, w_step, w_max, between, r_stop, r_percent = arguments[:9]
        series, pulses = int(arguments[-2]), int(arguments[-1])
        for place in self._devices(arguments):
            first = self._resistance(place)
            self._triplet(first, 0.0, 0.0)
            resistance = first
            for volts, width in _volts_and_widths(
                v_min, v_step, v_max, w_min, w_step, w_max, linear
            ):
                most_a = abs(volts) / SERIES_OHM[series] if series in SERIES_OHM else 0.0
                for _ in range(pulses):
                    if _has_formed(resistance, first, r_stop, r_percent):
                        break
                    self._pulse(place, volts, width, most_a)
                    self._pass(between)
                    resistance = self._resistance(place)
                    self._triplet(resistance, volts, width)
                if _has_formed(resistance, first, r_stop, r_percent):
                    break

    def _curve_tracer(self) -> None:
        arguments = self._numbers(12)
        (
            v_pos,
            v_neg,
            v_start,
            v_step,
            width,
            between,
            cut_pos,
            cut_neg,
            cycles,
            pulsed,
            span,
            halt,
        ) = arguments
        # 10 uA exactly is a value at which the board's ranges meet, and is not taken.
        cuts = {1: abs(cut_pos), -1: abs(cut_neg)}
        cuts = {side: 0.0 if cut < 10.05e-6 else cut for side, cut in cuts.items()}
        sides = {0: (1, -1), 1: (-1, 1), 2: (1,), 3: (-1,)}.get(int(span), ())
        for place in self._devices(arguments):
            for cycle in range(int(cycles)):
                for side in sides:
                    levels = list(_ramp(v_start, v_step, v_pos if side > 0 else v_neg))
                    # The last level is held once (arc1_docs, the data set of "Saving data").
                    for level in levels + levels[-2::-1]:
                        self._stop_if_reset()
                        self._is_driving = True
                        with self.chip_lock:
                            resistance, is_cut = self._array.hold(
                                place,
                                float(np.clip(side * level, -TOP_V, TOP_V)),
                                float(np.clip(width, 0.0, LONGEST_S)) + HOLD_S,
                                cuts[side],
                                SCHEMES.get(self._sneak_path, Scheme.FLOATING),
                            )
                        if pulsed:
                            self._pass(between)
                        self._triplet(resistance, side * level, 0.0)
                        if is_cut and halt:
                            break
                    self._rest()
                # `_devices` sends the last cycle's terminator.
                if cycle + 1 < int(cycles):
                    self._triplet(0.0, 0.0, 0.0)

    def _endurance(self) -> None:
        arguments = self._numbers(10)
        v_pos, w_pos, cut_pos, v_neg, w_neg, cut_neg, between, n_pos, n_neg, cycles = arguments
        for place in self._devices(arguments):
            for _ in range(int(cycles)):
                for volts, width, cut, count in (
                    (v_pos, w_pos, cut_pos, n_pos),
                    (v_neg, w_neg, abs(cut_neg), n_neg),
                ):
                    for _ in range(int(count)):
                        self._pulse(place, volts, width, cut)
                        self._pass(between)
                        self._triplet(self._resistance(place), volts, width)

    def _converge(self) -> None:
        arguments = self._numbers(12)
        (
            v_min,
            v_step,
            v_max,
            w_min,
            w_step,
            w_max,
            between,
            target,
            near,
            drift,
            pulses,
            polarity,
        ) = arguments
        for place in self._devices(arguments):
            side, reversals = (1 if polarity >= 0 else -1), 0
            before = self._resistance(place)
            steps = _volts_and_widths(v_min, v_step, v_max, w_min, w_step, w_max, linear=False)
            while abs(before - target) > near / 100 * target:
                step = next(steps, None)
                if step is None:
                    break
                volts, width = side * step[0], step[1]
                for _ in range(int(pulses)):
                    self._pulse(place, volts, width)
                    self._pass(between)
                resistance = self._resistance(place)
                self._triplet(resistance, volts, width)
                away = abs(resistance - target) > abs(before - target)
                crossed = (resistance - target) * (before - target) < 0
                if (away and abs(resistance - before) > drift / 100 * before) or crossed:
                    reversals += 1
                    if reversals > MOST_REVERSALS:
                        break
                    side = -side
                    steps = _volts_and_widths(
                        v_min, v_step, v_max, w_min, w_step, w_max, linear=False
                    )
                before = resistance

    def _switch_seeker(self, *, slow: bool) -> None:
        """As VirtualArC steps; every reading and every pulse is told."""
        arguments = self._numbers(12)
        width, v_min, v_step, v_max, between, _, reads, pulses, cycles, percent, _, two = arguments
        for place in self._devices(arguments):

            def is_still(level: float, before: float, place: int = place) -> tuple[bool, float]:
                """Whether pulses of this level leave the resistance where it was, and that."""
                self._pulses(place, level, width, int(pulses), between)
                now, _ = self._train(place, reads)
                near = 1 + percent / 100
                return before / near <= now <= before * near, now

            levels = list(_ramp(v_min, v_step, v_max))
            before, _ = self._train(place, reads)
            side = int(np.sign(two))
            for ramp in self._first_stage(levels, slow=slow) if not side else ():
                now = before
                for level in ramp:
                    still, now = is_still(level, before)
                    if not still:
                        side = -int(np.sign(level))
                        break
                if side:
                    break
                before = now if slow else before
            left, missed = int(cycles) if side else 0, 0
            # A ramp that moves nothing is given again the other way round, and is the last if
            # that moves nothing either.
            while left > 0 and missed < 2:
                before, _ = self._train(place, reads)
                moved = any(not is_still(side * level, before)[0] for level in levels)
                left, missed, side = left - moved, 0 if moved else missed + 1, -side

    @staticmethod
    def _first_stage(levels: list[float], *, slow: bool) -> Iterator[list[float]]:
        """Ramps in search of the polarity: each level either way, or all up to it."""
        for k, level in enumerate(levels):
            for side in (1, -1):
                yield [side * v for v in levels[: k + 1]] if slow else [side * level]

    def _chronoamperometry(self) -> None:
        arguments = self._numbers(3)
        bias, width, reads = arguments
        for place in self._devices(arguments):
            for _ in range(int(reads)):
                self._stop_if_reset()
                self._is_driving = True
                with self.chip_lock:
                    resistance, _ = self._array.hold(
                        place,
                        float(np.clip(bias, -TOP_V, TOP_V)),
                        float(np.clip(width / reads, SHORTEST_S, LONGEST_S)),
                        0.0,
                        SCHEMES.get(self._sneak_path, Scheme.FLOATING),
                    )
                self._triplet(resistance, bias, width / reads)
            self._rest()

    def _volatility(self) -> None:
        """A read, batches of time stamps (text) and readings for as long as the host answers 0, and
        a read; no terminator.
        """
        arguments = self._numbers(4)
        volts, width, batch, averages = arguments
        for place in self._talks(arguments):
            self._pulse(place, volts, width)
            started = self.chip.now_s
            self._floats([self._resistance(place)])
            while True:
                points = bytearray()
                for _ in range(int(batch)):
                    self._stop_if_reset()
                    ohm = self._resistances([place], _samples(averages))
                    points += b"%d\n" % round((self.chip.now_s - started) / STAMP_S)
                    points += ohm.astype("<f4").tobytes()
                self._reply(bytes(points))
                if self._numbers(1)[0]:
                    break
            self._floats([self._resistance(place)])

    def _spikes(self) -> None:
        """Waveforms point by point, with a read before and after each of them."""
        for place in self._talks([]):
            self._triplet(self._resistance(place), self._read_v, 0.0)
            for _ in range(int(self._numbers(1)[0])):
                flat = self._numbers(2 * max(0, int(self._numbers(1)[0])))
                before = self._resistance(place)
                # A level lasts until the next point.
                for at, volts, until in zip(flat[::2], flat[1::2], flat[2::2], strict=False):
                    self._pulse(place, volts, until - at)
                self._triplet(before, self._read_v, 0.0)
                self._triplet(self._resistance(place), self._read_v, 0.0)
            self._triplet(self._resistance(place), self._read_v, 0.0)

    def _multi_bias(self) -> None:
        """Word lines that act on one bit line together: their current, or a pulse with a read of
        the whole bit line before and after it.
        """
        volts, width, read_v, count, bit, action = self._numbers(6)
        words = self._numbers(max(0, int(count)))
        if not self._begins(volts, width, read_v, count, bit, action, *words):
            return
        self._selected = None
        active = sorted({p for w in words if (p := self._place(w, bit)) is not None})
        if int(action) == 1:
            level = float(np.clip(read_v, -TOP_V, TOP_V))
            ohms = self._resistances(list(active), read_v=level)
            current = float(np.sum(level / ohms[ohms > 0]))
            self._triplet(level / current if current else math.inf, level, 0.0)
        elif int(action) == 2:
            line = [self._place(w + 1, bit) for w in range(self._words)]
            for ohm in self._resistances(line):
                self._triplet(float(ohm), self._read_v, 0.0)
            if active and _is_width(width):
                self._is_driving = True
                with self.chip_lock:
                    self._array.pulse_bit_line(
                        np.array(active),
                        float(np.clip(volts, -TOP_V, TOP_V)),
                        min(width, LONGEST_S),
                    )
            self._rest()
            for ohm in self._resistances(line):
                self._triplet(float(ohm), self._read_v, 0.0)
        else:
            self._refuse(f"50 of action {int(action)}", "no host has that action")

    def _infer_polarity(self) -> None:
        """Pulses of either polarity and rising amplitude until the resistance moves."""
        arguments = self._numbers(9)
        width, v_min, v_step, v_max, between, reads, pulses, percent, _ = arguments
        place = self._one_device(arguments)
        if self._is_mute:
            return
        start, _ = self._train(place, reads)
        for level in _ramp(v_min, v_step, v_max):
            for side in (1, -1):
                self._pulses(place, side * level, width, int(pulses), between)
                mean, _ = self._train(place, reads)
                if abs(mean - start) > percent / 100 * start:
                    self._end_of_phase(0, 1, 0, side)
                    return
        self._end_of_phase(1)

    def _drive_to_baseline(self) -> None:
        """A pulse and a read, for as long as the host answers 0."""
        arguments = self._numbers(2)
        place = self._one_device(arguments)
        while True:
            self._pulse(place, *arguments)
            self._floats([self._resistance(place)])
            if self._numbers(1)[0]:
                return

    def _seek_states(self, swept: Literal["volts", "width", "pulses"]) -> None:
        """More and stronger pulses; a state is told where the readings stand apart from those of
        the last one.
        """
        arguments = self._numbers(11)
        reads, between, rest = arguments[0], arguments[9], arguments[10]
        if swept == "pulses":
            low, step, high, sigmas, monotonic, _, width, volts = arguments[1:9]
            plan = [(volts, width, [int(n)]) for n in _ramp(low, step, high)]
        else:
            pulses, sigmas, monotonic, _, first, volts, step, last = arguments[1:9]
            counts = list(range(1, int(pulses) + 1))
            plan = (
                [(v, first, counts) for v in _ramp(volts, step, last)]
                if swept == "volts"
                else [(volts, w, counts) for w in _ramp(first, step, last)]
            )
        place = self._one_device(arguments)
        if self._is_mute:
            return
        mean, spread = self._train(place, reads)
        trend = 0.0
        for volts, width, counts in plan:
            for count in counts:
                self._pulses(place, volts, width, count, between)
                self._train(place, reads)
                self._pass(rest)
                now, spread_now = self._train(place, reads)
                turns = (now - mean) * trend < 0
                if turns and monotonic == 1:
                    self._end_of_phase(0, 0, 0)
                    return
                if turns and monotonic == 2:
                    break
                if abs(now - mean) > sigmas * (spread + spread_now):
                    trend, mean, spread = now - mean, now, spread_now
                    self._triplet(A_STATE, volts, width)
                    self._triplet(mean, mean - sigmas * spread, mean + sigmas * spread)
                    break
        self._end_of_phase(0, 0, 0)

    def _one_device(self, arguments: list[float]) -> int | None:
        """The device of a multi-state job: one, whatever its count says, for the host sends the
        count of its whole list with each of them.
        """
        count, word, bit = self._numbers(3)
        if not self._begins(*arguments, count):
            return None
        self._turn()
        self._selected = self._place(word, bit)
        return self._selected

    def _pulses(
        self, place: int | None, volts: float, width: float, count: int, between: float
    ) -> None:
        for _ in range(count):
            self._pulse(place, volts, width)
            self._pass(between)
            self._triplet(self._resistance(place), volts, width)

    def _train(self, place: int | None, reads: float) -> tuple[float, float]:
        """Mean and standard deviation of some readings (ohm), each of them told."""
        ohms = [self._resistance(place) for _ in range(max(1, int(reads)))]
        for ohm in ohms:
            self._triplet(ohm, self._read_v, 0.0)
        return float(np.mean(ohms)), float(np.std(ohms))

    def _end_of_phase(self, *numbers: int) -> None:
        """The last triplet of a multi-state job, then its status and results as lines of text."""
        self._triplet(0.0, 0.0, END_OF_PHASE)
        self._reply("".join(f"{number}\n" for number in numbers).encode())

    # Control

    @override
    def inject(self, entry: FaultEntry | dict[str, Any]) -> None:
        """Let a fault happen. Raises `ConfigError` for one that the board does not know: it has no
        error queue and no frames.
        """
        _, faults = checked_fault(entry, ["arc-one"], SUPPORTED)
        for fault in faults:
            self.faults.add(fault)

    @override
    def clear_faults(self) -> None:
        self.faults.clear()

    @override
    def reboot(self, *, drop_link: bool) -> None:
        self._taken_in("00")
        if drop_link:
            self._link.drop()

    @override
    def truth(self, name: str) -> NDArray[Any]:
        return self._array.half_selected[None] if name == "half_selected" else super().truth(name)

    @override
    def status(self) -> dict[str, Any]:
        return {
            "outputs_on": self._is_driving,
            "busy": self._is_busy,
            "session": self._session,
            "offline": self._session == OFFLINE,
            "read_v": self._read_v,
            "read_mode": self._mode,
            "sneak_path": self._sneak_path,
            "selected": self._selected,
            "now_s": self.chip.now_s,
            "jobs": self._jobs,
            "unknown_jobs": dict(self._unknown),
            "turns": self._turns,
            "lines": self._taken,
            "resets": self._resets,
            "waiting_faults": len(self.faults),
        }


def _number(line: str) -> float:
    """A line as a number that a float of the firmware holds; 0 for one that is none, as its
    conversion gives it.
    """
    try:
        value = float(line)
    except ValueError:
        return 0.0
    return min(max(value, -LARGEST), LARGEST) if math.isfinite(value) else 0.0


def _samples(number: float) -> int:
    return min(max(1, int(number)), MOST_CYCLES)


def _is_width(width: float) -> bool:
    # The sent decimal may round a width of exactly 90 ns down by a part in 1e7.
    return width >= SHORTEST_S * (1 - 1e-6)


def _ramp(first: float, step: float, last: float) -> Iterator[float]:
    """Levels by repeated addition in single precision, up to and including `last`; one alone where
    a step is lost in rounding.
    """
    level, add, top = np.float32(first), np.float32(step), np.float32(last)
    while abs(level) <= abs(top):
        yield float(level)
        with np.errstate(over="ignore"):
            after = np.float32(level + add)
        if after == level:
            return
        level = after


def _volts_and_widths(
    v_min: float,
    v_step: float,
    v_max: float,
    w_min: float,
    w_step: float,
    w_max: float,
    linear: bool,
) -> Iterator[tuple[float, float]]:
    """Every width at one level, then the next level."""
    for volts in _ramp(v_min, v_step, v_max):
        width, top = np.float32(w_min), np.float32(w_max)
        while width <= top:
            yield volts, float(width)
            after = (
                np.float32(width + np.float32(w_step))
                if linear
                else np.float32(width * (1 + w_step / 100))
            )
            if after <= width:
                break
            width = after


def _has_formed(resistance: float, first: float, r_stop: float, r_percent: float) -> bool:
    """By the change where a percentage is given, else by the threshold, as VirtualArC has it."""
    if r_percent > 0:
        return abs(resistance - first) > r_percent / 100 * first
    return resistance < r_stop


def launch(request: FarSideRequest) -> SimulatedFarSide:
    """Start a simulated board with the chip of a bench file. Raises `ConfigError` if it does not
    start.
    """
    simulation = Simulation.model_validate(request.simulation)
    started = start(MODULE, request, "ArC ONE")
    settings = {
        "port": started.answer["resource"],
        "reconnect_s": GONE_S,
        "clock": started.answer["control"],
        "pace": simulation.pace,
    }
    if simulation.converters:
        # What this board's data sheet would state: half a step of the DAC at the read limit, half
        # one of the ADC (12 bits).
        top = (1 << (simulation.adc_bits - 1)) - 1
        settings["read_fraction"] = DAC_STEP_V / 2 / request.limits.read_v + 10 * 0.5 / top
        settings["read_floor_a"] = 0.5 * ADC_RANGES_A[0] / top
    one = ("arc-one", MODELS[0], started.answer["resource"])
    return SimulatedFarSide(
        settings, started.answer["control"], started.stop, (one,), started.is_running
    )


def start_alone(
    model: str = MODELS[0],
    load_ohm: float = math.inf,
    port: int = 0,
    transport: Literal["pty", "socket"] = "socket",
) -> SimulatedFarSide:
    """Start a board with a fresh 32 x 32 array of the default device, or with a resistor of
    `load_ohm` at each of its places.

    `port` is that of a socket, 0 for any. Raises `ConfigError` if it does not start, or for another
    model.
    """
    if model not in MODELS:
        raise ConfigError(f"model {model!r}: this simulator stands for {', '.join(MODELS)}")
    settings = {"port": port} | ({"load_ohm": load_ohm} if math.isfinite(load_ohm) else {})
    request = FarSideRequest(
        Simulation(transport=transport),
        Geometry(1, SIDE, SIDE, "1R"),
        _ALONE,
        "alone",
        Path.cwd(),
        {"alone": settings},
    )
    return launch(request)


_ALONE = Limits(
    bl_v=TOP_V,
    sl_v=TOP_V,
    wl_v=TOP_V,
    cell_v=TOP_V,
    gate_over_v=TOP_V,
    half_select_v=TOP_V,
    read_v=0.5,
    current_a=1e-2,
    energy_j=1.0,
    width_s=LONGEST_S,
    pulses_per_cell=1 << 30,
)


def firmware(request: FarSideRequest) -> Firmware:
    """The board of a bench, with the faults of its file waiting. Raises `ConfigError` for what does
    not fit together.
    """
    geometry, alone = request.geometry, request.settings.get("alone", {})
    if geometry.cell != "1R" or geometry.tiles != 1 or max(geometry.rows, geometry.columns) > SIDE:
        raise ConfigError(f"an ArC ONE holds one 1R array of up to {SIDE} x {SIDE} cells")
    simulation = Simulation.model_validate(request.simulation)
    link = SocketLink(alone.get("port", 0)) if simulation.transport == "socket" else PtyLink()
    chip = SimulatedChip(
        geometry,
        # The board averages its samples itself, so the chip gives it the conductance without noise.
        simulation.model_copy(update={"read_noise": False}),
        read_v=request.limits.read_v,
        chip_id=request.chip_id,
        folder=request.folder,
    )
    made = Firmware(link, Array(chip, alone.get("load_ohm"), simulation.read_noise))
    for fault in simulation.faults:
        made.inject(fault)
    return made


if __name__ == "__main__":
    serve(firmware)
