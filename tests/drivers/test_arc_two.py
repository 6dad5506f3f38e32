"""The ArC TWO driver against the signatures of its maker's library, mocked: the library does
nothing without its hardware.
"""

from __future__ import annotations

import builtins
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
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
from rram_hil.drivers.arc_two import BITS, WORDS, ArcTwo, ArcTwoConfig, VoltageRamp
from rram_hil.drivers.dialects import maker_library
from rram_hil.errors import (
    AbortedError,
    ConfigError,
    InstrumentError,
    LimitError,
    LinkError,
    UnknownOutcomeError,
)

pyarc2 = pytest.importorskip(
    "pyarc2", reason='ArC TWO is tested where pyarc2 is installed (pip install "rram-hil[arc2]")'
)

GEOMETRY = Geometry(1, 3, 32, "1R")
ALL = Cells.all(GEOMETRY)
LIMITS = Limits(
    bl_v=4.0,
    sl_v=4.0,
    wl_v=4.0,
    cell_v=4.0,
    gate_over_v=4.0,
    half_select_v=4.0,
    read_v=0.3,
    current_a=1e-3,
    energy_j=1.0,
    width_s=10.0,
    pulses_per_cell=100000,
)
READ = Step(0.2, 0.0, 0.0, 1e-6, "current")
ASCENDING = sorted(BITS)


class PanicException(BaseException):
    """As a panic of the library's Rust core reaches Python."""


@pytest.fixture
def firmware(tmp_path: Path) -> Path:
    path = tmp_path / "efm.bin"
    path.write_bytes(b"\0")
    return path


@pytest.fixture
def arc(mocker: MockerFixture) -> Any:
    """The instrument that the library would open, each method checked against the library's own
    signature.
    """
    mocked = mocker.create_autospec(pyarc2.Instrument, instance=True)
    mocked.busy.return_value = False
    mocked.vread_channels.return_value = [0.0] * 64
    mocked.pick_one.return_value = None
    # 1 uS a bit channel number, at the volts of the slice; the sign as the amplifier has it.
    mocked.read_slice.side_effect = lambda chan, volts: (
        -np.array(ASCENDING, dtype="f4") * 1e-6 * volts
    )
    mocked.read_slice_masked.side_effect = lambda chan, mask, volts: np.where(
        np.isin(ASCENDING, mask), np.array(ASCENDING) * 1e-6 * volts, np.nan
    ).astype("f4")
    mocker.patch.object(pyarc2, "find_ids", return_value=[7])
    mocker.patch.object(pyarc2, "Instrument", autospec=True, return_value=mocked)
    return mocked


@pytest.fixture
def make(firmware: Path) -> Callable[..., ArcTwo]:
    return lambda **keys: ArcTwo(
        ArcTwoConfig(**({"firmware": str(firmware), "timeout_s": 0.1} | keys)), GEOMETRY, LIMITS
    )


@pytest.fixture
def board(arc: Any, make: Callable[..., ArcTwo]) -> Iterator[ArcTwo]:
    made = make()
    made.connect()
    made.arm()
    arc.reset_mock()
    yield made
    made.close()


def test_without_the_library_there_is_one_clear_line(
    mocker: MockerFixture, make: Callable[..., ArcTwo], monkeypatch: pytest.MonkeyPatch
) -> None:
    mocker.patch.object(
        maker_library, "import_module", side_effect=ImportError("No module named 'pyarc2'")
    )
    with pytest.raises(ConfigError, match=r"rram-hil\[arc2\]") as caught:
        make().connect()
    assert "\n" not in str(caught.value)


def test_the_library_is_imported_when_it_is_needed(
    monkeypatch: pytest.MonkeyPatch, make: Callable[..., ArcTwo]
) -> None:
    real = builtins.__import__

    def refuses(name: str, *rest: Any) -> Any:
        assert name != "pyarc2"
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", refuses)
    make()


def test_connect_finds_the_instrument_and_opens_nothing(
    arc: Any, make: Callable[..., ArcTwo]
) -> None:
    board = make()
    identity = board.connect()
    assert (identity.model, identity.serial, identity.firmware) == ("ArC TWO", "7", "efm.bin")
    pyarc2.Instrument.assert_not_called()
    assert not arc.method_calls


@pytest.mark.parametrize(
    ("there", "keys", "kind", "text"),
    [
        ([], {}, LinkError, "none"),
        ([1, 2], {}, ConfigError, "several"),
        ([1, 2], {"id": 3}, LinkError, "id 3"),
        (RuntimeError("usb"), {}, LinkError, "usb"),
    ],
)
def test_a_missing_or_doubtful_instrument_is_named(
    mocker: MockerFixture,
    make: Callable[..., ArcTwo],
    there: Any,
    keys: Any,
    kind: type[Exception],
    text: str,
) -> None:
    found = {"side_effect": there} if isinstance(there, Exception) else {"return_value": there}
    mocker.patch.object(pyarc2, "find_ids", **found)
    with pytest.raises(kind, match=text):
        make(**keys).connect()


def test_arm_loads_the_firmware_sets_the_range_and_grounds(
    arc: Any, make: Callable[..., ArcTwo], firmware: Path
) -> None:
    board = make()
    with pytest.raises(LinkError):
        board.arm()
    board.connect()
    with pytest.raises(InstrumentError, match="not armed"):
        board.execute(read(ALL), 1)
    board.arm()
    pyarc2.Instrument.assert_called_once_with(7, str(firmware), True)
    assert arc.set_channel_range.call_args.args[1] == pyarc2.OutputRange.STD
    arc.finalise_operation.assert_any_call(pyarc2.IdleMode.HardGnd, pyarc2.ControlMode.Internal)
    arc.vread_channels.assert_called_once()


def test_an_instrument_that_panics_when_opened_is_a_link_error(
    mocker: MockerFixture, arc: Any, make: Callable[..., ArcTwo]
) -> None:
    board = make()
    board.connect()
    mocker.patch.object(pyarc2, "Instrument", side_effect=PanicException("unwrap"))
    with pytest.raises(LinkError, match="unwrap"):
        board.arm()
    with pytest.raises(InstrumentError):
        board.execute(read(ALL), 1)


def test_a_whole_row_is_one_slice_and_currents_go_to_their_columns(arc: Any, board: ArcTwo) -> None:
    result = board.execute(read(ALL), 1)
    assert [c.args for c in arc.read_slice.call_args_list] == [(WORDS[r], 0.2) for r in range(3)]
    expected = np.array(BITS)[ALL.column] * 1e-6
    np.testing.assert_allclose(result.conductance_s[:, 0], expected, rtol=1e-6)
    np.testing.assert_allclose(result.current_a[:, 0], 0.2 * expected, rtol=1e-6)
    assert np.all(result.status == Status.OK)
    assert board.transactions == 3


def test_a_part_of_a_row_is_a_masked_slice_for_each_read_voltage(arc: Any, board: ArcTwo) -> None:
    cells = ALL[[5, 40, 3]]
    volts = np.array([0.2, 0.2, -0.1])
    result = board.execute(Apply(cells, (Step(volts, 0.0, 0.0, 1e-6, "current"),)), 1)
    asked = [
        (c.args[0], c.args[1].tolist(), c.args[2]) for c in arc.read_slice_masked.call_args_list
    ]
    assert asked == [
        (WORDS[0], [BITS[3]], -0.1),
        (WORDS[0], [BITS[5]], 0.2),
        (WORDS[1], [BITS[8]], 0.2),
    ]
    expected = np.array(BITS)[[5, 8, 3]] * 1e-6
    np.testing.assert_allclose(result.conductance_s[:, 0], expected, rtol=1e-6)
    np.testing.assert_allclose(result.current_a[:, 0], volts * expected, rtol=1e-6)
    arc.read_slice.assert_not_called()


def test_pulses_of_a_step_are_queued_and_executed_at_once(arc: Any, board: ArcTwo) -> None:
    cells = ALL[:4]
    volts = np.array([1.0, -1.5, 0.2, 2.0])
    result = board.execute(Apply(cells, (Step(volts, 0.0, 0.0, 90e-9), READ), Scheme.HALF), 1)
    assert [c.args for c in arc.pulse_one.call_args_list] == [
        (WORDS[0], BITS[k], float(volts[k]), 90) for k in range(4)
    ]
    names = [c[0] for c in arc.method_calls]
    # From 500 ms on nothing but grounding ends a pulse.
    assert names == ["pulse_one", "ground_all_fast"] * 4 + ["execute", "busy", "read_slice_masked"]
    assert result.pulses.tolist() == [1, 1, 0, 1]


@pytest.mark.parametrize(
    ("width_s", "nanos"), [(40e-9, 40), (1.15e-7, 115), (1e-3, 1_000_000), (0.29, 290_000_000)]
)
def test_widths_are_rounded_to_nanoseconds_not_cut(
    arc: Any, board: ArcTwo, width_s: float, nanos: int
) -> None:
    board.execute(pulse(ALL[:1], bl_v=1.0, wl_v=0.0, width_s=width_s, unselected=Scheme.HALF), 1)
    assert arc.pulse_one.call_args.args[3] == nanos


def test_a_cell_that_met_its_stop_takes_no_further_pulse(arc: Any, board: ArcTwo) -> None:
    result = board.execute(
        sweep(
            ALL[:4],
            "bl",
            [1.0, 2.0],
            width_s=1e-6,
            read=READ,
            stop=Stop(above_s=14.5e-6),
            unselected=Scheme.HALF,
        ),
        1,
    )
    # Bits 15 and 32 conduct 15 and 32 uS, 14 and 33 stand below and above.
    assert result.pulses.tolist() == [1, 1, 2, 1]
    assert result.status[:, 1].tolist() == [
        Status.NOT_RUN,
        Status.NOT_RUN,
        Status.OK,
        Status.NOT_RUN,
    ]


def test_readings_that_are_none_are_told(arc: Any, make: Callable[..., ArcTwo]) -> None:
    board = make(largest_a=5e-6)
    board.connect()
    board.arm()
    currents = np.full(32, 1e-6)
    currents[:3] = [np.nan, np.inf, -6e-6]
    arc.read_slice.side_effect = lambda chan, volts: currents
    result = board.execute(read(ALL[:32]), 1)
    status = dict(zip(np.array(BITS), result.status[:, 0].tolist(), strict=True))
    assert [status[k] for k in range(4)] == [
        Status.NOT_A_NUMBER,
        Status.OVER_RANGE,
        Status.OVER_RANGE,
        Status.OK,
    ]
    assert np.isnan(result.conductance_s[result.status != Status.OK]).all()


@pytest.mark.parametrize(
    ("step", "kind"),
    [
        (Step(1.0, 0.0, 0.0, 1e-6, "current"), ConfigError),
        (Step(0.0, 0.0, 0.0, 1e-6, "current"), ConfigError),
        (Step(0.2, 0.0, 0.0, 1e-6, "gate"), ConfigError),
        (Step(0.2, None, 0.0, 1e-6), ConfigError),
        (Step(1.0, 0.0, 0.0, 30e-9), ConfigError),
        (Step(4.1, 0.0, 0.0, 1e-6), LimitError),
    ],
)
def test_what_it_cannot_do_is_refused_before_anything_is_sent(
    arc: Any, board: ArcTwo, step: Step, kind: type[Exception]
) -> None:
    with pytest.raises(kind):
        board.execute(Apply(ALL, (step,), Scheme.HALF), 1)
    with pytest.raises(ConfigError, match="floating"):
        board.execute(Apply(ALL, (READ,), Scheme.FLOATING), 1)
    assert not arc.method_calls


@pytest.mark.parametrize("error", [RuntimeError("usb"), PanicException("usb")])
def test_a_failure_grounds_and_tells_whether_a_pulse_may_have_been_given(
    arc: Any, board: ArcTwo, error: BaseException
) -> None:
    arc.pulse_one.side_effect = error
    arc.read_slice.side_effect = error
    with pytest.raises(UnknownOutcomeError, match="outputs are off"):
        board.execute(pulse(ALL, bl_v=1.0, wl_v=0.0, width_s=1e-6, unselected=Scheme.HALF), 1)
    arc.finalise_operation.assert_called_with(pyarc2.IdleMode.HardGnd)
    arc.reset_mock()
    with pytest.raises(LinkError, match="gave no pulse") as caught:
        board.execute(read(ALL), 2)
    assert not isinstance(caught.value, UnknownOutcomeError)
    arc.ground_all.assert_called_once()


def test_outputs_that_cannot_be_grounded_are_shouted_about(arc: Any, board: ArcTwo) -> None:
    arc.read_slice.side_effect = RuntimeError("usb")
    arc.ground_all.side_effect = RuntimeError("usb")
    with pytest.raises(LinkError, match="OUTPUTS MAY BE ON"):
        board.execute(read(ALL), 1)


def test_an_interrupt_passes_through_grounded(arc: Any, board: ArcTwo) -> None:
    arc.read_slice.side_effect = KeyboardInterrupt
    with pytest.raises(KeyboardInterrupt):
        board.execute(read(ALL), 1)
    arc.finalise_operation.assert_called_with(pyarc2.IdleMode.HardGnd)


def test_a_busy_instrument_is_given_up_after_its_time_and_on_an_abort_at_once(
    arc: Any, board: ArcTwo
) -> None:
    stress = pulse(ALL[:1], bl_v=1.0, wl_v=0.0, width_s=1e-6, unselected=Scheme.HALF)
    arc.busy.return_value = True
    with pytest.raises(UnknownOutcomeError, match="busy"):
        board.execute(stress, 1)
    arc.busy.side_effect = lambda: not arc.ground_all.called
    arc.reset_mock()
    threading.Timer(0.02, board.cancel.set).start()
    long = pulse(ALL[:1], bl_v=1.0, wl_v=0.0, width_s=10.0, unselected=Scheme.HALF)
    with pytest.raises(AbortedError, match="outputs are off"):
        board.execute(long, 2)
    with pytest.raises(AbortedError):
        board.execute(Wait(5.0), 3)
    with pytest.raises(AbortedError):
        board.execute(read(ALL), 4)


def test_safe_off_reads_every_channel_back(arc: Any, board: ArcTwo) -> None:
    board.safe_off()
    assert arc.vread_channels.call_args.args[0].tolist() == list(range(64))
    for volts in ([0.0] * 63 + [0.5], [0.0] * 63 + [np.nan], []):
        arc.vread_channels.return_value = volts
        with pytest.raises(InstrumentError, match="not confirmed off"):
            board.safe_off()


def test_channels_that_are_no_words_or_bits_are_refused(firmware: Path) -> None:
    for keys in (
        {"words": BITS},
        {"bits": [0, 0]},
        {"words": [64]},
        {"firmware": ""},
        {"words": [16, 17]},
    ):
        with pytest.raises((ValueError, ConfigError)):
            ArcTwo(ArcTwoConfig(**({"firmware": str(firmware)} | keys)), GEOMETRY, LIMITS)  # type: ignore[arg-type]
    with pytest.raises(ConfigError):
        ArcTwo(ArcTwoConfig(firmware=str(firmware)), Geometry(1, 3, 3), LIMITS)
    board = ArcTwo(ArcTwoConfig(firmware=str(firmware.with_name("missing"))), GEOMETRY, LIMITS)
    with pytest.raises(ConfigError, match="missing"):
        board.connect()


class Queue:
    """What the instrument keeps of a sequence: blocks of 64 channels, to be picked one by one."""

    def __init__(self, arc: Any, *left_over: np.ndarray) -> None:
        self.blocks = list(left_over)
        arc.pick_one.side_effect = lambda mode, kind: self.blocks.pop(0) if self.blocks else None

    def fill(self, count: int, volts: float) -> None:
        """Readings that grow by a nanoampere: 1 uS a channel number."""
        self.blocks += [-np.arange(64) * 1e-6 * volts - k * 1e-9 for k in range(count)]


def test_a_read_train_is_one_sequence_a_row_and_keeps_its_order(arc: Any, board: ArcTwo) -> None:
    queue = Queue(arc, np.full(64, 9.0))
    arc.generate_read_train.side_effect = lambda lows, highs, volts, count, *_: queue.fill(
        count, volts
    )
    cells = ALL[[5, 40, 3]]
    found = board.read_train(cells, read_v=0.2, count=4, interval_s=1e-3)
    asked = [
        (c.args[0].tolist(), c.args[1].tolist(), *c.args[2:])
        for c in arc.generate_read_train.call_args_list
    ]
    assert asked == [
        ([WORDS[0]], [BITS[5], BITS[3]], 0.2, 4, 1_000_000, True),
        ([WORDS[1]], [BITS[8]], 0.2, 4, 1_000_000, True),
    ]
    expected = np.array([BITS[5], BITS[8], BITS[3]])[:, None] * 2e-7 + np.arange(4) * 1e-9
    np.testing.assert_allclose(found.current_a, expected)
    np.testing.assert_allclose(found.conductance_s, expected / 0.2)
    assert found.pulses.tolist() == [0, 0, 0]
    assert all(
        c.args == (pyarc2.DataMode.All, pyarc2.ReadType.Current)
        for c in arc.pick_one.call_args_list
    )


def test_a_ramp_reaches_its_last_level_and_is_grounded(arc: Any, board: ArcTwo) -> None:
    queue = Queue(arc)
    arc.generate_ramp.side_effect = lambda *a: queue.fill(round(np.ceil((a[4] - a[2]) / a[3])), 0.2)
    ramp = VoltageRamp(0.2, 1.0, 5, 1e-6, read_v=0.2, pulses_each=3, interpulse_s=2e-6)
    found = board.ramp(ALL[:2], ramp)
    first = arc.generate_ramp.call_args_list[0].args
    assert first[:2] == (WORDS[0], BITS[0])
    assert first[2:5] == pytest.approx((0.2, 0.2, 1.1))
    assert first[5:8] == (1000, 2000, 3)
    assert first[8].voltage() == pytest.approx(0.2)
    assert str(first[9]) == "block"
    assert found.current_a.shape == (2, 5)
    # The first level is no more than a read.
    assert found.pulses.tolist() == [12, 12]
    names = [c[0] for c in arc.method_calls]
    assert names.count("ground_all_fast") == 2
    assert names.index("ground_all_fast") < names.index("execute")
    down = board.ramp(ALL[:1], VoltageRamp(-1.0, -2.0, 3, 1e-6, read_v=0.2))
    assert arc.generate_ramp.call_args.args[2:5] == pytest.approx((-1.0, -0.5, -2.25))
    assert down.current_a.shape == (1, 3)


def test_readings_that_do_not_come_are_a_failure_that_grounds(arc: Any, board: ArcTwo) -> None:
    Queue(arc)
    with pytest.raises(LinkError, match="0 readings") as caught:
        board.read_train(ALL[:1], read_v=0.2, count=4)
    assert not isinstance(caught.value, UnknownOutcomeError)
    with pytest.raises(UnknownOutcomeError, match="outputs are off"):
        board.ramp(ALL[:1], VoltageRamp(0.5, 1.0, 2, 1e-6, read_v=0.2))
    arc.ground_all.assert_called()
    arc.pick_one.side_effect = lambda mode, kind: np.zeros(64)
    with pytest.raises(LinkError, match="nobody asked for"):
        board.read_train(ALL[:1], read_v=0.2, count=4)


def test_a_pulse_on_a_row_goes_to_all_its_cells_at_once(arc: Any, board: ArcTwo) -> None:
    board.pulse_row(ALL[[32, 41]], 1.0, 40e-9)
    channels, timings, preset = arc.pulse_slice_fast_open.call_args.args
    assert channels == [(WORDS[1], -0.5, 0.0), (BITS[0], 0.5, 0.0), (BITS[9], 0.5, 0.0)]
    used = {channel // 8 for channel, _, _ in channels}
    assert timings == [40 if k in used else None for k in range(8)]
    assert preset is True
    for cells, volts, width, kind in (
        (ALL[[0, 32]], 1.0, 1e-6, ConfigError),
        (ALL[:0], 1.0, 1e-6, ConfigError),
        (ALL[:2], 1.0, 0.6, ConfigError),
        (ALL[:2], 4.1, 1e-6, LimitError),
    ):
        with pytest.raises(kind):
            board.pulse_row(cells, volts, width)
    assert arc.pulse_slice_fast_open.call_count == 1


@pytest.mark.parametrize(
    "make_it",
    [
        lambda b: b.read_train(ALL[:1], read_v=0.5, count=4),
        lambda b: b.read_train(ALL[:1], read_v=0.2, count=0),
        lambda b: b.read_train(ALL[:1], read_v=0.2, count=5000),
        lambda b: b.read_train(ALL[:1], read_v=0.2, count=4, interval_s=-1.0),
        lambda b: b.ramp(ALL[:1], VoltageRamp(0.5, 4.1, 4, 1e-6, read_v=0.2)),
        lambda b: b.ramp(ALL[:1], VoltageRamp(0.5, 1.0, 4, 1e-6, read_v=0.5)),
        lambda b: b.ramp(ALL[:1], VoltageRamp(0.5, 1.0, 4000, 1e-6, 0.2, pulses_each=100)),
        lambda b: VoltageRamp(0.5, 0.5, 2, 1e-6, 0.2),
        lambda b: VoltageRamp(0.5, 1.0, 1, 1e-6, 0.2),
        lambda b: VoltageRamp(0.5, 1.0, 2, 1e-6, 0.2, interpulse_s=-1.0),
    ],
)
def test_sequences_beyond_the_limits_are_refused_before_anything_is_sent(
    arc: Any, board: ArcTwo, make_it: Callable[[ArcTwo], object]
) -> None:
    with pytest.raises((ConfigError, LimitError)):
        make_it(board)
    assert not arc.method_calls


def test_logic_and_supplies_are_on_from_the_first_operation_and_off_when_it_is_safe(
    arc: Any, make: Callable[..., ArcTwo]
) -> None:
    board = make(logic=[0, 5], logic_v=1.8, supplies={"SELH": 3.3, "ARB1": -1.0})
    board.connect()
    board.arm()
    off = [(pyarc2.AuxDACFn.SELH, 0.0), (pyarc2.AuxDACFn.ARB1, 0.0)]
    on = [(pyarc2.AuxDACFn.SELH, 3.3), (pyarc2.AuxDACFn.ARB1, -1.0)]

    def told() -> tuple[list[Any], list[int]]:
        supplies = [c.args[0] for c in arc.config_aux_channels.call_args_list]
        return [[v for _, v in s] for s in supplies], [
            c.args[0] for c in arc.set_logic.call_args_list
        ]

    values = ([v for _, v in off], [v for _, v in on])
    assert told() == ([values[0]], [0])
    for _ in range(2):
        board.execute(read(ALL), 1)
    assert told() == ([values[0], values[1]], [0, 0b100001])
    arc.set_logic_level.assert_called_once()
    arc.read_slice.side_effect = RuntimeError("usb")
    with pytest.raises(LinkError):
        board.execute(read(ALL), 2)
    assert told()[0][-1] == values[0]
    arc.read_slice.side_effect = lambda chan, volts: np.zeros(32)
    board.execute(read(ALL), 3)
    assert told()[0][-1] == values[1]
    board.safe_off()
    assert (told()[0][-1], told()[1][-1]) == (values[0], 0)


def test_supplies_that_no_limit_allows_or_that_are_none_are_refused(
    make: Callable[..., ArcTwo],
) -> None:
    with pytest.raises(ConfigError, match="ARB2 of 4"):
        make(supplies={"ARB2": 4.5})
    for keys in ({"supplies": {"CSET": 1.0}}, {"logic": [32]}, {"logic_v": 2.5}):
        with pytest.raises(ValueError, match="validation error"):
            make(**keys)
