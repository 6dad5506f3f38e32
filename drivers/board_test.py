"""A person's board taken through the protocol of docs/board-protocol.md, rule by rule.

The frames are made by hand, damaged ones too, so that what the board does is seen and not what the
driver makes of it. What moves nothing is done first and always: framing, messages, limits, arming,
operation numbers, notices, stops and the watchdog, all with WAIT, which drives no line. Reads and a
pulse follow where the person asks for them.
"""

from __future__ import annotations

import contextlib
import math
import struct
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from rram_hil.array import Apply, Block, Cells, CodedRead, Limits, Step, Wait
from rram_hil.array.limits import check
from rram_hil.array.operations import read
from rram_hil.array.results import ApplyResult, CodedReadResult
from rram_hil.errors import BenchError, ConfigError, LimitError, LinkError
from rram_hil.hardware.examination import Drive, Outcome, Port, Verdict
from rram_hil.wire.link import Link
from rram_hil.wire.open_link import make_link

from .dialects.board_codec import (
    ERROR,
    LIMIT_FIELDS,
    MORE,
    REPLY,
    SYNC,
    VERSION,
    WORKING,
    BoardStatus,
    Code,
    Envelope,
    Frame,
    FrameReader,
    Kind,
    MalformedError,
    decode_abort,
    decode_error,
    decode_executed,
    decode_identify,
    decode_result,
    decode_self_test,
    decode_status,
    encode_executed,
    encode_frame,
    encode_limits,
    encode_operation,
    encode_request,
)

UNKNOWN_TYPE = 0x0F
"""A command that version 1 has not."""
GAP_S = 0.2
NOTICE_S = 0.25
LATE_S = 0.15
"""What a notice or the end of an operation may come late by: computers and USB take their time."""
REPLY_BYTES, CELL_BYTES = 32, 33
"""Reply of an APPLY (section 6) with one reading: what stands in front, and each cell's part."""
MOST_S = 120.0
"""Longest wait for a reply that notices and parts keep promising."""
FEED_S = 0.4
"""How often a waiting host feeds the watchdog: four times and more in the 2 s after boot."""
BODY_V = 0.1
"""Of a body beyond its limits: weaker than what opens any junction, should a board carry it out."""
LONG_S = 1.5
"""A WAIT in which things happen."""
GENERATIONS = 50
"""Sequences are drawn from so many different beginnings, so that late replies of an earlier
examination are not taken for answers.
"""


class _BrokenError(Exception):
    """The board did something else than the rule says."""


class _LeftOutError(Exception):
    """The board has not what the rule is about, or it cannot be seen on this board."""


class _RefusedError(Exception):
    """An error reply."""

    def __init__(self, code: int, number: int, text: str) -> None:
        super().__init__(f"ERROR {code} {text!r}")
        self.code, self.number = code, number


@dataclass
class _Reply:
    """A message of the board: its first frame, and the payloads of all its parts."""

    frame: Frame
    payload: bytes

    @property
    def error(self) -> _RefusedError | None:
        if not self.frame.flags & ERROR:
            return None
        try:
            return _RefusedError(*decode_error(self.payload))
        except MalformedError as error:
            raise _BrokenError(f"an error reply that is none: {error}") from None


@dataclass
class _Board:
    """The board's link, and what is known of it."""

    link: Link
    silence_s: float
    drive: Drive
    reader: FrameReader = field(default_factory=FrameReader)
    sequence: int = field(default_factory=lambda: (time.time_ns() % GENERATIONS + 1) << 24)
    boot: int = 0
    envelope: Envelope | None = None
    heard: dict[int, list[tuple[float, float]]] = field(default_factory=dict)
    """When the notices and the reply of each message came, by this computer's clock and by the
    board's own (s).
    """
    replies: dict[int, _Reply] = field(default_factory=dict)
    parts: dict[int, list[bytes]] = field(default_factory=dict)

    @property
    def known(self) -> Envelope:
        """What it said of itself."""
        assert self.envelope is not None
        return self.envelope

    def frame(
        self, kind: int, payload: bytes = b"", boot: int | None = None, version: int = VERSION
    ) -> Frame:
        """A whole request under a new sequence."""
        self.sequence += 1
        to = self.boot if boot is None else boot
        return Frame(kind, 0, self.sequence, to, 0, 0.0, payload, version)

    def send(self, *frames: Frame | bytes) -> int:
        """Send frames or raw bytes; the sequence of the last one made."""
        for frame in frames:
            self.link.send(frame if isinstance(frame, bytes) else encode_frame(frame))
        return self.sequence

    def reply(
        self, sequence: int, within_s: float | None = None, *, feeds: bool = True
    ) -> _Reply | None:
        """The answer to a sequence, which may have come while another was waited for; None where
        none comes. Without `within_s` its notices and parts prolong the wait, to `MOST_S` at most.
        A known board's watchdog is fed meanwhile, unless told otherwise.
        """
        began_s = heard_s = fed_s = time.monotonic()
        ends_s = began_s + (self.silence_s if within_s is None else within_s)
        feeds = feeds and self.envelope is not None
        while sequence not in self.replies and (now := time.monotonic()) < ends_s:
            if feeds and now - fed_s > FEED_S:
                fed_s = now
                self.send(self.frame(Kind.KEEP_ALIVE))
            data = self.link.receive(self.reader.wanted, min(0.02, ends_s - now))
            if data:
                heard_s = time.monotonic()
                frames = self.reader.feed(data)
            else:
                frames = self.reader.give_up() if now - heard_s > GAP_S else []
            for frame in frames:
                self._take(frame)
                if within_s is None and frame.sequence == sequence:
                    ends_s = min(time.monotonic() + self.silence_s, began_s + MOST_S)
        return self.replies.pop(sequence, None)

    def _take(self, frame: Frame) -> None:
        if not frame.flags & REPLY:
            return
        heard = self.heard.setdefault(frame.sequence, [])
        heard.append((time.monotonic(), frame.clock_s))
        if frame.flags & WORKING:
            return
        parts = self.parts.setdefault(frame.sequence, [])
        if frame.part != len(parts):
            raise _BrokenError(f"part {frame.part} of a reply came after {len(parts)} parts")
        parts.append(frame.payload)
        if not frame.flags & MORE:
            payload = b"".join(self.parts.pop(frame.sequence))
            self.replies[frame.sequence] = _Reply(frame, payload)

    def ask(self, kind: int, payload: bytes = b"", within_s: float | None = None) -> bytes:
        """A request and its reply. Raises `_RefusedError`, and `_BrokenError` for silence."""
        reply = self.reply(self.post(kind, payload), within_s)
        if reply is None:
            raise _BrokenError(f"{_name(kind)} was not answered")
        if error := reply.error:
            raise error
        if reply.frame.kind != kind:
            raise _BrokenError(f"type {reply.frame.kind:#04x} came in answer to {_name(kind)}")
        return reply.payload

    def post(self, kind: int, payload: bytes = b"") -> int:
        """Send a request in as many frames as it needs; its sequence."""
        self.sequence += 1
        size = self.known.frame_bytes if self.envelope else 1024
        return self.send(*encode_request(kind, payload, self.sequence, self.boot, size))

    def status(self) -> BoardStatus:
        """What STATUS says."""
        return decode_status(self.ask(Kind.STATUS))

    def refused(self, code: Code, kind: int, payload: bytes = b"") -> None:
        """Raise `_BrokenError` where this is not refused with this very code."""
        try:
            self.ask(kind, payload)
        except _RefusedError as error:
            _need(error.code == code, f"{error} came instead of ERROR {int(code)}")
        else:
            raise _BrokenError(f"{_name(kind)} was answered as if it were right")

    def own_limits(self) -> Limits:
        """The limits in force, which can be set again."""
        return _limits(self.ask(Kind.LIMITS))

    @property
    def drives_body(self) -> bool:
        """Whether it says that it drives the bodies of the selectors."""
        return "body_v" in self.known.capabilities.step_extras

    def armed(self) -> None:
        """Set the limits in force again, and arm."""
        self.ask(Kind.LIMITS, encode_limits(self.own_limits()))
        status = decode_status(self.ask(Kind.ARM))
        _need(status.armed and not status.outputs_on, f"after ARM it says {status}")

    def next_number(self) -> int:
        """An operation number above the last."""
        return self.status().last + 1

    def wait(self, seconds: float, number: int | None = None) -> tuple[int, int]:
        """Post a WAIT; its sequence and number."""
        number = self.next_number() if number is None else number
        kind, payload = encode_operation(Wait(seconds), number, self.known.geometry)
        return self.post(kind, payload), number

    def long_wait(self) -> tuple[int, int]:
        """Post a WAIT in which there is time to do something; raises `_LeftOutError` where the
        board's clock does not wait.
        """
        pace = self.known.pace
        if pace <= 0:
            raise _LeftOutError("its clock does not wait (pace 0): nothing can be sent meanwhile")
        return self.wait(min(LONG_S / pace, self.own_limits().wait_s))

    def cells(self) -> Cells:
        """The cells that may be driven. Raises `_NotAskedError` where there are none."""
        if not self.drive.cells:
            raise _NotAskedError("give cells to read (--read)")
        return Cells.from_index(self.drive.cells, self.known.geometry)

    def check_drive(self) -> None:
        """Raise `ConfigError` for cells that the chip has not, or that do not fit an operation."""
        geometry, most = self.known.geometry, self.known.capabilities.max_cells
        size = geometry.size
        for cell in self.drive.cells:
            if cell >= size:
                raise ConfigError(f"read: cell {cell} is not on this chip: 0 to {size - 1}")
        if len(self.drive.cells) > most:
            raise ConfigError(
                f"read: {len(self.drive.cells)} cells, and the board takes {most} in an operation"
            )

    def allowed(self, operation: Apply | CodedRead) -> None:
        """Raise `_NotAskedError` where the limits in force forbid what is to be driven: the board
        would rightly refuse it, or wrongly carry it out.
        """
        limits, can = self.own_limits(), self.known.capabilities
        if self.drives_body:
            body_v, over_v = struct.unpack("<2d", self.ask(Kind.BODY_LIMITS))
            limits = limits.model_copy(update={"body_v": body_v, "body_over_v": over_v})
        try:
            check(operation, self.known.geometry, limits, bounds_current=can.compliance)
        except LimitError as error:
            raise _NotAskedError(f"the board's limits in force forbid it: {error}") from None

    def read_step(self) -> Step:
        """The step that reads, as the person asked for."""
        return Step(self.drive.read_v, 0.0, self.drive.gate_v, self.drive.width_s, "current")

    def applied(self, operation: Apply, number: int) -> tuple[ApplyResult, bytes]:
        """An APPLY, its result and its bytes. Raises `_NotAskedError` beyond the limits in
        force.
        """
        self.allowed(operation)
        kind, payload = encode_operation(operation, number, self.known.geometry)
        reply = self.ask(kind, payload)
        result = decode_result(reply, operation, number)
        assert isinstance(result, ApplyResult)
        return result, reply


class _NotAskedError(Exception):
    """It would drive lines, which nobody asked for."""


def _name(kind: int) -> str:
    known = {one.value: one.name.replace("_", " ") for one in Kind}
    return known.get(kind, f"type {kind:#04x}")


def _need(fine: bool, told: str) -> None:
    if not fine:
        raise _BrokenError(told)


def _need_error(
    reply: _Reply | None, code: Code, what: str = "", instead: str = "no error"
) -> None:
    """The reply must be an error of this code; `what` was asked, `instead` is what no error is."""
    error = None if reply is None else reply.error
    told = f"{what}: {error or instead}" if what else f"{error or instead} came"
    _need(error is not None and error.code == code, f"{told} instead of ERROR {int(code)}")


def _limits(payload: bytes) -> Limits:
    try:
        *values, pulses = struct.unpack("<14dQ", payload)
    except struct.error:
        raise _BrokenError(f"LIMITS are {len(payload)} bytes instead of 120") from None
    named = dict(zip(LIMIT_FIELDS, values[:-2], strict=True))
    return Limits.model_construct(
        **named, conductance_s=(values[-2], values[-1]), pulses_per_cell=pulses
    )


def _identifies(board: _Board) -> None:
    found = board.reply(board.send(board.frame(Kind.IDENTIFY, boot=0)))
    if found is None:
        said = board.reader.garbage
        raise _BrokenError(
            "nothing answers IDENTIFY as a test-chip board; "
            + (f"it says {said[:40]!r}: is --baud right?" if said else "it is silent")
        )
    if error := found.error:
        raise error
    frame = found.frame
    _need(frame.boot != 0, "its boot id is 0")
    _need(math.isfinite(frame.clock_s), f"its clock says {frame.clock_s}")
    board.boot = frame.boot
    board.envelope = decode_identify(found.payload, frame.boot, board.link.resource)
    lowest, highest = board.known.versions
    _need(lowest <= VERSION <= highest, f"it speaks versions {lowest} to {highest}, not {VERSION}")


def _answers_alike(board: _Board) -> None:
    one, other = (board.reply(board.send(board.frame(Kind.IDENTIFY))) for _ in range(2))
    if one is None or other is None:
        raise _BrokenError("IDENTIFY was not answered twice")
    _need(one.payload == other.payload, "two answers to IDENTIFY differ")
    _need(one.frame.boot == other.frame.boot, "its boot id changes")
    _need(other.frame.clock_s >= one.frame.clock_s, "its clock runs backwards")


def _boot_ids(board: _Board) -> None:
    foreign = board.boot ^ 0x55555555 or 1
    sent = board.send(board.frame(Kind.IDENTIFY, boot=foreign))
    _need(board.reply(sent) is not None, "IDENTIFY for another boot was not answered")
    reply = board.reply(board.send(board.frame(Kind.STATUS, boot=foreign)))
    _need_error(reply, Code.STALE_BOOT, "STATUS for another boot", instead="taken")
    _need(
        board.reply(board.send(board.frame(Kind.STATUS, boot=0))) is not None,
        "STATUS for any boot (0) was not answered",
    )


def _behind_rubbish(board: _Board) -> None:
    rubbish = bytes(range(256)) + SYNC[:3] + SYNC + b"no header" * 4 + SYNC[:2]
    sent = board.send(rubbish, board.frame(Kind.STATUS))
    _need(board.reply(sent) is not None, "a frame behind rubbish was not found")


def _inside_a_damaged_frame(board: _Board) -> None:
    inner = board.frame(Kind.STATUS)
    outer = encode_frame(board.frame(Kind.STATUS, b"12345678" + encode_frame(inner)))
    board.send(outer[:-1] + bytes([outer[-1] ^ 1]))
    _need(
        board.reply(inner.sequence) is not None,
        "a whole frame inside one with a wrong CRC was not found",
    )


def _damaged_payload(board: _Board) -> None:
    whole = encode_frame(board.frame(Kind.STATUS, b"spoilt"))
    spoilt = whole[:-6] + bytes([whole[-6] ^ 0x10]) + whole[-5:]
    reply = board.reply(board.send(spoilt))
    _need_error(reply, Code.CRC, instead="nothing")


def _damaged_header(board: _Board) -> None:
    whole = bytearray(encode_frame(board.frame(Kind.STATUS)))
    whole[8] ^= 1
    _need(
        board.reply(board.send(bytes(whole)), 0.3) is None,
        "a frame whose header is damaged was answered",
    )
    board.status()


def _half_a_frame(board: _Board) -> None:
    whole = encode_frame(board.frame(Kind.STATUS, bytes(200)))
    board.send(whole[:100])
    time.sleep(GAP_S + LATE_S)
    sent = board.send(board.frame(Kind.STATUS))
    found = board.reply(sent, feeds=False)  # further bytes would end the silence
    _need(found is not None, "200 ms after half a frame a whole one was not taken")


def _other_version(board: _Board) -> None:
    reply = board.reply(board.send(board.frame(Kind.STATUS, version=VERSION + 1)))
    _need_error(reply, Code.VERSION, instead="nothing")
    assert reply is not None
    _need(reply.frame.version == VERSION, "its error does not come under its own version")


def _unknown_type(board: _Board) -> None:
    board.refused(Code.UNKNOWN_TYPE, UNKNOWN_TYPE)


def _parts(board: _Board) -> None:
    payload = encode_limits(board.own_limits())
    board.sequence += 1
    message = board.sequence
    pieces = [
        Frame(Kind.LIMITS, MORE * (part < 2), message, board.boot, part, 0.0, payload[at : at + 40])
        for part, at in enumerate((0, 40, 80))
    ]
    between = board.frame(Kind.STATUS)
    board.send(pieces[0], between)
    _need(
        board.reply(between.sequence) is not None,
        "STATUS between the parts of another message was not answered",
    )
    board.send(*pieces[1:])
    reply = board.reply(message)
    if reply is None:
        raise _BrokenError("a message of three parts was not answered")
    if error := reply.error:
        raise error
    _need(reply.payload == payload, "LIMITS in three parts were not joined as they were sent")


def _missing_part(board: _Board) -> None:
    payload = encode_limits(board.own_limits())
    board.sequence += 1
    first, last = (
        Frame(Kind.LIMITS, flags, board.sequence, board.boot, part, 0.0, payload[at:end])
        for flags, part, at, end in ((MORE, 0, 0, 40), (0, 2, 80, 120))
    )
    reply = board.reply(board.send(first, last))
    _need_error(reply, Code.INCOMPLETE)


def _wrong_length(board: _Board) -> None:
    board.refused(Code.BAD_REQUEST, Kind.WATCHDOG, b"\0\0")


def _keep_alive(board: _Board) -> None:
    sent = board.send(board.frame(Kind.KEEP_ALIVE))
    _need(board.reply(sent, 0.3) is None, "KEEP ALIVE was answered")


def _safe_off(board: _Board) -> None:
    status = decode_status(board.ask(Kind.SAFE_OFF))
    _need(not status.outputs_on, "after SAFE OFF it says that outputs are on")
    _need(not status.armed, "after SAFE OFF it is armed")


def _limits_kept(board: _Board) -> None:
    own = board.own_limits()
    tighter = encode_limits(own.model_copy(update={"bl_v": own.bl_v / 2, "wait_s": own.wait_s}))
    try:
        for asked in (tighter, encode_limits(own)):
            _need(board.ask(Kind.LIMITS, asked) == asked, "LIMITS are not repeated bit for bit")
            _need(board.ask(Kind.LIMITS) == asked, "LIMITS read back differ from those set")
    finally:
        with contextlib.suppress(_RefusedError):
            board.ask(Kind.LIMITS, encode_limits(own))


def _limits_refused(board: _Board) -> None:
    own = board.own_limits()
    for value in (math.nan, 1e6, math.inf):
        wrong = encode_limits(own.model_copy(update={"bl_v": value}))
        try:
            board.ask(Kind.LIMITS, wrong)
        except _RefusedError as error:
            _need(
                error.code in (Code.LIMIT, Code.BAD_REQUEST),
                f"bl_v = {value}: {error} instead of ERROR {int(Code.LIMIT)}",
            )
        else:
            board.ask(Kind.LIMITS, encode_limits(own))
            raise _BrokenError(f"it took bl_v = {value} V")
    _need(board.ask(Kind.LIMITS) == encode_limits(own), "a refused setting changed the limits")


def _limits_disarm(board: _Board) -> None:
    board.armed()
    board.ask(Kind.LIMITS, encode_limits(board.own_limits()))
    _need(not board.status().armed, "it stays armed when limits are set")


def _body_limits(board: _Board) -> None:
    if not board.drives_body:
        board.refused(Code.UNKNOWN_TYPE, Kind.BODY_LIMITS)
        raise _LeftOutError("it drives no bodies, and says so")
    own = board.ask(Kind.BODY_LIMITS)
    _need(len(own) == 16, f"BODY LIMITS are {len(own)} bytes instead of 16")
    for value in (math.nan, -1.0, math.inf):
        wrong = struct.pack("<2d", value, 0.0)
        board.refused(Code.LIMIT, Kind.BODY_LIMITS, wrong)
    none = bytes(16)
    try:
        board.armed()
        _need(board.ask(Kind.BODY_LIMITS) == own, "LIMITS changed the limits of the body")
        _need(board.ask(Kind.BODY_LIMITS, none) == none, "BODY LIMITS are not repeated bit for bit")
        _need(board.ask(Kind.BODY_LIMITS) == none, "BODY LIMITS read back differ from those set")
        _need(not board.status().armed, "it stays armed when limits of the body are set")
    finally:
        board.ask(Kind.BODY_LIMITS, own)


def _watchdog_set(board: _Board) -> None:
    before = round(board.status().watchdog_s * 1e3)
    try:
        _need(
            board.ask(Kind.WATCHDOG, struct.pack("<I", 1234)) == struct.pack("<I", 1234),
            "WATCHDOG is not repeated",
        )
        _need(abs(board.status().watchdog_s - 1.234) < 1e-9, "STATUS tells another watchdog")
        for ms in (99, 60001):
            with contextlib.suppress(_RefusedError):
                board.ask(Kind.WATCHDOG, struct.pack("<I", ms))
                raise _BrokenError(f"it took a watchdog of {ms} ms")
    finally:
        board.ask(Kind.WATCHDOG, struct.pack("<I", before))


def _self_test(board: _Board) -> None:
    findings = decode_self_test(board.ask(Kind.SELF_TEST, b"", 10.0))
    failed = [f"{one.name} {one.value:g} {one.unit}" for one in findings if not one.passed]
    _need(not failed, f"its self-test fails: {', '.join(failed)}")
    _need(not board.status().outputs_on, "outputs are on after a self-test")


def _not_armed(board: _Board) -> None:
    board.ask(Kind.SAFE_OFF)
    last = board.status().last
    kind, payload = encode_operation(Wait(0.0), last + 1, board.known.geometry)
    board.refused(Code.NOT_ARMED, kind, payload)
    _need(board.status().last == last, "an operation that was refused used up its number")


def _once(board: _Board) -> None:
    board.armed()
    sent, number = board.wait(0.001)
    first = board.reply(sent, 2.0)
    if first is None or first.error:
        raise _BrokenError(f"a WAIT of 1 ms: {'silence' if first is None else first.error}")
    kind, payload = encode_operation(Wait(0.001), number, board.known.geometry)
    _need(board.ask(kind, payload) == first.payload, "the same message again gets another reply")
    _, other = encode_operation(Wait(0.002), number, board.known.geometry)
    board.refused(Code.NUMBER_REUSED, kind, other)
    for past in {0, number - 1}:
        board.refused(Code.NUMBER_PAST, kind, struct.pack("<I", past) + payload[4:])
    _need(board.status().last == number, f"its last number is not {number}")


def _notices(board: _Board) -> None:
    board.armed()
    began = board.send(board.frame(Kind.STATUS))
    board.reply(began)
    sent, number = board.long_wait()
    reply = board.reply(sent, 2 * LONG_S + 1)
    if reply is None or reply.error:
        raise _BrokenError(f"WAIT {number}: {'silence' if reply is None else reply.error}")
    # What this computer or the line is late by is not the board's, and a simulated clock may stand
    # still in a WAIT: the shorter of the two tells.
    gaps_s = np.diff([*board.heard[began][-1:], *board.heard[sent]], axis=0).max(axis=0)
    longest_s = float((gaps_s * (1.0, board.known.pace)).min())
    _need(
        longest_s <= NOTICE_S + LATE_S,
        f"it was silent for {longest_s:.2f} s while it worked, not 0.25",
    )


def _meanwhile(board: _Board) -> None:
    board.armed()
    sent, number = board.long_wait()
    status = board.status()
    _need(status.busy and status.under_way == number, f"during operation {number} it says {status}")
    _need(not status.outputs_on, "outputs are on during a WAIT")
    board.refused(Code.BUSY, Kind.ARM)
    kind, payload = encode_operation(Wait(0.0), number + 1, board.known.geometry)
    board.refused(Code.BUSY, kind, payload)
    _need(board.reply(sent, 2 * LONG_S + 1) is not None, f"WAIT {number} was not answered")


def _aborted(board: _Board) -> None:
    board.armed()
    sent, number = board.long_wait()
    began_s = time.monotonic()
    abort = board.send(board.frame(Kind.ABORT))
    reply = board.reply(sent, LONG_S)
    took_s = time.monotonic() - began_s
    _need_error(reply, Code.ABORTED)
    confirmed = board.reply(abort)
    _need(confirmed is not None, "ABORT was not answered after the operation")
    assert confirmed is not None
    stopped, on = decode_abort(confirmed.payload)
    _need((stopped, on) == (number, False), f"ABORT says operation {stopped}, outputs {on}")
    _need(board.status().armed, "it is not armed any more after ABORT")
    most_s = board.known.capabilities.abort_s + LATE_S
    _need(took_s <= most_s, f"ABORT took {took_s:.2f} s, not {most_s:.2f}")


def _stopped_by_safe_off(board: _Board) -> None:
    board.armed()
    sent, _ = board.long_wait()
    off = board.send(board.frame(Kind.SAFE_OFF))
    reply = board.reply(sent, LONG_S)
    _need_error(reply, Code.ABORTED)
    confirmed = board.reply(off)
    _need(
        confirmed is not None and not decode_status(confirmed.payload).armed,
        "SAFE OFF during an operation did not disarm",
    )


def _watchdog(board: _Board) -> None:
    board.armed()
    before = board.status()
    board.ask(Kind.WATCHDOG, struct.pack("<I", 400))
    try:
        sent, _ = board.long_wait()
        reply = board.reply(sent, 2 * LONG_S + 1, feeds=False)
        _need_error(reply, Code.WATCHDOG, "400 ms of a silent host")
        after = board.status()
        _need(after.tripped and not after.armed, f"after the watchdog it says {after}")
        _need(after.trips == before.trips + 1, "it did not count the watchdog's trip")
    finally:
        board.ask(Kind.WATCHDOG, struct.pack("<I", round(before.watchdog_s * 1e3)))


def _records(board: _Board) -> None:
    if not board.known.capabilities.counters:
        raise _LeftOutError("no nonvolatile records: what a reboot cut is unknown (section 8)")
    cell = Cells.of([(0, 0, 0)])
    last = board.status().last
    reply = board.ask(Kind.EXECUTED, encode_executed(last, cell, board.known.geometry))
    decode_executed(reply, last, 1)


def _read_beyond_limits(board: _Board, cells: Cells, step: Step) -> None:
    """It refuses a read for its limits, and the number of it is free."""
    number = board.next_number()
    kind, payload = encode_operation(read(cells, step), number, board.known.geometry)
    board.refused(Code.LIMIT, kind, payload)
    _need(board.status().last == number - 1, "a refused operation used up its number")


def _beyond_limits(board: _Board) -> None:
    cells = board.cells()
    own, step = board.own_limits(), board.read_step()
    board.allowed(read(cells, step))
    tight = own.model_copy(update={"bl_v": abs(board.drive.read_v) / 2})
    try:
        board.ask(Kind.LIMITS, encode_limits(tight))
        board.ask(Kind.ARM)
        _read_beyond_limits(board, cells, step)
    finally:
        board.ask(Kind.SAFE_OFF)
        board.ask(Kind.LIMITS, encode_limits(own))


def _body_beyond_limits(board: _Board) -> None:
    cells = board.cells()
    if not board.drives_body:
        raise _LeftOutError("it drives no bodies")
    board.allowed(read(cells, board.read_step()))
    own, reach = board.ask(Kind.BODY_LIMITS), board.known.capabilities.wl_v
    step = replace(board.read_step(), body_v=BODY_V if reach.high >= BODY_V else -BODY_V)
    try:
        board.ask(Kind.BODY_LIMITS, bytes(16))
        board.armed()
        _read_beyond_limits(board, cells, step)
    finally:
        board.ask(Kind.SAFE_OFF)
        board.ask(Kind.BODY_LIMITS, own)


def _off_the_chip(board: _Board) -> None:
    board.cells()
    board.armed()
    number = board.next_number()
    kind, payload = encode_operation(
        read(Cells.of([(0, 0, 0)]), board.read_step()), number, board.known.geometry
    )
    geometry = board.known.geometry
    size = geometry.size
    at = len(payload) - 4
    off = payload[:at] + struct.pack("<I", size)
    try:
        board.ask(kind, off)
    except _RefusedError as error:
        _need(
            error.code in (Code.RANGE, Code.BAD_REQUEST),
            f"a cell off the chip: {error} instead of ERROR {int(Code.RANGE)}",
        )
    else:
        raise _BrokenError(f"it took cell {size} of {size}")


def _reads(board: _Board) -> str:
    cells = board.cells()
    board.armed()
    number = board.next_number()
    operation = read(cells, board.read_step())
    result, reply = board.applied(operation, number)
    _need(bool((result.pulses == 0).all()), "a read counts as a pulse: see read_v of its limits")
    _need(bool((result.reads == 1).all()), "a read of every cell counts another number of readings")
    _need(not board.status().outputs_on, "outputs are on after an operation")
    kind, payload = encode_operation(operation, number, board.known.geometry)
    _need(board.ask(kind, payload) == reply, "the same message again gets another reply")
    return _siemens(result)


def _reads_beside(board: _Board) -> str:
    cells, has = board.cells(), board.known.capabilities.step_extras
    if not has:
        raise _LeftOutError("a step says nothing beside its three lines here")
    # After boot bodies may stand at 0 V only, and that blocks where no line goes beyond it: below
    # with NMOS selectors, above with PMOS ones.
    step = board.read_step()
    step = replace(
        step,
        bl_v=abs(board.drive.read_v) * board.known.geometry.polarity,
        body_v=0.0 if "body_v" in has else None,
        unselected_wl_v=0.0 if "unselected_wl_v" in has else None,
        also_gate="also_gate" in has,
    )
    board.armed()
    result, _ = board.applied(read(cells, step), board.next_number())
    _need(bool((result.pulses == 0).all()), "a read at 0 V beside its lines counts as a pulse")
    if result.gate_a is None:
        return _siemens(result)
    _need(not np.isnan(result.gate_a).any(), "a gate current beside a reading is no number")
    return f"{_siemens(result)}, gate {float(result.gate_a.flat[0]):.3g} A"


def _many_reads(board: _Board) -> str:
    board.cells()
    board.armed()
    geometry = board.known.geometry
    n = min(board.known.capabilities.max_cells, geometry.size)
    reply_bytes, most = REPLY_BYTES + n * CELL_BYTES, board.known.max_message
    _need(
        reply_bytes <= most,
        f"it takes {n} cells in an operation, whose reply of {reply_bytes} bytes is beyond its"
        f" max_message of {most}",
    )
    cells = Cells.all(geometry)[:n]
    result, reply = board.applied(read(cells, board.read_step()), board.next_number())
    _need(bool((result.reads == 1).all()), "not every cell of a large read was read once")
    return f"{n} cells in one operation, {len(reply)} bytes of reply"


def _coded(board: _Board) -> str:
    cells = board.cells()
    if not board.known.capabilities.coded_read:
        raise _LeftOutError("no READ BLOCKS: maps are read cell by cell")
    board.armed()
    tile, row, column = (int(axis[0]) for axis in (cells.tile, cells.row, cells.column))
    one = Cells.of([(tile, row, column)])
    plain, _ = board.applied(read(one, board.read_step()), board.next_number())
    operation = CodedRead(
        (Block(tile, row, row + 1, column, column + 1),),
        read_v=abs(board.drive.read_v),
        wl_v=board.drive.gate_v,
    )
    board.allowed(operation)
    number = board.next_number()
    kind, payload = encode_operation(operation, number, board.known.geometry)
    result = decode_result(board.ask(kind, payload, 10.0), operation, number)
    assert isinstance(result, CodedReadResult)
    return (
        f"{float(np.ravel(result.conductance_s)[0]) * 1e6:.3g} uS, and {_siemens(plain)} by APPLY"
    )


def _pulse(board: _Board) -> str:
    cells = board.cells()
    if not board.drive.pulse_v:
        raise _NotAskedError("give the volts of one pulse on the first cell (--pulse-v)")
    board.armed()
    number = board.next_number()
    first = cells[:1]
    volts = board.drive.pulse_v
    step = Step(max(volts, 0.0), max(-volts, 0.0), board.drive.gate_v, board.drive.width_s)
    # One step an operation, as the smallest board takes it.
    reads = read(first, board.read_step())
    before, _ = board.applied(reads, number)
    number += 1
    operation = Apply(first, (step,))
    result, reply = board.applied(operation, number)
    _need(int(result.pulses[0]) == 1, f"one pulse counts as {int(result.pulses[0])}")
    kind, payload = encode_operation(operation, number, board.known.geometry)
    _need(board.ask(kind, payload) == reply, "the same message again gets another reply")
    if board.known.capabilities.counters:
        records = board.ask(Kind.EXECUTED, encode_executed(number, first, board.known.geometry))
        pulses, last = decode_executed(records, number, 1)
        _need(
            (int(pulses[0]), int(last[0])) == (1, number),
            f"EXECUTED says {int(pulses[0])} pulses, last operation {int(last[0])}",
        )
    after, _ = board.applied(reads, number + 1)
    return f"{_siemens(before)} before, {_siemens(after)} after"


def _siemens(result: ApplyResult) -> str:
    return ", ".join(f"{value * 1e6:.3g} uS" for value in result.conductance_s.ravel()[:4])


def _abilities(board: _Board) -> str:
    can = board.known.capabilities
    named = {
        "PROGRAM": can.program,
        "MULTIPLY": can.multiply,
        "READ BLOCKS": can.coded_read,
        "WRITE WORDS": can.words > 0,
        "gate current": can.gate_current,
        "compliance": can.compliance,
        "body": "body_v" in can.step_extras,
        "unselected word lines": "unselected_wl_v" in can.step_extras,
        "both currents at once": "also_gate" in can.step_extras,
        "volts a cell": can.per_cell_bias,
        "nonvolatile records": can.counters,
    }
    missing = [name for name, has in named.items() if not has]
    if missing:
        raise _LeftOutError(f"the host does without {', '.join(missing)}")
    return "all"


@dataclass(frozen=True)
class Rule:
    """One rule of the protocol, where it stands, and what looks at it."""

    text: str
    section: str
    look: Callable[[_Board], str | None]
    required: bool = True


RULES = (
    Rule("IDENTIFY is answered", "5", _identifies),
    Rule("the same question gets the same answer, under a clock that rises", "5", _answers_alike),
    Rule("a foreign boot id is refused, but for IDENTIFY", "3", _boot_ids),
    Rule("a frame behind rubbish is found", "1", _behind_rubbish),
    Rule("a frame inside a damaged one is found", "1", _inside_a_damaged_frame),
    Rule("a damaged payload is answered by CRC", "1", _damaged_payload),
    Rule("a damaged header is passed over", "1", _damaged_header),
    Rule("half a frame is dropped after 200 ms", "1", _half_a_frame),
    Rule("another version is refused by VERSION", "1", _other_version),
    Rule("an unknown type is refused", "7", _unknown_type),
    Rule("parts are joined, STATUS between them answered", "2", _parts),
    Rule("a missing part is INCOMPLETE", "2", _missing_part),
    Rule("a request of a wrong length is refused", "7", _wrong_length),
    Rule("KEEP ALIVE is not answered", "5", _keep_alive),
    Rule("SAFE OFF disarms, outputs off", "4", _safe_off),
    Rule("limits are kept bit for bit", "5", _limits_kept),
    Rule("limits that are NaN or beyond the board's own are refused", "5", _limits_refused),
    Rule("setting limits disarms", "5", _limits_disarm),
    Rule("limits of the body stand apart, and disarm", "5", _body_limits, required=False),
    Rule("the watchdog's time is set, from 0.1 to 60 s", "5", _watchdog_set),
    Rule("the self-test passes", "5", _self_test),
    Rule("an operation is refused unless the board is armed", "4", _not_armed),
    Rule("an operation number is carried out once", "3", _once),
    Rule("an operation under way is told every 250 ms", "2", _notices),
    Rule("during an operation STATUS is answered, another operation is BUSY", "5", _meanwhile),
    Rule("ABORT ends an operation, the board stays armed", "4", _aborted),
    Rule("SAFE OFF ends an operation and disarms", "4", _stopped_by_safe_off),
    Rule("the watchdog ends an operation and disarms", "4", _watchdog),
    Rule("the records of a cell are told", "3", _records, required=False),
    Rule("all abilities are there", "8", _abilities, required=False),
    Rule("volts beyond the limits are refused before anything moves", "4", _beyond_limits),
    Rule("a body beyond its limits is refused", "4", _body_beyond_limits, required=False),
    Rule("a cell off the chip is refused", "6", _off_the_chip),
    Rule("cells are read", "6", _reads),
    Rule("what a step may say beside its lines is done", "6", _reads_beside, required=False),
    Rule("all cells are read in one operation", "6", _many_reads),
    Rule("READ BLOCKS agrees with APPLY", "6", _coded, required=False),
    Rule("one pulse is given once, and kept in the records", "3", _pulse),
)


def examine(port: Port, drive: Drive, rules: Sequence[Rule] = RULES) -> Iterator[Outcome]:
    """Take the board at a port through the protocol; see `rram_hil.hardware.examination`. The first
    of the rules must be that it identifies itself.
    """
    drive = _checked(drive)
    link = make_link(port.address, port.traffic, baud=port.baud)
    link.open()
    board = _Board(link, port.silence_s, drive)
    try:
        for rule in rules:
            outcome = _outcome(rule, board)
            if rule is rules[0]:
                board.check_drive()
            yield outcome
            if not link.is_open:
                return
    finally:
        problem = _not_off(board)
        link.close()
        if problem:
            raise LinkError(f"{problem}: OUTPUTS MAY BE ON", where=port.address, outputs_off=False)


def _checked(drive: Drive) -> Drive:
    """What is to be driven, each cell once. Raises `ConfigError` for what is no number, and for a
    width or reading volts of nothing.
    """
    for name in ("read_v", "gate_v", "pulse_v", "width_s"):
        if not math.isfinite(value := getattr(drive, name)):
            raise ConfigError(f"{name}: {value} is no number")
    if drive.width_s <= 0:
        raise ConfigError(f"width_s: {drive.width_s:g} is wrong: it must be above 0")
    if not drive.read_v:
        raise ConfigError("read_v: 0 reads nothing")
    return replace(drive, cells=tuple(dict.fromkeys(drive.cells)))


def _not_off(board: _Board) -> str:
    """Switch the outputs of a board off; what is wrong where it does not say that they are."""
    if board.envelope is None:
        return ""
    try:
        status = decode_status(board.ask(Kind.SAFE_OFF, b"", LONG_S))
    except (BenchError, _BrokenError, _RefusedError, MalformedError) as error:
        return f"SAFE OFF at the end: {error}"
    return "after SAFE OFF at the end it says that outputs are on" if status.outputs_on else ""


def _outcome(rule: Rule, board: _Board) -> Outcome:
    def found(verdict: Verdict, told: object = "") -> Outcome:
        return Outcome(rule.text, rule.section, rule.required, verdict, str(told or ""))

    try:
        return found(Verdict.KEPT, rule.look(board))
    except _LeftOutError as left_out:
        return found(Verdict.LEFT_OUT, left_out)
    except _NotAskedError as not_asked:
        return found(Verdict.NOT_ASKED, not_asked)
    except (_BrokenError, _RefusedError, MalformedError, BenchError) as broken:
        if board.envelope is None:
            if isinstance(broken, BenchError):
                raise
            raise LinkError(str(broken), where=board.link.resource) from None
        # What may still be under way is stopped before the next rule.
        with contextlib.suppress(_BrokenError, _RefusedError, MalformedError, LinkError):
            board.ask(Kind.SAFE_OFF, b"", LONG_S)
        gone = "" if board.link.is_open else "; the rules behind this one were not looked at"
        return found(Verdict.BROKEN, f"{broken}{gone}")
