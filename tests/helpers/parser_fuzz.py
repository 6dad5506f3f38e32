"""A mutation fuzz of everything that parses what comes from outside: files, frames, lines, control
requests.

    python tests/helpers/parser_fuzz.py [--seconds 60] [--seed 1] [--only NAME]

Good inputs of each kind are made wrong (mutations.py). A parser may refuse with the errors that its
docstring names, in one short line without control characters, within seconds; anything else ends
with exit 1, the input and how to repeat it. `.ci/run` gives it a minute.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import gzip
import io
import json
import random
import resource
import signal
import socket
import struct
import sys
import tempfile
import time
import traceback
import warnings
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import storage_scenarios
from mutations import mutated
from rich.console import Console

from rram_hil.array import Cells, Geometry, pulse, read
from rram_hil.bench.bench_file import load_bench_file
from rram_hil.bench.recipe import load_recipe
from rram_hil.bench.standalone import GROUP
from rram_hil.calibration.device_fit.measured_files import read_measured
from rram_hil.corrections.calibration_file import load as load_calibration
from rram_hil.drivers.dialects import board_codec as host
from rram_hil.drivers.simulated.array.terminals import Loads, Place
from rram_hil.drivers.simulated.board import codec as far
from rram_hil.drivers.simulated.server.control import ControlServer
from rram_hil.drivers.simulated.server.instrument import SimulatedInstrument
from rram_hil.drivers.simulated.test_chip_board import Board, SocketLink
from rram_hil.engine.replay import Replay
from rram_hil.errors import BenchError, printable
from rram_hil.networks.network import Network
from rram_hil.plugins import load as load_plugin
from rram_hil.plugins import names
from rram_hil.simulation.chip import SimulatedChip
from rram_hil.simulation.config import Simulation
from rram_hil.simulation.model import DeviceModel
from rram_hil.storage.array_files import read_npy, read_npz
from rram_hil.storage.journal import read_journal
from rram_hil.storage.ledger import Ledger
from rram_hil.storage.run_writer import write_run_file
from rram_hil.terminal.console import Output
from rram_hil.terminal.show import show_run
from rram_hil.wire.recording import Playback

ROOT = Path(__file__).resolve().parents[2]
KEPT = ROOT / "tests" / "compatibility" / "files"
GEOMETRY = Geometry(1, 4, 4)
LONGEST_LINE = 2000
SLOWEST_S = 10
MEMORY = 8 << 30


@dataclass(frozen=True)
class Target:
    """A parser: good inputs, what takes one input, and the errors besides `BenchError` with which
    it may refuse. `repair` puts checksums right after a mutation; `share` is how much of the time
    it gets.
    """

    name: str
    good: list[bytes]
    take: Callable[[bytes], object]
    refusals: tuple[type[Exception], ...] = ()
    repair: Callable[[random.Random, bytes], bytes] = lambda _, data: data
    share: float = 1.0


def targets(folder: Path) -> Iterator[Target]:
    """Everything that parses."""
    yield from _toml_files(folder)
    yield from _run_files(folder)
    yield from _arrays(folder)
    yield from _frames()
    yield from _instruments()
    yield _control()


def _file(path: Path, parse: Callable[[Path], object]) -> Callable[[bytes], object]:
    """Write the input to a file and parse that."""

    def take(data: bytes) -> object:
        path.write_bytes(data)
        return parse(path)

    return take


def _unpacked(path: Path) -> bytes:
    return gzip.decompress(path.read_bytes())


def _toml_files(folder: Path) -> Iterator[Target]:
    benches = [p.read_bytes() for p in sorted((ROOT / "examples").glob("bench*.toml"))]
    recipes = [p.read_bytes() for p in sorted((ROOT / "examples").glob("recipe*.toml"))]
    calibrations = [p.read_bytes() for p in sorted((KEPT / "calibration").glob("*.toml"))]
    models = [p.read_bytes() for p in sorted(ROOT.glob("rram_hil/simulation/presets/*.toml"))]
    yield Target("bench file", benches, _file(folder / "bench.toml", load_bench_file))
    yield Target("recipe", recipes, _file(folder / "recipe.toml", load_recipe))
    yield Target("calibration", calibrations, _file(folder / "cal.toml", load_calibration))
    yield Target(
        "device model",
        [*models, (KEPT / "model.toml").read_bytes()],
        _file(folder / "model.toml", lambda path: DeviceModel.load(str(path))),
    )


def _run_files(folder: Path) -> Iterator[Target]:
    example = folder / "example.journal"
    storage_scenarios.write_example(example)
    journals = [example.read_bytes(), _unpacked(KEPT / "cut" / "run.h5.journal.gz")]

    def journal(path: Path) -> None:
        list(read_journal(path))
        write_run_file(path, folder / "projected.h5")
        Replay(read_journal(path))

    take = _file(folder / "run.journal", journal)
    yield Target("journal", journals, take)
    yield Target(
        "journal with right checksums",
        journals,
        take,
        repair=partial(_frames_again, journals),
        share=3.0,
    )
    yield Target(
        "run file",
        [_unpacked(KEPT / "run" / "run.h5.gz")],
        _file(folder / "run.h5", lambda path: show_run(path, Output(Console(file=io.StringIO())))),
        share=3.0,
    )
    ledger = folder / "good.ledger.npy"
    Ledger(ledger, GEOMETRY, "c1", limit=10).close()

    def opened(path: Path) -> None:
        with Ledger(path, GEOMETRY, "c1", limit=10) as held:
            held.check(Cells.all(GEOMETRY), 1)

    yield Target("ledger", [ledger.read_bytes()], _file(folder / "c1.ledger.npy", opened))
    session = _unpacked(KEPT / "run" / "session.jsonl.gz")
    lines = session.splitlines(keepends=True)[:200]
    yield Target("recording", [b"".join(lines)], _file(folder / "session.jsonl", Playback))


def _frames_again(journals: list[bytes], random_: random.Random, _: bytes) -> bytes:
    """The frames of a good journal, the payload of some changed and their checksums right again."""
    source, at, frames = random_.choice(journals), 0, []
    head = struct.Struct("<4sI8sQI")
    while at < len(source):
        magic, size, journal, number, kind = head.unpack_from(source, at)
        payload = source[at + head.size : at + head.size + size]
        if random_.random() < 0.15:
            change = random_.choice((_other_type, _other_bytes))
            payload = change(random_, payload)
        if random_.random() < 0.03:
            kind = random_.randrange(16)
        begun = head.pack(magic, len(payload), journal, number, kind)
        crc = zlib.crc32(payload, zlib.crc32(begun))
        frames.append(begun + payload + struct.pack("<I", crc))
        at += head.size + size + 4
    return b"".join(frames)


def _other_bytes(random_: random.Random, payload: bytes) -> bytes:
    return mutated(random_, payload, [payload])


def _other_type(random_: random.Random, payload: bytes) -> bytes:
    """A record one value of whose header is replaced by one of another type, or of another place;
    its columns stay.
    """
    size = int.from_bytes(payload[:4], "little")
    head = json.loads(payload[4 : 4 + size])
    places: list[tuple[Any, Any]] = []
    level: list[Any] = [head]
    while level:
        one = level.pop()
        keys = list(one) if isinstance(one, dict) else range(len(one))
        places += [(one, key) for key in keys]
        level += [one[key] for key in keys if isinstance(one[key], dict | list)]
    holder, key = random_.choice(places)
    other, its = random_.choice(places)
    holder[key] = random_.choice((*ODD, copy.deepcopy(other[its])))
    text = json.dumps(head, ensure_ascii=False, default=str).encode("utf-8", "replace")
    return len(text).to_bytes(4, "little") + text + payload[4 + size :]


ODD: tuple[Any, ...] = (
    *(None, True, 0, -1, 2**70, 1.5, 1e308, "", "text", "<f8", "\x1b[2J", [], [[]], {}),
    *({"$": "Cells"}, {"$array": "none"}, {"$float": "nan"}, {"$": "map", "items": [1]}),
)


def _arrays(folder: Path) -> Iterator[Target]:
    npy, npz, stored = io.BytesIO(), io.BytesIO(), io.BytesIO()
    np.save(npy, np.linspace(0, 1, 48).reshape(3, 4, 4))
    images = {"images": np.zeros((3, 1, 4, 4), np.uint8), "labels": np.arange(3)}
    np.savez_compressed(npz, **images)
    np.savez(stored, **images)
    yield Target("npy", [npy.getvalue()], _file(folder / "a.npy", read_npy))
    yield Target(
        "npz",
        [npz.getvalue(), stored.getvalue()],
        _file(folder / "a.npz", lambda path: read_npz(path, ("images", "labels"))),
    )
    rows = b"".join(b"%d,%d,%d\n" % (k // 4, k * 97 % 1000 + 1, k * 31 % 77 + 1) for k in range(60))
    table = b"cell,r_hrs_ohm,r_lrs_ohm\n" + rows
    yield Target(
        "measured CSV", [table, gzip.compress(table)], _file(folder / "m.csv", read_measured)
    )
    network = (KEPT / "network.safetensors").read_bytes()
    yield Target("safetensors", [network], _file(folder / "n.safetensors", Network.load))


def _chip() -> SimulatedChip:
    return SimulatedChip(GEOMETRY, Simulation(), read_v=0.25, chip_id="c1")


def _frames() -> Iterator[Target]:
    cells = Cells.all(GEOMETRY)
    requests = []
    operations = (read(cells), pulse(cells, bl_v=2.0, wl_v=2.0, width_s=1e-7))
    for number, operation in enumerate(operations, 1):
        kind, payload = host.encode_operation(operation, number, GEOMETRY)
        requests.append(host.encode_frame(host.Frame(int(kind), 1, number, 7, 0, 0.0, payload)))

    def request(data: bytes) -> None:
        for item in far.Parser().push(data):
            if isinstance(item, far.Part):
                far.parse_operation(item.command, item.payload, GEOMETRY)

    def repaired(_: random.Random, data: bytes) -> bytes:
        """A frame whose payload is what was made of it, with a header that fits."""
        whole = data[36:-4] if len(data) > 40 else data
        return host.encode_frame(
            host.Frame(data[5] if len(data) > 5 else 16, 1, 1, 7, 0, 0.0, whole)
        )

    refusals = (far.RefusalError, KeyError)
    yield Target("board request", requests, request, refusals)
    yield Target("board request with right checksums", requests, request, refusals, repaired)

    chip = _chip()
    replies = []
    for operation in operations:
        result = chip.execute(operation, chip.last_number + 1)
        replies.append(far.result_reply(1, operation, result, 8))

    def reply(data: bytes) -> None:
        host.decode_result(data, read(cells), 1)

    def whole_frames(data: bytes) -> None:
        for frame in host.FrameReader().feed(data):
            host.decode_status(frame.payload)

    yield Target("board result", replies, reply, (host.MalformedError,), share=0.3)
    framed = [b"".join(far.reply_frames(16, 1, 7, 0.0, message)) for message in replies]
    yield Target("board reply frames", framed, whole_frames, (host.MalformedError,), share=0.3)
    for decode in (host.decode_identify, host.decode_error, host.decode_self_test):
        yield Target(decode.__name__, replies, _decoder(decode), (host.MalformedError,), share=0.3)


def _decoder(decode: Callable[..., object]) -> Callable[[bytes], object]:
    more = (7, "link") if decode is host.decode_identify else ()
    return lambda data: decode(data, *more)


def _instruments() -> Iterator[Target]:
    """Every simulated instrument that takes lines, with what its tests and drivers send."""
    lines = {
        "keithley-2400": b":SOUR:FUNC VOLT;:SOUR:VOLT 0.5;:OUTP ON;:READ?;:TRIG:COUN 3;:SYST:ERR?"
        b";:SOUR:MEM:SAVE 2;*SAV 1;*RCL 1;:CALC2:LIM2:UPP 1;:CALC2:LIM2:STAT ON;:ARM:COUN INF",
        "keithley-2450": b':SOUR:VOLT 0.5;:SENS:FUNC "CURR";:OUTP ON;:READ?;:TRIG:LOAD "Empty"'
        b';:TRIG:BLOC:MEAS 1;:TRIG:BLOC:BRAN:COUN 2,3,1;:INIT;:SOUR:CONF:LIST:CRE "l"'
        b';:SOUR:CONF:LIST:STOR "l";:DIG:LINE1:MODE TRIG,IN;:TRIG:BLOC:WAIT 3,DIG1',
        "keysight-b2900": b":SOUR1:VOLT 0.5;:SENS:CURR:NPLC 1;:TRIG:COUN 5;:OUTP ON;:READ? (@1)",
        "keysight-33500": b"SOUR1:FUNC PULS;SOUR1:DATA:ARB a,#216aaaabbbbccccdddd;OUTP1 ON;*TRG",
        "keysight-b1500": b"CN 1;FMT 1,1;WV 1,1,0,0,1,5,1E-3;MM 2,1;XE;ERRX?;ST 1;CN;END;DO 1",
        "keithley-2600b": b"for i = 1, 3 do smua.source.levelv = i print(smua.measure.i()) end",
        "keithley-707b": b'channel.close("1A01,1B02") print(channel.getclose("allslots"))',
        "keithley-3706a": b'channel.close("1101") print(string.format("%d", 3), slot[1].idn)',
    }
    for name in names(GROUP):
        kind = load_plugin(GROUP, name, "simulated instrument")
        if isinstance(kind, type) and issubclass(kind, SimulatedInstrument):
            whole = lines.get(name, b"*IDN?")
            good = [whole, *whole.split(b";"), b"*IDN?", b"*RST;*CLS", b"*ESE 32;*ESE?;*STB?"]
            yield Target(f"lines to {name}", good, _lines(kind))


def _lines(kind: type[SimulatedInstrument]) -> Callable[[bytes], object]:
    def take(data: bytes) -> None:
        instrument = kind(kind.MODELS[0], Place(terminals=Loads(1e4)))
        for line in data.split(b"\n"):
            instrument.message(line.decode("latin-1"))

    return take


def _control() -> Target:
    """Requests to the control socket of a board, each answered."""
    limits = load_bench_file(ROOT / "examples" / "bench-simulated.toml").limits
    board = Board(SocketLink(), _chip(), limits)
    place = ControlServer(board.control).address.rpartition(":")
    good = [
        {"do": "advance", "seconds": 1.5},
        {"do": "status"},
        {"do": "truth", "name": "pulses"},
        {"do": "inject", "kind": "drop-reply", "on": "APPLY", "seconds": 0.0, "count": 1},
        {"do": "damage", "fault": 1, "cells": [0, 3]},
        {"do": "clear"},
    ]

    def take(data: bytes) -> None:
        if b"quit" in data:
            return
        clock_s = board.chip.now_s
        line = data.replace(b"\n", b" ").strip() or b"{}"
        with socket.create_connection((place[0], int(place[2])), timeout=SLOWEST_S) as connection:
            connection.sendall(line + b"\n")
            answer = json.loads(connection.makefile("rb").readline())
        assert isinstance(answer["ok"], bool)
        assert board.chip.now_s >= clock_s, "the clock went back"

    return Target("control socket", [json.dumps(one).encode() for one in good], take)


# Judging


def judged(target: Target, data: bytes) -> str:
    """What is wrong with how a parser took an input; empty where nothing is."""
    signal.alarm(SLOWEST_S)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            target.take(data)
    except BenchError as error:
        told = str(error)
        if told != printable(told):
            return "its message holds control characters"
        if len(" ".join(told.split())) > LONGEST_LINE:
            return f"its message is {len(told)} characters long: {told[:200]}"
    except target.refusals:
        pass
    except Exception:
        return traceback.format_exc()
    finally:
        signal.alarm(0)
    return ""


def _too_slow(_number: int, _frame: FrameType | None) -> None:
    raise TimeoutError(f"not done after {SLOWEST_S} s")


def main() -> int:
    """Fuzz until the time is up; 1 where a parser did what it may not."""
    options = argparse.ArgumentParser()
    options.add_argument("--seconds", type=float, default=60.0)
    options.add_argument("--seed", type=int, default=1)
    options.add_argument("--only", default="")
    options.add_argument("--most", type=int, default=1, help="findings to print of one parser")
    given = options.parse_args()
    signal.signal(signal.SIGALRM, _too_slow)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, resource.RLIM_INFINITY))
    found = 0
    with tempfile.TemporaryDirectory() as name, contextlib.chdir(name):
        all_of = [t for t in targets(Path(name)) if given.only in t.name]
        share_s = given.seconds / sum(target.share for target in all_of)
        for target in all_of:
            found += _fuzz(target, share_s * target.share, given.seed, given.most)
    return int(found > 0)


def _fuzz(target: Target, seconds: float, seed: int, most: int) -> int:
    """Fuzz one parser for some time; how many findings were printed."""
    found = tried = 0
    for data in target.good:
        if wrong := judged(target, data):
            print(f"{target.name}: a GOOD input: {wrong}")
            return 1
    end_s = time.monotonic() + seconds
    while time.monotonic() < end_s and found < most:
        random_ = random.Random(f"{seed} {target.name} {tried}")
        data = mutated(random_, random_.choice(target.good), target.good)
        data = target.repair(random_, data)
        if wrong := judged(target, data):
            found += 1
            print(f"{target.name}: input {tried} of seed {seed}: {data[:300]!r}\n{wrong}")
        tried += 1
    print(f"{target.name}: {tried} inputs, {found} findings", flush=True)
    return found


if __name__ == "__main__":
    sys.exit(main())
