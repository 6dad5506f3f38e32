"""Drivers of whole benches, each before its simulated far side: nothing touched at connect, outputs
off after whatever goes wrong, no pulse that the ledger does not know, right values or a typed error
for every fault, sessions that play back.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from chain_benches import ARC_ONE, BOARD, CHAINS, bench_text

from rram_hil.array import Status, pulse, read
from rram_hil.bench.bench import Bench
from rram_hil.bench.bench_file import parse_bench_file
from rram_hil.bench.far_side import launcher, request_of
from rram_hil.bench.plugins import driver_class
from rram_hil.drivers.simulated.conformance import docstring_problems
from rram_hil.drivers.simulated.server.control import BoardControl
from rram_hil.errors import BenchError, ConfigError
from rram_hil.plugins import names
from rram_hil.pytest_plugin import GroundTruth
from rram_hil.wire import link
from rram_hil.wire.recording import Playback, Recorder

SIZE = 2
BENCHES = [BOARD, ARC_ONE, *CHAINS]
CELL = {ARC_ONE: "1R"}
INSTRUMENTS = {
    BOARD: [""],
    ARC_ONE: [""],
    **{
        chain: list(tomllib.loads(text[0])["driver"]["instruments"])
        for chain, text in CHAINS.items()
    },
}
FAULTS = [
    "drop-request",
    "drop-reply",
    "half-reply",
    "garbage",
    "disconnect-request",
    "disconnect-reply",
    "stuck",
    "delay-reply",
]
TEXT_FAULTS = ["queue-full", "line-overrun"]
CASES = [
    (bench, instrument, kind)
    for bench in BENCHES
    for instrument in INSTRUMENTS[bench]
    for kind in [
        *FAULTS,
        *(TEXT_FAULTS if instrument else []),
        *(["line-overrun"] if bench == ARC_ONE else []),
    ]
]


def text_of(chain: str) -> str:
    """The bench file of a chain, with timeouts that suit a test."""
    text = bench_text(chain, CELL.get(chain, "1T1R"), SIZE)
    if chain in (BOARD, ARC_ONE):
        own = "patience_s = 0.5" if chain == BOARD else "version_s = 0.25"
        return text.replace("\n[limits]", f"timeout_s = 0.25\n{own}\n[limits]", 1)
    return text.replace("\nmodel =", "\ntimeout_s = 0.25\nmodel =")


@dataclass
class Place:
    """A bench that is open, what its far side really is, and the control of its faults."""

    bench: Bench
    truth: GroundTruth
    control: BoardControl

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

    def wide_enough(self, measured: Any, truth: Any) -> bool:
        """Whether conductances are right: what the chain states, and 1 % of read noise."""
        can = self.bench.capabilities
        floor_s = can.read_floor_a / self.bench.file.read.bl_v
        return bool(
            np.all(
                np.abs(measured - truth)
                <= (can.read_fraction + 0.01) * np.abs(truth) + floor_s + 5e-8
            )
        )


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Place]]:
    """Benches that are open, one a chain, opened when they are first asked for."""
    opened: dict[str, Place] = {}
    opened_paths = tmp_path_factory

    class Opening(dict[str, Place]):
        def __missing__(self, chain: str) -> Place:
            path = opened_paths.mktemp("bench") / "bench.toml"
            path.write_text(text_of(chain), encoding="utf-8")
            bench = Bench.open(path)
            assert bench.far_side is not None
            self[chain] = opened[chain] = Place(
                bench, GroundTruth(bench), BoardControl(bench.far_side.control)
            )
            return self[chain]

    yield Opening()
    for place in opened.values():
        place.control.clear()
        place.bench.close()
        place.control.close()


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link, "QUIET_S", 0.05)


@pytest.mark.parametrize("name", names("rram_hil.drivers"))
def test_docstrings_have_the_form(name: str) -> None:
    problems = docstring_problems(driver_class(name))
    if name in ("simulated-array", "smu-matrix"):  # no hardware of their own, no document
        problems = [p for p in problems if "names the document" not in p]
    assert not problems


@pytest.mark.parametrize("chain", BENCHES)
def test_connecting_touches_nothing_and_opening_again_neither(chain: str, tmp_path: Path) -> None:
    path = tmp_path / "bench.toml"
    path.write_text(text_of(chain), encoding="utf-8")
    with Bench.open(path, arm=False) as bench:
        assert bench.far_side is not None
        with BoardControl(bench.far_side.control) as control:
            told = control.status()
            assert not told["outputs_on"]
            assert not told.get("closures")
            assert not control.pulses().any()
            bench.driver.connect()
            assert control.status()["outputs_on"] == told["outputs_on"]
        assert bench.identity.model


@pytest.mark.parametrize(("chain", "instrument"), [(c, i) for c in BENCHES for i in INSTRUMENTS[c]])
def test_another_instrument_is_refused_and_every_link_closed(
    chain: str, instrument: str, tmp_path: Path
) -> None:
    text = (
        text_of(chain)
        + "\n[[simulation.faults]]\n"
        + (f'instrument = "{instrument}"\n' if instrument else "")
    )
    text += 'kind = "wrong-model"\ncount = 8\n'
    file = parse_bench_file(tomllib.loads(text), text, tmp_path / "bench.toml")
    far_side = launcher(file.driver.name)(request_of(file))
    try:
        kind = driver_class(file.driver.name)
        config = kind.Config.model_validate(file.driver.settings | far_side.settings)
        driver = kind(config, file.chip.geometry, file.limits)
        with pytest.raises(ConfigError):
            driver.connect()
        with BoardControl(far_side.control) as control:
            assert not control.status()["outputs_on"]
            control.clear()
        # The port is free again: a far side that serves one host at a time takes another.
        again = kind(config, file.chip.geometry, file.limits)
        again.connect()
        again.close()
        driver.close()
    finally:
        far_side.stop()


@pytest.mark.parametrize("chain", BENCHES)
def test_a_map_is_right_and_stresses_nothing(chain: str, places: dict[str, Place]) -> None:
    place = places[chain]
    before = place.truth.pulses().sum()
    assert place.wide_enough(place.bench.read_map(), place.truth.conductance_s())
    assert place.truth.pulses().sum() == before
    assert not place.drives()


@pytest.mark.parametrize("error", [RuntimeError("mine"), KeyboardInterrupt()], ids=repr)
@pytest.mark.parametrize("chain", BENCHES)
def test_an_exception_in_the_middle_leaves_outputs_off(
    chain: str, error: BaseException, places: dict[str, Place]
) -> None:
    place = places[chain]

    def plan() -> Any:
        yield read(place.bench.cells(), place.bench.file.read.step)
        raise error

    with pytest.raises(BaseException, match=r"mine|") as raised:
        place.bench.run(plan())
    assert isinstance(raised.value, type(error) | BenchError)
    assert not place.truth.outputs_on()
    assert place.wide_enough(place.bench.read_map(), place.truth.conductance_s())


@pytest.mark.parametrize(("chain", "instrument", "kind"), CASES)
def test_a_fault_in_a_reading_is_a_right_value_or_a_typed_error(
    chain: str, instrument: str, kind: str, places: dict[str, Place]
) -> None:
    place = places[chain]
    bench, before = place.bench, place.truth.pulses()
    place.control.inject(kind, instrument=instrument, seconds=0.6)
    try:
        result = bench.apply(read(bench.cells(), bench.file.read.step))
    except BenchError:
        assert not place.truth.outputs_on()
    else:
        ok = result.last_status == Status.OK
        truth = place.truth.conductance_s().ravel()
        assert place.wide_enough(result.last_s[ok], truth[ok])
        assert ok.all() or result.interrupted
    place.control.clear()
    assert not place.drives()
    np.testing.assert_array_equal(place.truth.pulses(), before)
    assert place.wide_enough(bench.read_map(), place.truth.conductance_s())


@pytest.mark.parametrize(("chain", "instrument", "kind"), CASES)
def test_a_fault_in_a_pulse_never_gives_it_twice_and_the_ledger_knows_it(
    chain: str, instrument: str, kind: str, places: dict[str, Place]
) -> None:
    place = places[chain]
    bench = place.bench
    cells = bench.cells(rows=(0, 0), columns=(1, 1))
    at = cells.index(bench.geometry)
    assert bench.ledger is not None
    before, charged = place.truth.pulses().ravel()[at], bench.ledger.counts.ravel()[at].copy()
    width_s = 1e-6 if chain in (BOARD, ARC_ONE) else 2e-3
    scheme = "half" if CELL.get(chain) == "1R" else "inhibit"
    shot = pulse(cells, bl_v=1.0, wl_v=2.0, width_s=width_s, unselected=scheme)  # type: ignore[arg-type]
    place.control.inject(kind, instrument=instrument, seconds=0.6)
    told = 1
    try:
        result = bench.apply(shot)
    except BenchError:
        assert not place.truth.outputs_on()
    else:
        told = int(result.pulses[0])
        assert told == 1 or result.interrupted
    assert not place.drives()
    place.control.clear()
    given = place.truth.pulses().ravel()[at] - before
    assert given <= 1
    assert given <= told
    assert bench.ledger.counts.ravel()[at] - charged >= given
    assert place.wide_enough(bench.read_map(), place.truth.conductance_s())


@pytest.mark.parametrize("chain", BENCHES)
def test_safe_off_works_through_a_fault_or_says_that_it_did_not(
    chain: str, places: dict[str, Place]
) -> None:
    place = places[chain]
    for instrument in INSTRUMENTS[chain]:
        for kind in FAULTS:
            place.bench.driver.arm()
            place.control.inject(kind, instrument=instrument, seconds=0.6)
            try:
                place.bench.driver.safe_off()
            except BenchError:
                place.control.clear()
                place.bench.driver.safe_off()
            place.control.clear()
            assert not place.truth.outputs_on(), (instrument, kind)
    place.bench.driver.arm()


@pytest.mark.parametrize("chain", BENCHES)
def test_a_far_side_that_is_gone_is_a_typed_error(chain: str, tmp_path: Path) -> None:
    path = tmp_path / "bench.toml"
    path.write_text(text_of(chain), encoding="utf-8")
    bench = Bench.open(path)
    assert bench.far_side is not None
    bench.far_side.stop()
    with pytest.raises(BenchError):
        bench.driver.safe_off()
    with pytest.raises(BenchError):
        bench.close()
    bench.close()


def toml_of(table: dict[str, Any], name: str) -> str:
    """A table of a bench file, its tables behind it."""
    plain = {k: v for k, v in table.items() if not isinstance(v, dict)}
    text = f"[{name}]\n" + "".join(f"{json.dumps(k)} = {json.dumps(v)}\n" for k, v in plain.items())
    return text + "".join(
        "\n" + toml_of(v, f"{name}.{json.dumps(k)}")
        for k, v in table.items()
        if isinstance(v, dict)
    )


@pytest.mark.parametrize("chain", BENCHES)
def test_a_session_is_played_back_without_its_instruments(chain: str, tmp_path: Path) -> None:
    def session(bench: Bench) -> list[Any]:
        cells = bench.cells(rows=(0, 0))
        width_s = 1e-6 if chain in (BOARD, ARC_ONE) else 2e-3
        scheme: Any = "half" if CELL.get(chain) == "1R" else "inhibit"
        first = bench.read_map()
        given = bench.apply(pulse(cells, bl_v=1.5, wl_v=2.0, width_s=width_s, unselected=scheme))
        return [first, given.pulses, given.status, bench.read_map()]

    path = tmp_path / "bench.toml"
    path.write_text(text_of(chain), encoding="utf-8")
    with Recorder(tmp_path / "session") as recorder, Bench.open(path, traffic=recorder) as bench:
        before, identity = session(bench), bench.identity
        assert bench.far_side is not None
        settings = bench.file.driver.settings | bench.far_side.settings
    for of_a_simulation in ("clock", "pace"):
        settings.pop(of_a_simulation, None)
    tables = tomllib.loads(text_of(chain))
    tables["driver"] = {"name": tables["driver"]["name"]} | settings
    del tables["simulation"]
    text = "\n".join(toml_of(table, name) for name, table in tables.items())
    path.with_name("test.ledger.npy").unlink()
    playback = Playback(tmp_path / "session")
    with Bench.open(parse_bench_file(tomllib.loads(text), text, path), traffic=playback) as bench:
        assert bench.identity == identity
        for one, other in zip(before, session(bench), strict=True):
            np.testing.assert_array_equal(one, other)
    assert playback.left() == 0
