"""Does a driver of a whole bench keep the contract of `rram_hil.hardware.driver`? A bench, opened
from its file, before its simulated far side.

Any package that adds such a driver runs these checks in its own tests (docs/adding-a-board.md):

    @pytest.mark.parametrize("check", checks_of_bench(WholeBench(TEXT)), ids=str)
    def test_conforms(check):
        check()

What a check claims is compared with what the control socket of the far side tells: the chip's
pulses and conductances, and whether a line is driven.
"""

from __future__ import annotations

import contextlib
import json
import tempfile
import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from rram_hil.array import Apply, Scheme, Status, pulse, read
from rram_hil.bench.bench import Bench
from rram_hil.bench.bench_file import BenchFile, parse_bench_file
from rram_hil.bench.far_side import launcher, request_of
from rram_hil.bench.plugins import driver_class
from rram_hil.errors import BenchError, ConfigError
from rram_hil.types import FloatArray
from rram_hil.wire.recording import Playback, Recorder

from ..server.control import BoardControl
from .checks import Check, docstring_problems
from .station import say

BENCH_FAULTS = (
    "drop-request",
    "drop-reply",
    "half-reply",
    "garbage",
    "disconnect-request",
    "disconnect-reply",
    "stuck",
    "delay-reply",
)
"""What may go wrong on the link of any bench."""
KNOWN_OHM = 1e4
"""Of the resistor in the place of a cell: cells that were never formed conduct next to nothing."""
DELAY_S = 0.6
"""How late a delayed reply comes: the bench's timeouts are to be shorter."""


@dataclass(frozen=True)
class WholeBench:
    """The text of a bench file with `[simulation]`, its timeouts well below `DELAY_S`; of more than
    a few cells with `read_noise = false`, for a map is compared with what the chip conducts.

    The first row takes pulses of up to 1.5 V on BL with `wl_v` on its gates for `width_s`, other
    lines as `unselected` says: the file's limits must allow these. `faults` are the kinds to
    act out, by the name of the instrument on whose link; "" is a bench of one board.
    """

    text: str
    width_s: float = 1e-6
    wl_v: float = 2.0
    unselected: Scheme = Scheme.INHIBIT
    faults: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: {"": BENCH_FAULTS})

    @property
    def driver(self) -> str:
        """The driver's name in the file."""
        return str(tomllib.loads(self.text)["driver"]["name"])

    def write(self, folder: Path) -> Path:
        """Write the file into a folder; its path."""
        path = folder / "bench.toml"
        path.write_text(self.text, encoding="utf-8")
        return path

    def pulse(self, bench: Bench, bl_v: float, columns: tuple[int, int] | None = None) -> Apply:
        """One pulse on each cell of the first row, or of some of its columns."""
        cells = bench.cells(tiles=[0], rows=(0, 0), columns=columns)
        return pulse(
            cells, bl_v=bl_v, wl_v=self.wl_v, width_s=self.width_s, unselected=self.unselected
        )


@dataclass
class Place:
    """A bench that is open, and the control socket of its far side."""

    whole: WholeBench
    bench: Bench
    control: BoardControl

    @classmethod
    def open(cls, whole: WholeBench, folder: Path) -> Place:
        """Open the bench with its file, ledger and state in a folder of its own."""
        bench = Bench.open(whole.write(folder))
        return cls(whole, bench, BoardControl(_control(bench)))

    def close(self) -> None:
        """Close bench and control socket."""
        self.control.clear()
        self.bench.close()
        self.control.close()

    def outputs_on(self) -> bool:
        """Whether any line is driven, or any relay closed."""
        return bool(self.control.status()["outputs_on"])

    def drives(self) -> bool:
        """Whether a source is on now; between operations the relays of a matrix stay as they
        are.
        """
        told = self.control.status()
        return any(
            on
            for name, on in told.get("outputs", {"": told["outputs_on"]}).items()
            if name != "matrix"
        )

    def wide_enough(self, measured: FloatArray, truth: FloatArray) -> bool:
        """Whether conductances (S) are right: what the bench states, and 1 % of read noise."""
        can = self.bench.capabilities
        floor_s = can.read_floor_a / self.bench.file.read.bl_v
        return bool(
            np.all(
                np.abs(measured - truth)
                <= (can.read_fraction + 0.01) * np.abs(truth) + floor_s + 5e-8
            )
        )

    def map_is_right(self) -> None:
        """Raises `AssertionError` where a map is not what the chip conducts."""
        measured, truth = self.bench.read_map(), self.control.conductance_s()
        say(self.wide_enough(measured, truth), f"a map of {measured} S where there is {truth} S")


def checks_of_bench(whole: WholeBench) -> list[Check]:
    """Every check of a driver of a whole bench; each opens a bench of its own in a folder of its
    own.
    """
    rules: dict[str, Callable[[Path], None]] = {
        "connecting touches nothing": partial(connecting_touches_nothing, whole),
        "a far side that is gone is a typed error": partial(a_far_side_that_is_gone, whole),
        "a known resistor reads as what it is": partial(a_known_resistor, whole),
        "a session plays back": partial(a_session_plays_back, whole),
        "a map is right and stresses nothing": _on_place(whole, a_map_stresses_nothing),
        "safe_off works through a fault or says so": _on_place(whole, safe_off_through_faults),
    }
    for error in (RuntimeError("mine"), KeyboardInterrupt()):
        after = partial(an_exception_leaves_outputs_off, error=error)
        rules[f"outputs are off after {type(error).__name__}"] = _on_place(whole, after)
    for name, kinds in whole.faults.items():
        of = f" of {name}" if name else ""
        rules[f"another model{of} is refused"] = partial(another_model_is_refused, whole, name)
        for kind in kinds:
            rule = partial(_a_fault, instrument=name, kind=kind)
            rules[f"fault {kind!r}{of} in a reading and in a pulse"] = _on_place(whole, rule)
    checks = [
        Check("bench", whole.driver, title, partial(_in_a_folder, rule))
        for title, rule in rules.items()
    ]
    docstrings = partial(_docstrings, whole.driver)
    return [*checks, Check("bench", whole.driver, "docstrings have the form", docstrings)]


def _in_a_folder(rule: Callable[[Path], None]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        rule(Path(folder))


def _on_place(whole: WholeBench, rule: Callable[[Place], None]) -> Callable[[Path], None]:
    def run(folder: Path) -> None:
        with contextlib.closing(Place.open(whole, folder)) as place:
            rule(place)

    return run


def _docstrings(driver: str) -> None:
    problems = docstring_problems(driver_class(driver))
    say(not problems, "; ".join(problems[:5]))


def _control(bench: Bench) -> str:
    if bench.far_side is None or not bench.far_side.control:
        raise ConfigError("the far side of this bench has no control socket")
    return bench.far_side.control


def connecting_touches_nothing(whole: WholeBench, folder: Path) -> None:
    """Nor does connecting once more."""
    with Bench.open(whole.write(folder), arm=False) as bench:
        with BoardControl(_control(bench)) as control:
            told = control.status()
            say(not told["outputs_on"], "an output is on after connect")
            say(not told.get("closures"), "relays have moved in connect")
            say(not control.pulses().any(), "a cell was pulsed in connect")
            bench.driver.connect()
            is_as_before = control.status()["outputs_on"] == told["outputs_on"]
            say(is_as_before, "connecting again changed the outputs")
        say(bench.identity.model, "the identity names no model")


def another_model_is_refused(whole: WholeBench, instrument: str, folder: Path) -> None:
    """With every link closed: the far side takes another host at once."""
    text = f"{whole.text}\n[[simulation.faults]]\n"
    text += f'instrument = "{instrument}"\n' if instrument else ""
    text += 'kind = "wrong-model"\ncount = 8\n'
    file = parse_bench_file(tomllib.loads(text), text, folder / "bench.toml")
    far_side = launcher(file.driver.name)(request_of(file))
    try:
        kind = driver_class(file.driver.name)
        config = kind.Config.model_validate(file.driver.settings | far_side.settings)
        driver = kind(config, file.chip.geometry, file.limits)
        with _raising(ConfigError, "connecting to another model"):
            driver.connect()
        with BoardControl(far_side.control) as control:
            say(not control.status()["outputs_on"], "an output is on after a refusal")
            control.clear()
        # The port is free again: a far side that serves one host at a time takes another.
        again = kind(config, file.chip.geometry, file.limits)
        again.connect()
        again.close()
        driver.close()
    finally:
        far_side.stop()


def a_map_stresses_nothing(place: Place) -> None:
    """It is what the chip conducts, and no pulse was given."""
    before = place.control.pulses().sum()
    place.map_is_right()
    say(place.control.pulses().sum() == before, "reading a map has pulsed cells")
    say(not place.drives(), "a source is on after a map")


def a_known_resistor(whole: WholeBench, folder: Path) -> None:
    """In the place of cell (0, 0, 0): within what the bench states and a percent."""
    known = f"\n[[simulation.resistors]]\nrow = 0\ncolumn = 0\nohm = {KNOWN_OHM}\n"
    with Bench.open(replace(whole, text=whole.text + known).write(folder)) as bench:
        can, read_s = bench.capabilities, float(bench.read_map()[0, 0, 0])
        floor_s = can.read_floor_a / bench.file.read.bl_v
        within_s = (can.read_fraction + 0.01) / KNOWN_OHM + floor_s
        say(
            abs(read_s - 1 / KNOWN_OHM) <= within_s,
            f"{read_s:g} S is read of a resistor of {1 / KNOWN_OHM:g} S",
        )


def an_exception_leaves_outputs_off(place: Place, error: BaseException) -> None:
    """An exception of a plan in its middle; the bench then goes on."""
    bench = place.bench

    def plan() -> Iterator[Any]:
        yield read(bench.cells(), bench.file.read.step)
        raise error

    with _raising((type(error), BenchError), "an exception of a plan"):
        bench.run(plan())  # type: ignore[arg-type]
    say(not place.outputs_on(), "an output is on after an exception")
    place.map_is_right()


def a_fault_in_a_reading(place: Place, instrument: str, kind: str) -> None:
    """Right values or a typed error, then outputs off; no pulse; the next map is right."""
    bench, before = place.bench, place.control.pulses()
    place.control.inject(kind, instrument=instrument, seconds=DELAY_S)
    try:
        result = bench.apply(read(bench.cells(), bench.file.read.step))
    except BenchError:
        say(not place.outputs_on(), "an output is on after an error")
    else:
        ok = result.last_status == Status.OK
        truth = place.control.conductance_s().ravel()
        say(place.wide_enough(result.last_s[ok], truth[ok]), "a reading is wrong and says OK")
        say(ok.all() or result.interrupted, "a reading is missing without an error")
    place.control.clear()
    say(not place.drives(), "a source is on after a reading")
    say(np.array_equal(place.control.pulses(), before), "a reading has pulsed a cell")
    place.map_is_right()


def a_fault_in_a_pulse(place: Place, instrument: str, kind: str) -> None:
    """Never given twice, never more than told, and the ledger has charged what was given."""
    bench = place.bench
    shot = place.whole.pulse(bench, 1.0, (1, 1))
    at = shot.cells.index(bench.geometry)
    ledger = bench.ledger
    if ledger is None:
        raise ConfigError("the bench of this check needs a ledger")
    before, charged = place.control.pulses().ravel()[at], ledger.counts.ravel()[at].copy()
    place.control.inject(kind, instrument=instrument, seconds=DELAY_S)
    told = 1
    try:
        result = bench.apply(shot)
    except BenchError:
        say(not place.outputs_on(), "an output is on after an error")
    else:
        told = int(result.pulses[0])
        say(told == 1 or result.interrupted, f"{told} pulses told where one was asked")
    say(not place.drives(), "a source is on after a pulse")
    place.control.clear()
    given = int((place.control.pulses().ravel()[at] - before)[0])
    say(given <= min(1, told), f"{given} pulses given where one was asked and {told} were told")
    spent = int((ledger.counts.ravel()[at] - charged)[0])
    say(spent >= given, f"the ledger has charged {spent} pulses, {given} were given")
    place.map_is_right()


def _a_fault(place: Place, instrument: str, kind: str) -> None:
    a_fault_in_a_reading(place, instrument, kind)
    a_fault_in_a_pulse(place, instrument, kind)


def safe_off_through_faults(place: Place) -> None:
    """At the first try, or at the next after an error; outputs are then off."""
    driver = place.bench.driver
    for instrument, kinds in place.whole.faults.items():
        for kind in kinds:
            if kind not in BENCH_FAULTS:
                continue
            driver.arm()
            place.control.inject(kind, instrument=instrument, seconds=DELAY_S)
            try:
                driver.safe_off()
            except BenchError:
                place.control.clear()
                driver.safe_off()
            place.control.clear()
            say(not place.outputs_on(), f"outputs are on after safe_off, {instrument} {kind}")
    driver.arm()


def a_far_side_that_is_gone(whole: WholeBench, folder: Path) -> None:
    """`safe_off` and `close` say so with a `BenchError`; closing twice does no harm."""
    bench = Bench.open(whole.write(folder))
    _control(bench)
    if bench.far_side is not None:
        bench.far_side.stop()
    with _raising(BenchError, "safe_off without a far side"):
        bench.driver.safe_off()
    with _raising(BenchError, "closing without a far side"):
        bench.close()
    bench.close()


def a_session_plays_back(whole: WholeBench, folder: Path) -> None:
    """Recorded, and repeated without any instrument: the same results, nothing left over."""

    def session(bench: Bench) -> list[Any]:
        first = bench.read_map()
        given = bench.apply(whole.pulse(bench, 1.5))
        return [first, given.pulses, given.status, bench.read_map()]

    path = whole.write(folder)
    with Recorder(folder / "session") as recorder, Bench.open(path, traffic=recorder) as bench:
        before, identity, ledger = session(bench), bench.identity, bench.ledger
        _control(bench)
        settings = dict(bench.file.driver.settings)
        settings |= bench.far_side.settings if bench.far_side is not None else {}
    if ledger is not None:
        ledger.path.unlink()
    playback = Playback(folder / "session")
    with Bench.open(_real_file(whole, settings, path), traffic=playback) as bench:
        say(bench.identity == identity, "another identity is played back")
        for one, other in zip(before, session(bench), strict=True):
            is_same = np.array_equal(one, other, equal_nan=one.dtype.kind == "f")
            say(is_same, f"{other} is played back where there was {one}")
    say(playback.left() == 0, f"{playback.left()} events of the recording are left over")


def _real_file(whole: WholeBench, settings: dict[str, Any], path: Path) -> BenchFile:
    """The bench file as that of a real bench at these addresses."""
    for of_a_simulation in ("clock", "pace"):
        settings.pop(of_a_simulation, None)
    tables = tomllib.loads(whole.text)
    tables["driver"] = {"name": whole.driver} | settings
    del tables["simulation"]
    text = "\n".join(_toml(table, name) for name, table in tables.items())
    return parse_bench_file(tomllib.loads(text), text, path)


def _toml(table: dict[str, Any], name: str) -> str:
    """A table of a bench file, its tables behind it."""
    plain = {k: v for k, v in table.items() if not isinstance(v, dict)}
    text = f"[{name}]\n" + "".join(f"{json.dumps(k)} = {json.dumps(v)}\n" for k, v in plain.items())
    return text + "".join(
        "\n" + _toml(v, f"{name}.{json.dumps(k)}") for k, v in table.items() if isinstance(v, dict)
    )


@contextlib.contextmanager
def _raising(
    wanted: type[BaseException] | tuple[type[BaseException], ...], what: str
) -> Iterator[None]:
    """Raise `AssertionError` where nothing wanted is raised inside."""
    try:
        yield
    except wanted:
        return
    raise AssertionError(f"{what} raised nothing")
