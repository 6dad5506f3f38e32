"""The NI PXI driver against the signatures of its maker's libraries: sessions are autospecs of
theirs, and what a session does on some pins or channels is checked against the class that it gives
for them. Behind them stands an array of conductances.
"""

from __future__ import annotations

import datetime
import inspect
import re
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError
from pytest_mock import MockerFixture

from rram_hil.array import (
    Apply,
    Cells,
    Geometry,
    Limits,
    Scheme,
    Status,
    Step,
    Stop,
    Wait,
    pulse,
    read,
    sweep,
)
from rram_hil.bench.bench import checked_driver, make_driver
from rram_hil.bench.bench_file import load_bench_file
from rram_hil.bench.forecast import plan_recipe
from rram_hil.bench.recipe import load_recipe
from rram_hil.drivers.dialects import maker_library
from rram_hil.drivers.ni_pxi import NiPxi, NiPxiConfig
from rram_hil.engine.engine import Engine
from rram_hil.engine.protocol import Setting
from rram_hil.errors import (
    AbortedError,
    BenchError,
    ConfigError,
    InstrumentError,
    LimitError,
    LinkError,
    UnknownOutcomeError,
)
from rram_hil.validation import refused

nidigital, niswitch, nidcpower = (
    pytest.importorskip(name, reason='pip install "rram-hil[ni]"')
    for name in ("nidigital", "niswitch", "nidcpower")
)
DriverError = nidigital.errors.DriverError

GEOMETRY = Geometry(1, 4, 4, "1T1R", "row")
ALL = Cells.all(GEOMETRY)
LIMITS = Limits(
    bl_v=4.0,
    sl_v=4.0,
    wl_v=4.0,
    cell_v=4.0,
    gate_over_v=4.0,
    half_select_v=0.1,
    read_v=0.25,
    current_a=1e-3,
    energy_j=1.0,
    width_s=1e-2,
    read_width_s=1e-1,
    pulses_per_cell=100000,
    body_v=2.0,
)
READ = Step(0.2, 0.0, 1.5, 5e-4, "current")
SET = {"bl_v": 2.0, "wl_v": 1.5, "width_s": 1e-5}
RESET = {"sl_v": 2.5, "wl_v": 2.5, "width_s": 1e-5}
BL, SL, WL = ([f"{line}_{k}" for k in range(4)] for line in ("BL", "SL", "WL"))
PINS = [*BL, *SL, *WL]
BODY = "PXI1Slot3/0"
ROUTE = ["no0", "com0"]


class On:
    """What a session gives for some pins or channels: properties and methods of the library's own
    class only, with its own signatures.
    """

    def __init__(self, of: type, chassis: Chassis, names: tuple[str, ...]) -> None:
        self.__dict__.update(of=of, chassis=chassis, names=names)

    def __setattr__(self, name: str, value: Any) -> None:
        found = inspect.getattr_static(self.of, name, None)
        assert found is not None, f"{self.of.__module__} has no property {name}"
        assert isinstance(value, getattr(found, "_attribute_type", type(value))), (name, value)
        self.chassis.happens(f"set {name}", self.names, value)
        for one in self.names:
            self.chassis.properties[one, name] = value

    def __getattr__(self, name: str) -> Any:
        found = inspect.getattr_static(self.of, name)
        if not inspect.isfunction(found):
            self.chassis.happens(f"get {name}", self.names)
            return self.chassis.properties.get((self.names[0], name), False)

        def call(*args: Any, **keys: Any) -> Any:
            inspect.signature(found).bind(self, *args, **keys)
            return self.chassis.act(name, self.names, *args)

        return call


class Several:
    def __init__(self, of: type, chassis: Chassis) -> None:
        self.of, self.chassis = of, chassis

    def __getitem__(self, names: str) -> On:
        return On(self.of, self.chassis, tuple(names.split(",")))


class Chassis:
    """The array behind the sessions, and everything that was asked of them, in order."""

    def __init__(
        self,
        mocker: MockerFixture,
        bl: list[str] = BL,
        sl: list[str] = SL,
        wl: list[str] = WL,
        supplies: tuple[str, ...] = (BODY,),
    ) -> None:
        self.bl, self.sl, self.wl = bl, sl, wl
        self.pins = [*bl, *sl, *wl]
        self.along_columns = False
        self.log: list[tuple[str, Any]] = []
        self.properties: dict[tuple[str, str], Any] = {}
        self.volts = dict.fromkeys([*self.pins, *supplies], 0.0)
        self.g = np.linspace(10e-6, 40e-6, len(wl) * len(bl)).reshape(len(wl), len(bl))
        # Across a cell with an open gate, either way (V): what it takes to conduct, or not to.
        self.sets_at, self.resets_at = (np.full(self.g.shape, np.inf) for _ in range(2))
        self.high: dict[str, float] = {}
        self.low: dict[str, float] = {}
        self.samples: list[int] = []
        self.bursts: list[dict[str, float]] = []
        self.read_at: list[dict[str, float]] = []
        self.joined = False
        # As the library has it: enabled, but not in force before the channel is initiated.
        for supply in supplies:
            self.properties[supply, "output_enabled"] = True
        self.running: set[str] = set()
        self.stuck: dict[str, float] = {}
        self.fails = ""
        self.fails_times = 1 << 30
        self.busy = 0
        self.digital = mocker.create_autospec(nidigital.Session, instance=True)
        self.digital.channels = self.digital.pins = Several(nidigital.session._SessionBase, self)
        self.digital.instrument_model = "NI PXIe-6570"
        self.digital.serial_number = "0123ABCD"
        self.digital.instrument_firmware_revision = "1.0"
        self.power = mocker.create_autospec(nidcpower.Session, instance=True)
        self.power.channels = Several(nidcpower.session._SessionBase, self)
        self.switch = mocker.create_autospec(niswitch.Session, instance=True)
        self.switch.number_of_relays = 2
        for library, session in (
            (nidigital, self.digital),
            (nidcpower, self.power),
            (niswitch, self.switch),
        ):
            for name in dir(library.Session):
                if not name.startswith("_") and inspect.isfunction(
                    inspect.getattr_static(library.Session, name)
                ):
                    getattr(session, name).side_effect = self._acting(name)
            mocker.patch.object(library, "Session", autospec=True, return_value=session)

    def _acting(self, name: str) -> Callable[..., Any]:
        return lambda *args, **keys: self.act(name, (), *args)

    def happens(self, what: str, *details: Any) -> None:
        self.log.append((what, details))
        if self.fails == what and self.fails_times > 0:
            self.fails_times -= 1
            raise DriverError(-1074130000, "the chassis has lost its mind")

    def act(self, name: str, names: tuple[str, ...], *args: Any) -> Any:
        self.happens(name, names, *args)
        answer = getattr(self, f"_{name}", None)
        return None if answer is None else answer(names, *args)

    def _get_time_set_period(self, _: Any, name: str) -> datetime.timedelta:
        return datetime.timedelta(microseconds=1)

    def _ppmu_source(self, names: tuple[str, ...]) -> None:
        for name in names:
            self.volts[name] = self.properties[name, "ppmu_voltage_level"]

    def _ppmu_measure(self, names: tuple[str, ...], what: Any) -> list[float]:
        volts = self.volts | self.stuck
        if what is nidigital.PPMUMeasurementType.VOLTAGE:
            return [volts[name] for name in names]
        self.read_at.append({**volts, "body": self.properties.get((BODY, "voltage_level"), 0.0)})
        is_open = [volts[w] > 0.7 for w in self.wl]
        columns = {name: self.bl.index(name) for name in names}
        return [
            sum(
                self.g[r, c] * (volts[name] - volts[self._source_of(r, c)])
                for r in range(len(self.wl))
                if is_open[r]
            )
            for name, c in columns.items()
        ]

    def _configure_voltage_levels(self, names: tuple[str, ...], *levels: float) -> None:
        assert levels[2:4] == (min(levels[:2]), max(levels[:2]))
        self.low.update(dict.fromkeys(names, levels[0]))
        self.high.update(dict.fromkeys(names, levels[1]))

    def _write_source_waveform_broadcast(self, _: Any, waveform: str, data: list[int]) -> None:
        self.samples = data

    def _source_of(self, row: int, column: int) -> str:
        along = {1: 0, len(self.wl): row} if not self.along_columns else {len(self.bl): column}
        return self.sl[along[len(self.sl)]]

    def _burst_pattern(self, _: Any, label: str) -> None:
        top = len(self.pins) - 1
        for sample in dict.fromkeys(self.samples):
            volts = {
                pin: (self.high if sample >> (top - k) & 1 else self.low)[pin]
                for k, pin in enumerate(self.pins)
            }
            self.bursts.append(volts)
            for r, gate in enumerate(self.wl):
                if volts[gate] > 0.7:
                    across = np.array(
                        [volts[b] - volts[self._source_of(r, c)] for c, b in enumerate(self.bl)]
                    )
                    self.g[r, across >= self.sets_at[r]] = 200e-6
                    self.g[r, -across >= self.resets_at[r]] = 5e-6

    def _is_done(self, _: Any) -> bool:
        self.busy -= 1
        return self.busy < 0

    def _initiate(self, names: tuple[str, ...]) -> None:
        self.running.update(names)

    def _abort(self, names: tuple[str, ...]) -> None:
        # A channel of a supply leaves the state in which what is set is in force.
        self.running.difference_update(names)

    def _measure(self, names: tuple[str, ...], what: Any) -> float:
        assert set(names) <= self.running, "a channel that does not run measures nothing"
        is_on = self.properties[names[0], "output_enabled"]
        volts = self.properties[names[0], "voltage_level"] if is_on else 0.0
        return self.stuck.get(names[0], volts)

    def _connect(self, _: Any, one: str, other: str) -> None:
        self.joined = True

    def _disconnect_all(self, _: Any) -> None:
        self.joined = False

    def _can_connect(self, _: Any, one: str, other: str) -> Any:
        capability = niswitch.PathCapability
        return capability.PATH_EXISTS if self.joined else capability.PATH_AVAILABLE

    def _get_relay_name(self, _: Any, index: int) -> str:
        return f"k{index}"

    def _get_relay_count(self, _: Any, name: str) -> int:
        return {"k1": 7, "k2": 5}[name]

    @property
    def names(self) -> list[str]:
        return [what for what, _ in self.log]

    @property
    def is_off(self) -> bool:
        apart = nidigital.SelectedFunction.DISCONNECT
        return (
            all(self.properties[pin, "selected_function"] is apart for pin in PINS)
            and not any(self.volts[pin] for pin in PINS)
            and not self.properties[BODY, "output_enabled"]
            and not self.joined
        )

    def played(self) -> list[dict[str, float]]:
        """Volts of every pin in each cycle of the last burst."""
        top = len(PINS) - 1
        return [
            {p: (self.high if s >> (top - k) & 1 else self.low)[p] for k, p in enumerate(PINS)}
            for s in self.samples
        ]


@pytest.fixture
def chassis(mocker: MockerFixture) -> Chassis:
    return Chassis(mocker)


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., NiPxi]:
    files = {}
    for key, name in (
        ("pin_map", "a.pinmap"),
        ("levels", "a.digilevels"),
        ("timing", "a.digitiming"),
        ("pattern", "pulses.digipat"),
    ):
        files[key] = str(tmp_path / name)
        (tmp_path / name).write_bytes(b"")

    def made(**keys: Any) -> NiPxi:
        geometry = keys.pop("geometry", GEOMETRY)
        config = {
            "digital": "PXI1Slot7",
            **files,
            "bl": BL,
            "sl": SL,
            "wl": WL,
            "settle_s": 0.0,
            "timeout_s": 0.05,
            "supplies": {BODY: {"volts": -0.5, "current_limit_a": 1e-3}},
            "switch": "PXI1Slot9",
            "routes": [ROUTE],
        }
        return NiPxi(NiPxiConfig.model_validate(config | keys), geometry, LIMITS)

    return made


@pytest.fixture
def board(chassis: Chassis, make: Callable[..., NiPxi]) -> Iterator[NiPxi]:
    made = make()
    made.connect()
    made.arm()
    chassis.log.clear()
    yield made
    made.close()


# Connect and arm


def test_without_the_libraries_there_is_one_clear_line(
    mocker: MockerFixture, make: Callable[..., NiPxi]
) -> None:
    mocker.patch.object(
        maker_library, "import_module", side_effect=ImportError("No module named 'nidigital'")
    )
    with pytest.raises(ConfigError, match=r"rram-hil\[ni\]") as caught:
        make().connect()
    assert "\n" not in str(caught.value)


def test_libraries_that_the_bench_does_not_need_are_not_asked_for(
    mocker: MockerFixture, chassis: Chassis, make: Callable[..., NiPxi]
) -> None:
    importer = mocker.patch.object(maker_library, "import_module", return_value=nidigital)
    board = make(supplies={}, switch="", routes=[])
    board.connect()
    board.arm()
    board.safe_off()
    assert [call.args for call in importer.call_args_list] == [("nidigital",)]
    assert board.wear() == ""


def test_connect_identifies_and_touches_nothing(
    chassis: Chassis, make: Callable[..., NiPxi]
) -> None:
    identity = make().connect()
    assert (identity.model, identity.serial) == ("NI PXIe-6570", "0123ABCD")
    assert chassis.log == []
    nidcpower.Session.assert_called_once_with(BODY, reset=False, independent_channels=True)


def test_another_instrument_is_refused(chassis: Chassis, make: Callable[..., NiPxi]) -> None:
    chassis.digital.instrument_model = "NI PXIe-6556"
    with pytest.raises(ConfigError, match=r"PXI1Slot7: this is a 'NI PXIe-6556'; ni-pxi drives"):
        make().connect()
    assert "close" in chassis.names


def test_a_session_that_does_not_open_is_told_with_the_librarys_code(
    chassis: Chassis, make: Callable[..., NiPxi]
) -> None:
    nidcpower.Session.side_effect = DriverError(-1074135040, "no such resource")
    with pytest.raises(InstrumentError, match="no such resource") as caught:
        make().connect()
    assert caught.value.code == -1074135040
    assert "close" in chassis.names


@pytest.mark.parametrize(
    ("supply", "told"),
    [
        ({"volts": 33.0}, r"volts: 33 V is beyond most_v, 5\.5 V: lower volts, or set most_v"),
        ({"volts": -33.0}, r"volts: -33 V is beyond most_v"),
        ({"volts": 12.1, "most_v": 12.0}, r"volts: 12\.1 V is beyond most_v, 12 V"),
        ({"volts": 3.3, "most_v": 100.0}, r"most_v: 100\.0 is wrong: .* less than or equal to 60"),
        ({"volts": 3.3, "most_v": float("nan")}, r"most_v: nan is wrong"),
    ],
)
def test_a_supply_beyond_what_the_chip_takes_there_is_refused(
    supply: dict[str, float], told: str
) -> None:
    with pytest.raises(ValidationError) as error:
        NiPxiConfig.model_validate({"supplies": {BODY: {"current_limit_a": 1e-3} | supply}})
    line = str(refused(error.value, "bench.toml"))
    assert re.search(f"supplies.{BODY}.*{told}", line), line


def test_a_supply_that_says_its_most_may_have_it() -> None:
    supply = {"volts": 12.0, "most_v": 12.0, "current_limit_a": 1e-3}
    assert NiPxiConfig.model_validate({"supplies": {BODY: supply}}).supplies[BODY].volts == 12.0


def test_arming_makes_safe_then_closes_relays_dry_then_switches_supplies_on(
    chassis: Chassis, make: Callable[..., NiPxi]
) -> None:
    board = make()
    board.connect()
    board.arm()
    names = chassis.names
    closed = names.index("connect")
    assert names.index("initiate") < names.index("disconnect_all") < closed
    assert "burst_pattern" not in names
    # Nothing drives while the relay closes.
    enabled = [(k, d[1]) for k, (w, d) in enumerate(chassis.log) if w == "set output_enabled"]
    assert [on for k, on in enabled if k < closed] == [False]
    assert [on for k, on in enabled if k > closed] == [True]
    assert {d[1] for w, d in chassis.log[:closed] if w == "set ppmu_voltage_level"} == {0.0}
    first = next(d for w, d in chassis.log if w == "set selected_function")
    assert first[1] is nidigital.SelectedFunction.DISCONNECT
    assert names.index("set selected_function") < names.index("apply_levels_and_timing")
    assert chassis.properties[BODY, "voltage_level"] == -0.5
    assert chassis.properties[BODY, "output_enabled"]
    assert not any(chassis.volts[pin] for pin in PINS)


def test_arming_twice_loads_once(chassis: Chassis, board: NiPxi) -> None:
    board.safe_off()
    board.arm()
    assert "load_pin_map" not in chassis.names
    assert not chassis.is_off


def test_a_time_set_with_another_period_is_refused(
    chassis: Chassis, make: Callable[..., NiPxi]
) -> None:
    board = make(period_s=2e-6)
    board.connect()
    with pytest.raises(ConfigError, match=r"driver\.period_s: time set 'test' has a period of"):
        board.arm()


def test_a_supply_that_is_not_at_its_level_ends_arming_with_all_off(
    chassis: Chassis, make: Callable[..., NiPxi]
) -> None:
    board = make()
    board.connect()
    chassis.stuck[BODY] = 0.0
    with pytest.raises(InstrumentError, match=rf"supply {BODY} reads 0 V, it should be at -0.5 V"):
        board.arm()
    assert chassis.is_off


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        ({"bl": BL[:3]}, r"driver\.bl: 3 pins are named, the chip has 4"),
        ({"digital": ""}, r"driver\.digital: missing"),
        ({"geometry": Geometry(1, 4, 4, "1R", "row")}, "chip.cell to 1T1R"),
    ],
)
def test_a_bench_that_does_not_fit_is_refused(
    make: Callable[..., NiPxi], keys: Any, says: str
) -> None:
    with pytest.raises(ConfigError, match=says):
        make(**keys)


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        ({"bl": BL, "wl": BL}, "a pin may stand there once"),
        ({"bl": [f"B{k}" for k in range(40)]}, "at most 32"),
        ({"routes": [["a"]], "switch": "x"}, "pairs of channels"),
        ({"switch": "x"}, "switch and routes belong together"),
    ],
)
def test_a_wrong_section_is_refused(keys: Any, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        NiPxiConfig.model_validate(keys)


def test_a_missing_file_is_named(chassis: Chassis, make: Callable[..., NiPxi]) -> None:
    with pytest.raises(ConfigError, match=r"driver\.pattern: there is no file nowhere\.digipat"):
        make(pattern="nowhere.digipat").connect()


def test_files_lie_beside_the_bench_file(chassis: Chassis) -> None:
    config = make_driver(checked_driver(BENCH), BENCH, None).config
    assert isinstance(config, NiPxiConfig)
    assert config.pin_map == str(EXAMPLES / "array.pinmap")
    assert config.specifications == [str(EXAMPLES / "array.specs")]


# Pulses


def test_a_pulse_on_all_cells_is_one_burst(chassis: Chassis, board: NiPxi) -> None:
    result = board.execute(pulse(ALL, **SET), 1)
    assert chassis.names.count("burst_pattern") == 1
    assert result.pulses.tolist() == [1] * 16
    burst = next(d for w, d in chassis.log if w == "burst_pattern")
    assert burst[1] == "pulses"
    register = next(d for w, d in chassis.log if w == "write_sequencer_register")
    assert register[1:] == (nidigital.SequencerRegister.REGISTER0, len(chassis.samples))


@pytest.mark.parametrize("levels", [SET, RESET], ids=["SET", "RESET"])
def test_a_row_sees_its_gate_first_and_last_and_the_pulse_for_its_width(
    chassis: Chassis, board: NiPxi, levels: Any
) -> None:
    cells = Cells.of([(0, 2, 1), (0, 2, 3)])
    board.execute(pulse(cells, **levels), 1)
    cycles = chassis.played()
    assert len(cycles) == 2 + 10 + 2 + 1
    bl, sl = levels.get("bl_v", 0.0), levels.get("sl_v", 0.0)
    gate_only = dict.fromkeys(PINS, 0.0) | {"WL_2": levels["wl_v"]}
    # Unselected bit lines follow the source line: cells that share the gate see no voltage.
    during = gate_only | {"SL_2": sl} | {b: bl if b in ("BL_1", "BL_3") else sl for b in BL}
    assert cycles[:2] == cycles[12:14] == [gate_only] * 2
    assert cycles[2:12] == [during] * 10
    assert cycles[14] == dict.fromkeys(PINS, 0.0)


def test_rows_come_one_after_the_other_and_their_gates_never_overlap(
    chassis: Chassis, board: NiPxi
) -> None:
    board.execute(pulse(ALL, **SET), 1)
    open_gates = [[w for w in WL if cycle[w]] for cycle in chassis.played()]
    assert all(len(gates) <= 1 for gates in open_gates)
    assert [g[0] for g in open_gates if g] == [w for w in WL for _ in range(14)]


def test_a_pin_that_would_need_two_levels_takes_a_second_burst(
    chassis: Chassis, board: NiPxi
) -> None:
    cells = Cells.of([(0, 0, 0), (0, 1, 1)])
    both = pulse(cells, bl_v=3.0, sl_v=1.0, wl_v=2.5, width_s=1e-6)
    board.execute(both, 1)
    assert chassis.names.count("burst_pattern") == 2
    chassis.log.clear()
    board.execute(pulse(ALL, bl_v=3.0, sl_v=1.0, wl_v=2.5, width_s=1e-6), 2)
    assert chassis.names.count("burst_pattern") == 1


def test_grounded_bit_lines_stay_at_zero(chassis: Chassis, board: NiPxi) -> None:
    cells = Cells.of([(0, 0, 0)])
    board.execute(pulse(cells, **SET, unselected=Scheme.GROUNDED), 1)
    assert {b for cycle in chassis.played() for b in BL if cycle[b]} == {"BL_0"}


@pytest.mark.parametrize("along", ["column", "common"])
def test_other_source_lines(mocker: MockerFixture, make: Callable[..., NiPxi], along: Any) -> None:
    pins = SL if along == "column" else SL[:1]
    chassis = Chassis(mocker, sl=pins)
    board = make(geometry=Geometry(1, 4, 4, "1T1R", along), sl=pins)
    board.connect()
    board.arm()
    board.execute(pulse(Cells.of([(0, 1, 2)]), **RESET), 1)
    names = [*BL, *pins, *WL]
    during = chassis.samples[5]
    high = {p for k, p in enumerate(names) if during >> (len(names) - 1 - k) & 1}
    assert high == {"BL_0", "BL_1", "BL_3", "WL_1", *pins}


def test_levels_are_sent_only_where_they_change(chassis: Chassis, board: NiPxi) -> None:
    board.execute(pulse(ALL, **SET), 1)
    chassis.log.clear()
    board.execute(pulse(ALL, **SET), 2)
    assert "configure_voltage_levels" not in chassis.names


# Readings


def test_unselected_word_lines_are_levels_of_their_pins(chassis: Chassis, board: NiPxi) -> None:
    some = Cells.of([(0, 0, 1), (0, 2, 3)])
    board.execute(pulse(some, **SET, unselected_wl_v=-0.5), 1)
    seen = {tuple(volts[w] for w in WL) for volts in chassis.bursts}
    idle = -0.5
    assert seen == {(1.5, idle, idle, idle), (idle, idle, 1.5, idle), (idle,) * 4}
    for volts in chassis.bursts:
        # Lines move while the gates of their row alone stands.
        assert not any(volts[p] for p in (*BL, *SL)) or max(volts[w] for w in WL) == 1.5
    # Afterwards they stand at 0 V again, and the next burst is told nothing new but its own.
    assert all(chassis.low[w] == 0.0 for w in WL)
    chassis.log.clear()
    board.execute(pulse(some, **SET), 2)
    assert "configure_voltage_levels" not in chassis.names
    assert {v for volts in chassis.bursts[-4:] for v in (volts[w] for w in WL)} == {0.0, 1.5}


def test_reads_hold_unselected_word_lines_and_the_body(
    chassis: Chassis, make: Callable[..., NiPxi]
) -> None:
    board = make(body=BODY)
    board.connect()
    board.arm()
    assert board.capabilities.step_extras == {"body_v", "unselected_wl_v"}
    chassis.read_at.clear()
    step = replace(READ, unselected_wl_v=-0.4, body_v=-1.0)
    result = board.execute(read(Cells.of([(0, 0, 0), (0, 3, 1)]), step), 1)
    assert result.conductance_s.ravel() == pytest.approx(chassis.g[[0, 3], [0, 1]])
    gates = [[volts[w] for w in WL] for volts in chassis.read_at]
    assert gates == [[1.5, -0.4, -0.4, -0.4], [-0.4, -0.4, -0.4, 1.5]]
    assert [volts["body"] for volts in chassis.read_at] == [-1.0, -1.0]
    assert not any(chassis.volts[pin] for pin in PINS)
    assert chassis.properties[BODY, "voltage_level"] == -0.5


def test_the_body_moves_before_gates_and_after_them_and_only_where_it_changes(
    chassis: Chassis, make: Callable[..., NiPxi]
) -> None:
    board = make(body=BODY)
    board.connect()
    board.arm()
    chassis.log.clear()
    steps = Step(2.0, 0.0, 1.5, 1e-5, body_v=-1.0), replace(READ, body_v=-1.0), READ
    board.execute(Apply(ALL, steps), 1)
    kinds = ("set voltage_level", "burst_pattern", "ppmu_measure")
    order = [(what, details[-1]) for what, details in chassis.log if what in kinds]
    told = [(what, value) if what == kinds[0] else what for what, value in order]
    reads = [kinds[2]] * 4
    assert told == [(kinds[0], -1.0), kinds[1], *reads, (kinds[0], -0.5), *reads]


def test_a_body_that_is_not_reached_ends_with_all_off(
    chassis: Chassis, make: Callable[..., NiPxi]
) -> None:
    board = make(body=BODY)
    board.connect()
    board.arm()
    chassis.stuck[BODY] = -0.5
    with pytest.raises(UnknownOutcomeError, match=r"reads -0\.5 V, it should be at -1 V"):
        board.execute(pulse(ALL, **SET, body_v=-1.0), 1)
    chassis.stuck.clear()
    assert chassis.is_off


def test_a_body_at_rest_counts_in_the_limits(chassis: Chassis, make: Callable[..., NiPxi]) -> None:
    board = make(body=BODY)
    board.connect()
    board.arm()
    chassis.log.clear()
    # It stands at -0.5 V, and the gate 3.8 V above ground.
    with pytest.raises(LimitError, match=r"WL above the lower of BL, SL and body 4\.3 V"):
        board.execute(pulse(ALL, bl_v=2.0, wl_v=3.8, width_s=1e-5), 1)
    assert not chassis.log


def test_a_row_is_one_measurement(chassis: Chassis, board: NiPxi) -> None:
    result = board.execute(read(ALL, READ), 1)
    np.testing.assert_allclose(result.last_s, chassis.g.ravel())
    assert (result.status == Status.OK).all()
    assert chassis.names.count("ppmu_measure") == 4
    assert result.pulses.sum() == 0
    assert chassis.properties["BL_0", "ppmu_aperture_time"] == 5e-4
    assert not any(chassis.volts[pin] for pin in PINS)


def test_the_order_of_cells_is_kept(chassis: Chassis, board: NiPxi) -> None:
    cells = Cells.of([(0, 3, 2), (0, 0, 1), (0, 3, 0)])
    result = board.execute(read(cells, READ), 1)
    np.testing.assert_allclose(result.last_s, chassis.g[[3, 0, 3], [2, 1, 0]])


def test_a_current_out_of_the_range_is_no_conductance(chassis: Chassis, board: NiPxi) -> None:
    chassis.g[1, 2] = 1e-3
    result = board.execute(read(ALL, READ), 1)
    assert result.status[6, 0] == Status.OVER_RANGE
    assert np.isnan(result.conductance_s[6, 0])


def test_cells_that_met_the_stop_condition_take_no_more(chassis: Chassis, board: NiPxi) -> None:
    ramp = sweep(
        ALL, "bl", [1.0, 1.5, 2.0], wl_v=1.5, width_s=1e-5, read=READ, stop=Stop(above_s=25e-6)
    )
    result = board.execute(ramp, 1)
    met = chassis.g.ravel() >= 25e-6
    assert result.pulses.tolist() == np.where(met, 1, 3).tolist()
    assert chassis.names.count("burst_pattern") == 3


# What is refused before anything moves


@pytest.mark.parametrize(
    ("operation", "kind", "says"),
    [
        (pulse(ALL, bl_v=9.0, wl_v=1.0, width_s=1e-6), LimitError, "BL"),
        (pulse(ALL, bl_v=2.0, wl_v=1.0, width_s=1.5e-6), ConfigError, "periods of 1e-06 s"),
        (pulse(ALL, bl_v=2.0, wl_v=1.0, width_s=1e-6, unselected=Scheme.HALF), BenchError, "half"),
        (pulse(ALL, **SET, compliance_a=1e-4), ConfigError, "compliance"),
        (read(ALL, Step(0.2, 0.0, 1.5, 1e-6, "current")), ConfigError, "a reading of 1e-06 s"),
        (read(ALL, Step(0.2, 0.0, 1.5, 5e-4, "gate")), ConfigError, "gate current"),
        (read(ALL, Step(1.0, 0.0, 1.5, 5e-4, "current")), ConfigError, "read after each pulse"),
        (pulse(ALL, bl_v=np.linspace(1, 2, 16), wl_v=1.0, width_s=1e-6), ConfigError, "a batch"),
        (Apply(ALL, (Step(None, 0.0, 1.0, 1e-6),)), ConfigError, "floating"),
        (Apply(ALL, (Step(2.0, 0.0, 1.0, 1e-6, body_v=0.0),)), ConfigError, "body_v"),
    ],
)
def test_what_the_chassis_cannot_do_is_refused_before_anything_moves(
    chassis: Chassis, board: NiPxi, operation: Any, kind: Any, says: str
) -> None:
    with pytest.raises(kind, match=says):
        board.execute(operation, 1)
    assert chassis.log == []


def test_a_gate_that_stands_before_its_lines_keeps_its_limit_alone(
    chassis: Chassis, make: Callable[..., NiPxi]
) -> None:
    board = make()
    board.limits = LIMITS.model_copy(update={"gate_over_v": 2.0})
    board.connect()
    board.arm()
    chassis.log.clear()
    with pytest.raises(ConfigError, match=r"WL of 3 V, which stands alone"):
        board.execute(pulse(ALL, bl_v=1.5, sl_v=1.2, wl_v=3.0, width_s=1e-5), 1)
    assert chassis.log == []


def test_switching_off_what_was_never_reached_is_no_success(
    chassis: Chassis, make: Callable[..., NiPxi]
) -> None:
    board = make()
    with pytest.raises(LinkError, match="not connected"):
        board.safe_off()
    board.connect()
    # A pin map that does not load leaves pins without names: nobody knows what they do.
    chassis.fails = "load_pin_map"
    with pytest.raises(InstrumentError, match="lost its mind"):
        board.arm()
    chassis.fails = "ppmu_source"
    with pytest.raises(InstrumentError, match="not confirmed off"):
        board.safe_off()


def test_nothing_runs_before_arming(chassis: Chassis, make: Callable[..., NiPxi]) -> None:
    board = make()
    board.connect()
    with pytest.raises(InstrumentError, match="not armed"):
        board.execute(read(ALL, READ), 1)


# Faults


OF_A_READ = (
    "set ppmu_voltage_level",
    "set ppmu_aperture_time",
    "ppmu_source",
    "ppmu_measure",
)
OF_A_PULSE = (
    "configure_voltage_levels",
    "write_source_waveform_broadcast",
    "write_sequencer_register",
    "burst_pattern",
    "is_done",
)


@pytest.mark.parametrize("call", OF_A_READ)
def test_a_fault_in_a_reading_leaves_all_off_and_tells_its_code(
    chassis: Chassis, board: NiPxi, call: str
) -> None:
    chassis.fails, chassis.fails_times = call, 1
    with pytest.raises(InstrumentError, match=r"lost its mind.*outputs are off") as caught:
        board.execute(read(ALL, READ), 7)
    assert caught.value.code == -1074130000
    assert "operation 7" in caught.value.command
    assert caught.value.outputs_off
    assert chassis.is_off
    # The next operation switches on again by itself.
    np.testing.assert_allclose(board.execute(read(ALL, READ), 8).last_s, chassis.g.ravel())


@pytest.mark.parametrize("call", OF_A_PULSE)
def test_a_fault_in_a_pulse_is_an_unknown_outcome_with_all_off(
    chassis: Chassis, board: NiPxi, call: str
) -> None:
    chassis.fails, chassis.fails_times = call, 1
    with pytest.raises(UnknownOutcomeError, match="may have been carried out") as caught:
        board.execute(pulse(ALL, **SET), 7)
    assert caught.value.outputs_off
    assert chassis.is_off


@pytest.mark.parametrize(
    "call",
    [
        "load_pin_map",
        "load_specifications_levels_and_timing",
        "apply_levels_and_timing",
        "get_time_set_period",
        "unload_all_patterns",
        "load_pattern",
        "create_source_waveform_parallel",
        "configure_voltage_levels",
        "write_static",
        "set selected_function",
        "abort",
        "ppmu_source",
        "connect",
        "wait_for_debounce",
        "can_connect",
        "set output_function",
        "set current_limit",
        "initiate",
        "measure",
    ],
)
def test_a_fault_while_arming_is_told_and_leaves_all_off(
    chassis: Chassis, make: Callable[..., NiPxi], call: str
) -> None:
    board = make()
    board.connect()
    chassis.fails, chassis.fails_times = call, 1
    with pytest.raises(InstrumentError, match="lost its mind") as caught:
        board.arm()
    assert caught.value.code == -1074130000
    assert not any(chassis.volts.values())
    assert not chassis.joined
    chassis.fails = ""
    board.safe_off()


@pytest.mark.parametrize(
    "call", ["abort", "ppmu_source", "set selected_function", "disconnect_all"]
)
def test_a_fault_that_stays_while_switching_off_is_said_loudly(
    chassis: Chassis, board: NiPxi, call: str
) -> None:
    chassis.fails = call
    with pytest.raises(InstrumentError, match=r"outputs are not confirmed off.*lost its mind"):
        board.safe_off()
    # The other parts were switched off all the same.
    assert not chassis.properties[BODY, "output_enabled"]


def test_a_ctrl_c_while_switching_off_keeps_nothing_on(
    chassis: Chassis, board: NiPxi, monkeypatch: pytest.MonkeyPatch
) -> None:
    def impatient() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(board, "_stop_burst", impatient)
    with pytest.raises(InstrumentError, match="not confirmed off: KeyboardInterrupt"):
        board.safe_off()
    assert chassis.is_off


def test_outputs_that_stay_on_after_an_error_are_said_loudly(
    chassis: Chassis, board: NiPxi
) -> None:
    chassis.fails = "set selected_function"
    chassis.busy = 1 << 30
    with pytest.raises(UnknownOutcomeError, match="OUTPUTS COULD NOT BE SWITCHED OFF") as caught:
        board.execute(pulse(ALL, **SET), 1)
    assert caught.value.outputs_off is False


def test_safe_off_is_verified(chassis: Chassis, board: NiPxi) -> None:
    board.safe_off()
    assert chassis.is_off
    board.arm()
    chassis.stuck["WL_1"] = 1.2
    with pytest.raises(InstrumentError, match=r"pin WL_1 reads 1\.2 V at 0 V.*switch the chassis"):
        board.safe_off()


def test_lines_go_off_before_supplies_and_relays_open_last(chassis: Chassis, board: NiPxi) -> None:
    board.safe_off()
    names = chassis.names
    at = [names.index(n) for n in ("set selected_function", "set output_enabled", "disconnect_all")]
    assert at == sorted(at)


def test_a_burst_that_never_ends_is_an_error(chassis: Chassis, board: NiPxi) -> None:
    chassis.busy = 1 << 30
    with pytest.raises(UnknownOutcomeError, match="is not done after"):
        board.execute(pulse(ALL, **SET), 1)
    assert chassis.is_off


def test_an_abort_stops_a_burst_and_switches_off(chassis: Chassis, board: NiPxi) -> None:
    chassis.busy = 1 << 30

    def cancel(*_: Any) -> bool:
        board.cancel.set()
        return False

    chassis.digital.is_done.side_effect = cancel
    with pytest.raises(AbortedError, match="outputs are off") as caught:
        board.execute(pulse(ALL, **SET), 1)
    assert caught.value.outputs_off
    assert chassis.is_off


def test_a_measurement_of_the_wrong_size_is_no_reading(
    chassis: Chassis, board: NiPxi, mocker: MockerFixture
) -> None:
    mocker.patch.object(chassis, "_ppmu_measure", return_value=[0.0] * 12)
    with pytest.raises(LinkError, match="12 currents of 4 pins"):
        board.execute(read(ALL, READ), 1)


def test_a_wait_drives_nothing_and_can_be_aborted(chassis: Chassis, board: NiPxi) -> None:
    board.execute(Wait(0.0), 1)
    assert chassis.log == []
    threading.Timer(0.05, board.cancel.set).start()
    with pytest.raises(AbortedError, match="nothing is driven"):
        board.execute(Wait(60.0), 2)


def test_wear_and_turns_are_counted(chassis: Chassis, board: NiPxi) -> None:
    assert board.wear() == "12 cycles of 2 relays, most of one 7"
    before = board.transactions
    board.execute(pulse(ALL, **SET), 1)
    assert board.transactions - before == 1
    before = board.transactions
    board.execute(read(ALL, READ), 2)
    # Two turns a row, and the lines and gates once up and once down.
    assert board.transactions - before <= 2 * 4 + 4


def test_closing_twice_is_safe_and_never_raises(chassis: Chassis, board: NiPxi) -> None:
    chassis.fails = "close"
    board.close()
    board.close()
    with pytest.raises(LinkError, match="not connected"):
        _ = board.capabilities


# NI-RRAM's operations

EXAMPLES = Path(__file__).parents[2] / "examples"
BENCH = load_bench_file(EXAMPLES / "bench-ni-pxi.toml")
OPERATIONS = {
    # protocol, what every cell is before (S), pulses that no cell answers to
    "form": ("forming", 1e-9, 4 * 26),
    "set": ("ispp", 10e-6, 11),
    "reset": ("ispp", 200e-6, 16),
    "read": ("read-map", 50e-6, 0),
}


def carried_out(name: str, chassis: Chassis, config: NiPxiConfig) -> Any:
    """What the recipe of an operation gives on the chassis of the example."""
    recipe = load_recipe(EXAMPLES / f"recipe-ni-rram-{name}.toml")
    (step,) = recipe.steps
    assert step.protocol_name == OPERATIONS[name][0]
    board = NiPxi(config, BENCH.chip.geometry, BENCH.limits)
    board.connect()
    board.arm()
    engine = Engine(board, BENCH.chip.geometry, BENCH.limits, None)
    setting = Setting(
        BENCH.chip.geometry, BENCH.limits, BENCH.read.step, board.capabilities, folder=EXAMPLES
    )
    chassis.log.clear()
    outcome = engine.run(step.protocol.run(setting))
    board.safe_off()
    assert not any(chassis.volts[pin] for pin in chassis.pins)
    return outcome


@pytest.fixture
def config(tmp_path: Path) -> NiPxiConfig:
    """The example's, with files that are there."""
    settings = dict(BENCH.driver.settings)
    for key in ("pin_map", "levels", "timing", "pattern", "specifications"):
        given = settings[key]
        names = given if isinstance(given, list) else [given]
        files = [str(tmp_path / Path(one).name) for one in names]
        for file in files:
            Path(file).write_bytes(b"")
        settings[key] = files if isinstance(given, list) else files[0]
    return NiPxiConfig.model_validate(settings | {"settle_s": 0.0})


@pytest.fixture
def example(mocker: MockerFixture, config: NiPxiConfig) -> Chassis:
    chassis = Chassis(mocker, config.bl, config.sl, config.wl, tuple(config.supplies))
    chassis.along_columns = True
    return chassis


@pytest.mark.parametrize("name", list(OPERATIONS))
def test_an_operation_of_ni_rram_is_one_recipe_that_the_chassis_carries_out(
    name: str, example: Chassis, config: NiPxiConfig
) -> None:
    _, before_s, pulses = OPERATIONS[name]
    example.g[:] = before_s
    carried_out(name, example, config)
    # No cell answers: every ramp goes to its end, one burst of all 64 cells a pulse.
    assert example.names.count("burst_pattern") == pulses
    assert example.names.count("ppmu_measure") % 8 == 1  # one of all pins, as they go off


def test_cells_form_each_at_its_own_volts(example: Chassis, config: NiPxiConfig) -> None:
    example.g[:] = 1e-9
    example.sets_at[:] = np.linspace(1.55, 2.85, 64).reshape(8, 8)
    outcome = carried_out("form", example, config)
    assert (outcome.formed, outcome.not_formed) == (64, 0)
    assert outcome.median_v == pytest.approx(np.median(example.sets_at), abs=0.1)


def test_cells_set_each_at_its_own_volts_and_leave_the_others_alone(
    example: Chassis, config: NiPxiConfig
) -> None:
    example.g[:] = 10e-6
    example.g[2, 5] = 120e-6  # conducts already: no pulse may reach it
    example.sets_at[:] = np.linspace(1.55, 2.45, 64).reshape(8, 8)
    example.sets_at[2, 5] = example.resets_at[2, 5] = 0.3
    outcome = carried_out("set", example, config)
    assert (outcome.cells, outcome.inside) == (64, 64)
    assert example.g[2, 5] == 120e-6


def test_cells_reset_each_at_its_own_volts_and_leave_the_others_alone(
    example: Chassis, config: NiPxiConfig
) -> None:
    example.g[:] = 120e-6
    example.g[6, 1] = 20e-6  # is there already: no pulse may reach it
    example.resets_at[:] = np.linspace(2.05, 3.45, 64).reshape(8, 8)
    example.sets_at[6, 1] = example.resets_at[6, 1] = 0.3
    outcome = carried_out("reset", example, config)
    assert (outcome.cells, outcome.inside) == (64, 64)
    assert example.g[6, 1] == 20e-6


@pytest.mark.parametrize("name", list(OPERATIONS))
def test_an_operation_of_ni_rram_can_be_planned(name: str, tmp_path: Path) -> None:
    bench = BENCH.model_copy(
        update={"chip": BENCH.chip.model_copy(update={"ledger": str(tmp_path / "a.ledger.npy")})}
    )
    forecast = plan_recipe(EXAMPLES / f"recipe-ni-rram-{name}.toml", bench, chips=0)
    assert not forecast.ended
    assert forecast.steps[0].reads >= 64
