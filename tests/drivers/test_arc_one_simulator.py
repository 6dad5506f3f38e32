"""The simulated ArC ONE as other hosts see it: raw lines and floats over pyserial, nothing of this
package's driver.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import serial
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rram_hil.array import Geometry, Limits
from rram_hil.drivers.simulated.arc_one import launch, start_alone
from rram_hil.drivers.simulated.server.control import BoardControl
from rram_hil.errors import ConfigError
from rram_hil.hardware.far_side import FarSideRequest
from rram_hil.simulation.config import FaultEntry, Simulation

LOAD_OHM = 2e4
PATIENCE_S = 10.0
"""The laws of cells may be compiled first."""
LIMITS = Limits(
    bl_v=12.0,
    sl_v=12.0,
    wl_v=12.0,
    cell_v=12.0,
    gate_over_v=12.0,
    half_select_v=12.0,
    read_v=0.3,
    current_a=1e-3,
    energy_j=1.0,
    width_s=10.0,
    pulses_per_cell=100000,
)


class Host:
    """What a host does: lines out, floats in."""

    def __init__(self, side: Any) -> None:
        self.control = BoardControl(side.control)
        self.port = serial.serial_for_url(side.settings["port"], timeout=PATIENCE_S)

    def send(self, *lines: object) -> None:
        """All at once: a pause between the lines of a job means something to the board."""
        self.port.write("".join(f"{line}\n" for line in lines).encode())

    def floats(self, count: int) -> np.ndarray:
        return np.frombuffer(self.port.read(4 * count), dtype="<f4")

    def silence(self) -> bool:
        self.port.timeout = 0.1
        try:
            return self.port.read(1) == b""
        finally:
            self.port.timeout = PATIENCE_S

    def init(
        self,
        words: int = 32,
        bits: int = 32,
        session: int = 0,
        sneak_path: int = 0,
        read_v: float = 0.2,
    ) -> bytes:
        self.send("00", "0", 50, words, bits, 2, session, sneak_path, f"{read_v:e}")
        return bytes(self.port.readline())

    def close(self) -> None:
        self.port.close()
        self.control.close()


@pytest.fixture(scope="module")
def resistor() -> Iterator[Host]:
    side = start_alone(load_ohm=LOAD_OHM)
    host = Host(side)
    yield host
    host.close()
    side.stop()


@pytest.fixture
def host(resistor: Host) -> Host:
    resistor.control.clear()
    assert resistor.init() == b"1\n"
    resistor.send("01", 2, 0.2)
    # An answer says that all lines before it have been done.
    resistor.send("1", 1, 1)
    assert resistor.floats(1).size == 1
    return resistor


@pytest.fixture(scope="module")
def array() -> Iterator[Host]:
    simulation = Simulation(read_noise=False, converters=False, device="paper")
    side = launch(FarSideRequest(simulation, Geometry(1, 4, 5, "1R"), LIMITS, "c1", Path(".")))
    host = Host(side)
    yield host
    host.close()
    side.stop()


def test_version_is_two_uint16_even_before_a_session(resistor: Host) -> None:
    resistor.send("00", "999")
    assert np.frombuffer(resistor.port.read(4), dtype="<u2").tolist() == [3, 2]


def test_no_job_is_done_before_a_session_or_in_an_offline_one(resistor: Host) -> None:
    resistor.send("00", 1, 1, 1)
    assert resistor.silence()
    assert resistor.init(session=3) == b"1\n"
    resistor.send(1, 1, 1)
    assert resistor.silence()


@pytest.mark.parametrize("wrong", [{"words": 33}, {"bits": 0}, {"session": 4}, {"read_v": 13.0}])
def test_a_session_that_cannot_be_is_not_confirmed_with_1(
    resistor: Host, wrong: dict[str, Any]
) -> None:
    assert resistor.init(**wrong) != b"1\n"


def test_job_codes_are_strings(host: Host) -> None:
    # Word 5 and bit 7 are no jobs either.
    for code in ("001", "1.0", "+1", "1\r", " 1", "03", "000", ""):
        host.send(code, 5, 7)
    assert host.silence()
    assert host.control.status()["session"] == 0
    host.send("1", 1, 1)
    assert host.floats(1) == pytest.approx([LOAD_OHM])
    host.send("011", 20, 256)
    host.send("1", "1.000000e+00", "32")
    assert host.floats(1) == pytest.approx([LOAD_OHM])
    assert host.control.status()["sneak_path"] == 256


def test_a_job_that_is_not_known_is_told_and_its_arguments_are_no_jobs(host: Host) -> None:
    told = host.control.status()
    host.send("17", 1, 2, 3, 1, 1, "02", 3, 3, "04", "1.0", "1e-6")
    assert host.silence()
    now = host.control.status()
    assert now["jobs"] == told["jobs"]
    assert now["unknown_jobs"].get("17", 0) == told["unknown_jobs"].get("17", 0) + 1
    assert now["lines"] == told["lines"] + 12
    host.send("1", 1, 1)
    assert host.floats(1) == pytest.approx([LOAD_OHM])


def test_lines_of_a_job_that_is_not_done_are_none_of_their_own(host: Host) -> None:
    # Among the arguments stand a "0", an "01" and a "999", which would be jobs even here.
    assert host.init(session=3) == b"1\n"
    host.send("191", 1.0, 1e-6, "0", -1.0, 1e-6, "0", 1e-3, 1, 1, 1, 2, "999", "0", "01", 1)
    host.send("40", 1, 1, 1, 1, 2, "0", "999", "999", "0", "50", "0", 1, 1, 2, 1, 1, "999", "0")
    host.send("161", *["0"] * 9, 1, "999", "999", "33", "0", "0", "0", "0", 1, 1, 1, 1)
    assert host.silence()
    host.send("999")
    assert host.port.read(4) == b"\3\0\2\0"
    assert host.control.status()["session"] == 3


def test_volatility_talks_in_batches_until_the_host_ends_it(host: Host) -> None:
    host.send("33", 1.0, 1e-4, "3.0", "10.0", 2)
    for cell in (1, 2):
        host.send(cell, 1)
        assert host.floats(1) == pytest.approx([LOAD_OHM])
        stamps = []
        for answer in (0, 0, 1):
            for _ in range(3):
                stamps.append(int(host.port.readline()))
                assert host.floats(1) == pytest.approx([LOAD_OHM])
            host.send(answer)
        assert host.floats(1) == pytest.approx([LOAD_OHM])
        assert stamps == sorted(set(stamps))
    assert host.silence()


def test_stdp_takes_waveforms_point_by_point_and_reads_around_each(array: Host) -> None:
    assert array.init(4, 5) == b"1\n"
    before = array.control.pulses()[0]
    array.send("40", 1, 2, 3)
    assert array.floats(3)[2] == 0
    array.send(2)
    for wave in ([(0, 0), (1e-6, 1.0), (3e-6, -1.0), (4e-6, 0)], [(0, 0), (1e-6, 0.0)]):
        array.send(len(wave), *[x for point in wave for x in point])
        assert array.floats(6).size == 6
    assert array.floats(3).size == 3
    assert array.silence()
    taken = array.control.pulses()[0] - before
    assert (taken[1, 2], taken.sum()) == (2, 2)


def test_multi_bias_reads_word_lines_together_and_pulses_them_with_half_on_the_rest(
    array: Host,
) -> None:
    assert array.init(4, 5, sneak_path=1) == b"1\n"
    array.send("50", 1.0, 1e-6, 0.2, 2, 3, 1, 1, 4)
    ohm, volts, _ = array.floats(3)
    truth = array.control.conductance_s()[0]
    assert volts / ohm == pytest.approx(0.2 * (truth[0, 2] + truth[3, 2]), rel=1e-4)
    pulses, seen = array.control.pulses()[0], array.control.truth("half_selected")[0]
    array.send("50", 1.0, 1e-6, 0.2, 2, 3, 2, 1, 4)
    lines = array.floats(2 * 4 * 3).reshape(2, 4, 3)
    assert 1 / lines[0, :, 0] == pytest.approx(truth[:, 2], rel=1e-4)
    taken = array.control.pulses()[0] - pulses
    assert np.argwhere(taken).tolist() == [[0, 2], [3, 2]]
    expected = np.zeros((4, 5))
    expected[[0, 3]] = 1
    expected[1:3, 2] = 1
    expected[[0, 3], 2] = 0
    np.testing.assert_array_equal(array.control.truth("half_selected")[0] - seen, expected)
    assert array.silence()


def test_the_phases_of_multi_state_end_in_lines_of_text(array: Host) -> None:
    def phase() -> tuple[list[tuple[float, ...]], list[tuple[float, ...]], int]:
        told: list[tuple[float, ...]] = []
        states: list[tuple[float, ...]] = []
        while (triplet := tuple(map(float, array.floats(3))))[2] >= 0:
            if triplet[0] < 0:
                states.append(tuple(map(float, array.floats(3))))
            else:
                told.append(triplet)
        return told, states, int(array.port.readline())

    assert array.init(4, 5) == b"1\n"
    # The count is the host's whole list; one device comes with each job all the same.
    array.send("161", 1e-3, 0.1, 0.1, 0.2, 0, 2, 1, 10, 0, 20, 1, 1)
    told, _, status = phase()
    assert (len(told), status) == (2 + 2 * 2 * 3, 1)
    array.send("161", 1e-3, 3.0, 0.5, 4.5, 0, 2, 1, 10, 0, 20, 1, 1)
    _, _, status = phase()
    assert status == 0
    assert [int(array.port.readline()) for _ in range(2)] == [1, 0]
    assert int(array.port.readline()) in (1, -1)
    array.send("162", -1.0, 1e-5, 20, 1, 1)
    for answer in (0, 0, 1):
        assert array.floats(1).size == 1
        array.send(answer)
    assert array.silence()
    for job, swept in (
        ("163", (2, 3, 2, 0, 1, 1e-6, -0.5, -0.5, -2.0, 0, 0)),
        ("164", (2, 3, 2, 0, 1, 1e-6, -1.0, 1e-6, 4e-6, 0, 0)),
        ("165", (2, 1, 1, 3, 2, 0, 1, 1e-6, -2.0, 0, 0)),
    ):
        array.send(job, *swept, 20, 1, 1)
        told, states, status = phase()
        assert status == 0
        assert [int(array.port.readline()) for _ in range(2)] == [0, 0]
        assert len(told) > 6
        assert all(low <= state <= high for state, low, high in states)
    assert array.silence()


def test_all_and_masked_reads_stream_one_float_a_cell(host: Host) -> None:
    host.send("2", 1, 32, 32)
    assert host.floats(1024) == pytest.approx(np.full(1024, LOAD_OHM))
    host.send("2", 2, 32, 32, 3)
    for word, bit in ((1, 1), (5, 7), (32, 32)):
        # A host may wait for each before it names the next.
        host.send(word, bit)
        assert host.floats(1) == pytest.approx([LOAD_OHM])
    assert host.silence()


def test_read_all_has_the_word_outside(array: Host) -> None:
    assert array.init(4, 5) == b"1\n"
    array.send("2", 1, 4, 5)
    found = 1 / array.floats(20).astype(float)
    np.testing.assert_allclose(found, array.control.conductance_s().ravel(), rtol=1e-5)
    array.send("1", 3, 2)
    assert 1 / float(array.floats(1)[0]) == pytest.approx(
        array.control.conductance_s()[0, 2, 1], rel=1e-5
    )


def test_a_cell_that_is_not_there_reads_as_no_number(array: Host) -> None:
    assert array.init(4, 5) == b"1\n"
    array.send("1", 5, 1, "1", 0, 1, "3", 1, 6, "1.0", "1e-6")
    assert np.isnan(array.floats(3)).all()


def test_a_width_that_was_truncated_to_zero_gives_no_pulse(array: Host) -> None:
    assert array.init(4, 5) == b"1\n"
    before = array.control.pulses()[0, 1, 1]
    array.send("3", 2, 2, f"{1.0:f}", f"{90e-9:f}")
    assert array.floats(1).size == 1
    assert array.control.pulses()[0, 1, 1] == before
    array.send("3", 2, 2, f"{1.0:.6e}", f"{90e-9:.6e}")
    assert array.floats(1).size == 1
    assert array.control.pulses()[0, 1, 1] == before + 1


def test_a_selected_cell_stays_closed_until_another_job_selects(array: Host) -> None:
    assert array.init(4, 5) == b"1\n"
    before = array.control.pulses()[0]
    array.send("02", 3, 4, "04", 1.0, 1e-6, "04", 1.0, 1e-6, "1", 1, 1, "04", 1.0, 1e-6)
    assert array.floats(1).size == 1
    array.send("1", 2, 2)
    array.floats(1)
    taken = array.control.pulses()[0] - before
    assert (taken[2, 3], taken[0, 0], taken.sum()) == (2, 1, 3)


def test_half_selected_cells_are_counted_where_they_see_more_than_a_read(array: Host) -> None:
    assert array.init(4, 5, sneak_path=1) == b"1\n"
    before = array.control.truth("half_selected")[0]
    array.send("3", 2, 3, 1.0, 1e-6, "3", 2, 3, 0.5, 1e-6)
    array.floats(2)
    seen = array.control.truth("half_selected")[0] - before
    expected = np.zeros((4, 5))
    expected[1], expected[:, 2] = 1, 1
    expected[1, 2] = 0
    np.testing.assert_array_equal(seen, expected)
    assert array.init(4, 5, sneak_path=256) == b"1\n"
    array.send("3", 2, 3, 1.0, 1e-6)
    array.floats(1)
    np.testing.assert_array_equal(array.control.truth("half_selected")[0] - before, expected)


def test_modules_take_one_device_after_the_other_and_end_each_with_three_zeros(host: Host) -> None:
    host.send("191", 1.0, 1e-6, 0, -1.0, 1e-6, 0, 1e-3, 1, 1, 2, 2)
    for word, bit in ((1, 1), (2, 9)):
        host.send(word, bit)
        found = host.floats(15).reshape(5, 3)
        assert found[:4, 1].tolist() == [1.0, -1.0, 1.0, -1.0]
        assert not found[4].any()
    assert host.silence()


def test_the_curve_tracer_ends_every_cycle(host: Host) -> None:
    host.send("201", 0.3, 0.3, 0.1, 0.1, 1e-3, 0, 0, 0, 3, 0, 2, 0, 1, 4, 4)
    found = host.floats(3 * 3 * 6).reshape(3, 6, 3)
    assert not found[:, 5].any()
    # The level at the top is held once, and no width is told (arc1_docs, "Saving data").
    assert found[:, :5, 1] == pytest.approx(np.tile([0.1, 0.2, 0.3, 0.2, 0.1], (3, 1)))
    assert not found[:, :, 2].any()
    assert host.silence()


def test_the_curve_tracer_holds_a_level_2_ms_longer_than_it_is_told(host: Host) -> None:
    took = []
    for width in (1e-3, 0.0):
        before = host.control.status()["now_s"]
        host.send("201", 0.3, 0.3, 0.1, 0.1, width, 0, 0, 0, 1, 0, 2, 0, 1, 4, 4)
        assert host.floats(3 * 6).size == 18
        took.append(host.control.status()["now_s"] - before)
    assert took[0] - took[1] == pytest.approx(5e-3, rel=0.02)
    assert took[1] > 5 * 2e-3


def test_a_cut_off_of_exactly_10_ua_is_not_taken(host: Host) -> None:
    for cut, top in (("1.000000e-05", 0.5), ("1.010000e-05", 0.3)):
        host.send("201", 0.5001, 0.5, 0.1, 0.1, 1e-3, 0, cut, 0, 1, 0, 2, 1, 1, 1, 1)
        volts = []
        while (triplet := host.floats(3)).any():
            volts.append(float(triplet[1]))
        assert max(volts) == pytest.approx(top)


def test_a_reset_ends_a_stream_and_takes_two_seconds_of_the_board(host: Host) -> None:
    started = host.control.status()["now_s"]
    host.send("191", 1.0, 1e-6, 0, -1.0, 1e-6, 0, 1e-3, 1, 1, 1000000, 1, 1, 1)
    assert host.floats(3).any()
    host.send("00")
    time.sleep(0.1)
    host.port.reset_input_buffer()
    assert host.silence()
    told = host.control.status()
    assert not told["busy"]
    assert not told["outputs_on"]
    assert told["now_s"] - started >= 2.0
    assert host.init() == b"1\n"


def test_virtual_time_counts_lines_bytes_latency_and_samples(host: Host) -> None:
    host.send("999")
    host.port.read(4)
    before = host.control.status()["now_s"]
    host.send("2", 1, 32, 32)
    host.floats(1024)
    took = host.control.status()["now_s"] - before
    assert took == pytest.approx(4e-3 + 1e-3 + 4096 * 11 / 921600 + 1024 * 510.04e-6, rel=1e-3)


def test_a_lost_line_shifts_the_rest_as_on_the_board(host: Host) -> None:
    host.control.inject("line-overrun", "32")
    host.send("2", 1, 32, 32)
    assert host.silence()
    host.send(2)
    assert host.floats(64) == pytest.approx(np.full(64, LOAD_OHM))


def test_faults_are_those_of_a_board_without_frames_and_queue(host: Host) -> None:
    for kind in ("queue-full", "corrupt-request", "reboot-during"):
        with pytest.raises(ConfigError, match="is not one of"):
            host.control.inject(kind)
    host.control.inject("wrong-model", count=1)
    host.send("999")
    assert host.port.readline().startswith(b"ESPRESSO")


@pytest.mark.long
def test_faults_of_a_bench_file_happen_from_the_start() -> None:
    faults = [FaultEntry(kind="drop-reply", on="INIT")]
    simulation = Simulation(faults=faults, transport="socket")
    side = launch(FarSideRequest(simulation, Geometry(1, 4, 5, "1R"), LIMITS, "c2", Path(".")))
    host = Host(side)
    host.port.timeout = 0.5
    assert host.init(4, 5) == b""
    host.port.timeout = PATIENCE_S
    assert host.init(4, 5) == b"1\n"
    host.close()
    side.stop()
    assert not side.is_running()
    with pytest.raises(ConfigError, match="queue-full"):
        launch(
            FarSideRequest(
                Simulation(faults=[FaultEntry(kind="queue-full")]),
                Geometry(1, 4, 5, "1R"),
                LIMITS,
                "c3",
                Path("."),
            )
        )


def test_a_chip_that_the_board_cannot_hold_does_not_start() -> None:
    with pytest.raises(ConfigError, match="1R"):
        launch(FarSideRequest(Simulation(), Geometry(1, 4, 5), LIMITS, "c4", Path(".")))


@pytest.mark.long
def test_noise_falls_with_the_samples_that_a_read_averages() -> None:
    side = launch(
        FarSideRequest(
            Simulation(device="paper"), Geometry(1, 32, 32, "1R"), LIMITS, "c5", Path(".")
        )
    )
    host = Host(side)
    spread = []
    for cycles in (1, 100):
        host.send("00", "0", cycles, 32, 32, 2, 0, 0, 0.2)
        assert host.port.readline() == b"1\n"
        readings = []
        for _ in range(2):
            host.send("2", 1, 32, 32)
            readings.append(1 / host.floats(1024).astype(float))
        spread.append(np.std(readings[0] - readings[1]))
    assert 8 < spread[0] / spread[1] < 12
    host.close()
    side.stop()


ARGUMENTS = ("0", "1", "2", "3", "-1", "0.5", "1e-6", "1e-3", "999", "x", "", "nan", "inf")
"""Some are spelled like jobs, some are no numbers."""
STEPS = ("100", "1", "0", "-1", "x")
"""Of ramps: a board that goes by microvolts is in step, but late."""
COUNTS = ("0", "1", "2", "-1", "x")
"""Of pulses, reads and cycles."""
MODULES = {
    # Job: number of arguments, which of them are steps, which are counts.
    "14": (11, (1, 4), (10,)),
    "141": (12, (1, 4), (11,)),
    "15": (12, (2,), (6, 7, 8)),
    "152": (12, (2,), (6, 7, 8)),
    "191": (10, (), (7, 8, 9)),
    "201": (12, (3,), (8,)),
    "21": (12, (1, 4), (10,)),
    "220": (3, (), (2,)),
}
PLAIN = {"0": 7, "01": 2, "011": 2, "02": 2, "04": 2, "1": 2, "3": 4, "999": 0}
PHASES = {
    "161": (9, (2,), (5, 6)),
    "163": (11, (7,), (0, 1)),
    "164": (11, (7,), (0, 1)),
    "165": (11, (2,), (0, 1, 3)),
}


@st.composite
def jobs(draw: st.DrawFn) -> list[str]:
    """The lines of one job, whole, with any arguments."""

    def some(count: int, steps: tuple[int, ...] = (), counts: tuple[int, ...] = ()) -> list[str]:
        kinds = [
            STEPS if k in steps else COUNTS if k in counts else ARGUMENTS for k in range(count)
        ]
        return [draw(st.sampled_from(kind)) for kind in kinds]

    def times() -> int:
        return draw(st.integers(0, 2))

    def answers() -> list[str]:
        return ["0"] * times() + [draw(st.sampled_from(("1", "1.0", "-3")))]

    job = draw(
        st.sampled_from([*PLAIN, *MODULES, *PHASES, "2", "2", "33", "40", "50", "162", "999"])
    )
    if job in PLAIN:
        return [job, *some(PLAIN[job])]
    if job in PHASES:
        return [job, *some(*PHASES[job]), *some(3)]
    if job == "162":
        return [job, *some(5), *answers()]
    devices = times()
    if job == "2":
        kind = draw(st.sampled_from(("1", "2", "3")))
        masked = [str(devices), *some(2 * devices)] if kind == "2" else []
        return [job, kind, *some(2, counts=(0, 1)), *masked]
    if job == "50":
        return [job, *some(3), str(devices), *some(2 + devices)]
    if job == "33":
        lines = [job, *some(4, counts=(2, 3)), str(devices)]
        return lines + [line for _ in range(devices) for line in (*some(2), *answers())]
    if job == "40":
        lines = [job, str(devices)]
        for _ in range(devices):
            waves = [times() for _ in range(times())]
            lines += [*some(2), str(len(waves))]
            lines += [line for points in waves for line in (str(points), *some(2 * points))]
        return lines
    return [job, *some(*MODULES[job]), str(devices), *some(2 * devices)]


@pytest.mark.long
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(jobs(), min_size=1, max_size=6), st.booleans())
def test_any_order_of_jobs_with_any_arguments_leaves_the_board_in_step(
    resistor: Host, soon: Any, given_jobs: list[list[str]], offline: bool
) -> None:
    assert resistor.init(session=3 if offline else 0) == b"1\n"
    before = resistor.control.status()
    lines = [line for job in given_jobs for line in job]
    resistor.send(*lines, "999")
    told = bytearray()

    def has_come_to_the_end() -> bool:
        told.extend(resistor.port.read(resistor.port.in_waiting and 1 << 16))
        taken = resistor.control.status()["lines"] - before["lines"]
        return taken == len(lines) + 1 and told.endswith(b"\3\0\2\0")

    resistor.port.timeout = 0.05
    assert soon(has_come_to_the_end)
    resistor.port.timeout = PATIENCE_S
    assert resistor.silence()
    after = resistor.control.status()
    assert after["resets"] == before["resets"]
    assert not any(code.isdigit() for code in after["unknown_jobs"].keys() - before["unknown_jobs"])
    assert resistor.init() == b"1\n"
    resistor.send("1", 1, 1)
    assert resistor.floats(1) == pytest.approx([LOAD_OHM])


@pytest.mark.parametrize(
    "job",
    [
        ("3", 1, 1, "1e300", "1e300"),
        ("14", 1, "1e-30", 2, "1e-3", "1e-30", 1, 0, 0, 0, 7, 1, 1, 1, 1),
        ("201", "1e300", 1, "1e300", "1e300", "1e300", "-1e300", 0, 0, 1, 0, 2, 0, 1, 1, 1),
        ("220", "-1e300", "1e300", 2, 1, 1, 1),
        ("33", "1e300", "1e300", 1, "1e300", 1, 1, 1, 1),
        ("011", "1e300", "1e300", "1", 1, 1),
        ("191", 1, "1e300", "1e300", "-1e300", "nan", 0, "1e300", 1, 1, 1, 1, 1, 1),
    ],
)
def test_numbers_that_no_host_means_end_nothing(host: Host, job: tuple[object, ...]) -> None:
    host.send(*job, "999")
    told = b""
    while not told.endswith(b"\3\0\2\0"):
        part = host.port.read(1)
        assert part
        told += part
    assert host.init() == b"1\n"
