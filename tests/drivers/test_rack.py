"""A simulated rack: its process, its ports, its control socket, faults from the bench file, and
what it refuses.
"""

from __future__ import annotations

import copy
import os
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rram_hil.array import Geometry, Limits
from rram_hil.drivers.matrix.wiring import Wiring
from rram_hil.drivers.simulated.rack import FAULTS, Rack, launch
from rram_hil.drivers.simulated.server.control import BoardControl, LinkFault
from rram_hil.drivers.simulated.server.process import GONE_S, PATIENCE_S
from rram_hil.errors import ConfigError
from rram_hil.hardware.far_side import FarSideRequest, SimulatedFarSide
from rram_hil.simulation.chip import Fault
from rram_hil.simulation.config import Simulation

GEOMETRY = Geometry(1, 4, 4, "1T1R", "common")
LIMITS = Limits(
    bl_v=4.0,
    sl_v=4.0,
    wl_v=5.0,
    cell_v=4.0,
    gate_over_v=5.0,
    half_select_v=0.5,
    read_v=0.25,
    current_a=1e-3,
    energy_j=1e-3,
    width_s=1e-2,
    pulses_per_cell=1000,
)
SETTINGS: dict[str, Any] = {
    "instruments": {
        "smu": {"kind": "keithley-2600b", "model": "2636B", "line_hz": 50.0},
        "matrix": {"kind": "keithley-707b"},
    },
    "wiring": {
        "channels": {"smu.a": "A", "smu.b": "B"},
        "ground": "C",
        "wl": "1-4",
        "bl": "5-8",
        "sl": "9",
        "tsp_node": 2,
    },
}


def request_of(
    folder: Path, settings: dict[str, Any] | None = None, **simulation: object
) -> FarSideRequest:
    chosen = Simulation.model_validate({"device": "paper", "read_noise": False} | simulation)
    return FarSideRequest(
        chosen, GEOMETRY, LIMITS, "c1", folder, copy.deepcopy(settings or SETTINGS)
    )


class Port:
    """A plain TCP connection to an instrument, as any program may open one."""

    def __init__(self, far_side: SimulatedFarSide, name: str, timeout_s: float = 10.0) -> None:
        resource = next(r for n, _, r in far_side.instruments if n == name)
        scheme, host, port, kind = resource.split("::")
        assert (scheme, host, kind) == ("TCPIP", "127.0.0.1", "SOCKET")
        self._socket = socket.create_connection((host, int(port)), timeout=timeout_s)
        self._stream = self._socket.makefile("rwb")

    def send(self, *lines: str) -> None:
        for line in lines:
            self._stream.write(line.encode() + b"\n")
        self._stream.flush()

    def ask(self, line: str) -> str:
        self.send(line)
        return self._stream.readline().decode().strip()

    def close(self) -> None:
        self._stream.close()
        self._socket.close()


@pytest.fixture(scope="module")
def rack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimulatedFarSide]:
    far_side = launch(request_of(tmp_path_factory.mktemp("rack")))
    yield far_side
    far_side.stop()


@pytest.fixture
def control(rack: SimulatedFarSide) -> Iterator[BoardControl]:
    with BoardControl(rack.control) as found:
        yield found
        found.clear()


@pytest.fixture
def smu(rack: SimulatedFarSide) -> Iterator[Port]:
    port = Port(rack, "smu")
    port.ask(
        "smua.reset() smub.reset() node[2].channel.open('allslots') errorqueue.clear() print(1)"
    )
    yield port
    port.close()


def test_every_instrument_answers_on_its_port_under_its_model(rack: SimulatedFarSide) -> None:
    assert [(name, model) for name, model, _ in rack.instruments] == [
        ("smu", "Keithley 2636B"),
        ("matrix", "Keithley 707B"),
    ]
    serials = set()
    for name, model in (("smu", "2636B"), ("matrix", "707B")):
        port = Port(rack, name)
        told = port.ask("*IDN?")
        assert f" {model}," in told
        serials.add(told.split(",")[2].strip())
        port.close()
    assert len(serials) == 2


def test_a_model_that_is_driven_as_another_behaves_as_that_one_and_tells_its_own_name(
    tmp_path: Path,
) -> None:
    settings = copy.deepcopy(SETTINGS)
    settings["instruments"]["smu"] |= {"model": "2637B", "treat_as": "2636B"}
    far_side = launch(request_of(tmp_path, settings))
    try:
        port = Port(far_side, "smu")
        assert " 2637B," in port.ask("*IDN?")
        assert port.ask("print(smub ~= nil)") == "true"
        port.close()
    finally:
        far_side.stop()


def test_the_settings_of_the_driver_get_resources_and_the_clock_and_stay_what_they_were_else(
    tmp_path: Path,
) -> None:
    request = request_of(tmp_path)
    far_side = launch(request)
    try:
        assert request.settings == SETTINGS, "the request itself is not changed"
        filled = far_side.settings["instruments"]
        assert filled["smu"] == SETTINGS["instruments"]["smu"] | {
            "resource": far_side.instruments[0][2],
            "reconnect_s": GONE_S,
            "timeout_s": PATIENCE_S,
        }
        assert filled["matrix"]["resource"] == far_side.instruments[1][2]
        assert far_side.settings["clock"] == far_side.control
        assert far_side.is_running()
    finally:
        far_side.stop()
    assert not far_side.is_running()
    far_side.stop()


def _read(smu: Port, row: int, column: int) -> float:
    """One reading of a cell's conductance (S) by raw commands, relays and sources as they should
    be.
    """
    return float(
        smu.ask(
            f"node[2].channel.close('1A{5 + column:02d},1B{1 + row:02d},1C09') smua.source.limiti ="
            " 1e-3 smua.measure.nplc = 1 smub.source.levelv = 3 smua.source.levelv = 0.2"
            " smub.source.output = 1 smua.source.output = 1 local i = smua.measure.i()"
            " smua.source.output = 0 smub.source.output = 0 node[2].channel.open('allslots')"
            " print(i / 0.2)"
        )
    )


def test_a_cell_reads_through_source_meter_and_matrix_as_the_truth_has_it(
    smu: Port, control: BoardControl
) -> None:
    before = control.status()
    pulses = control.pulses()
    read = _read(smu, 1, 2)
    # 2 % of 10 nS is beyond the meter on this range: its own offset is what remains.
    assert read == pytest.approx(float(control.conductance_s()[0, 1, 2]), abs=2e-9)
    assert np.array_equal(control.pulses(), pulses), "a read is no pulse"
    after = control.status()
    assert after["closures"] - before["closures"] == 3
    assert (after["hot_switches"], after["shorts"], after["unsolved"]) == (
        before["hot_switches"],
        before["shorts"],
        0,
    )
    assert after["transactions"]["smu"] == before["transactions"]["smu"] + 1
    assert after["transactions"]["matrix"] == before["transactions"]["matrix"]
    assert after["now_s"] - before["now_s"] > 0.02, "link, relays and one power-line cycle"
    assert smu.ask("print(errorqueue.count)") == "0.00000e+00"


def test_a_pulse_reaches_the_chip_and_only_the_selected_cell(
    smu: Port, control: BoardControl
) -> None:
    before = control.pulses()
    smu.ask(
        "node[2].channel.close('1A05,1B01,1C09') smua.source.limiti = 1e-3 smub.source.levelv = 3"
        " smub.source.output = 1 smua.source.output = 1 smua.source.levelv = 3.9 delay(1e-4)"
        " smua.source.levelv = 0 smub.source.levelv = 0 print(1)"
    )
    assert control.status()["outputs"] == {"smu": True, "matrix": True}
    assert control.status()["outputs_on"]
    smu.ask(
        "smua.source.output = 0 smub.source.output = 0 node[2].channel.open('allslots') print(1)"
    )
    assert not control.status()["outputs_on"]
    expected = np.zeros(GEOMETRY.shape, dtype=np.int64)
    expected[0, 0, 0] = 1
    assert np.array_equal(control.pulses() - before, expected)
    assert control.truth("formed")[0, 0, 0] or control.truth("stuck")[0, 0, 0]


def test_hot_switching_and_shorts_are_noticed(smu: Port, control: BoardControl) -> None:
    before = control.status()
    smu.ask("smua.source.limiti = 1e-6 smua.source.levelv = 0.1 smua.source.output = 1 print(1)")
    smu.ask("node[2].channel.close('1A05') print(1)")
    smu.ask("node[2].channel.close('1C05') print(1)")
    after = control.status()
    assert after["hot_switches"] == before["hot_switches"] + 2
    assert after["shorts"] == before["shorts"] + 1
    assert smu.ask("smua.measure.i() print(smua.source.compliance)") == "true"


def test_time_passes_on_request_and_with_every_turn_of_the_link(
    rack: SimulatedFarSide, control: BoardControl
) -> None:
    now_s = control.status()["now_s"]
    assert control.advance(1e6) == pytest.approx(now_s + 1e6)
    port = Port(rack, "matrix")
    for _ in range(3):
        port.ask("print(1)")
    assert control.status()["now_s"] - (now_s + 1e6) == pytest.approx(3 * 1e-3, rel=0.05)
    port.close()


def test_damage_shows_in_the_truth(smu: Port, control: BoardControl) -> None:
    control.damage(Fault.SHORT, np.array([15]))
    assert control.conductance_s()[0, 3, 3] > 1e-3
    assert _read(smu, 3, 3) > 1e-3
    control.damage(Fault.NONE, np.array([15]))
    assert control.conductance_s()[0, 3, 3] < 1e-3


def test_a_person_at_the_front_panel_answers_through_the_control_socket(
    smu: Port, control: BoardControl
) -> None:
    control.panel("smu", answers=["0.25"], keys=["TRIG"])
    assert smu.ask("print(display.prompt('0.00', 'V', 'read at'))") == "2.50000e-01"
    assert smu.ask("print(display.trigger.wait(1), display.trigger.wait(0.1))") == "true\tfalse"
    with pytest.raises(ConfigError, match="'toaster' is not one of smu, matrix"):
        control.panel("toaster", keys=["TRIG"])
    with pytest.raises(ConfigError, match="key 'KNOB' is not one of"):
        control.panel("smu", keys=["knob"])
    with pytest.raises(ConfigError, match="its front panel is not simulated"):
        control.panel("matrix", keys=["TRIG"])


def test_a_fault_strikes_the_instrument_it_is_meant_for_once(
    rack: SimulatedFarSide, control: BoardControl
) -> None:
    control.inject(LinkFault.DROP_REPLY, "print(7)", instrument="matrix")
    assert control.status()["waiting_faults"] == 1
    smu, matrix = Port(rack, "smu"), Port(rack, "matrix", timeout_s=0.3)
    assert smu.ask("print(7)") == "7.00000e+00"
    assert matrix.ask("print(8)") == "8.00000e+00", "not the message that it waits for"
    with pytest.raises(TimeoutError):
        matrix.ask("print(7)")
    assert control.status()["waiting_faults"] == 0
    for port in (smu, matrix):
        port.close()


def test_a_wrong_fault_is_refused_and_clear_forgets_those_that_wait(control: BoardControl) -> None:
    with pytest.raises(ConfigError, match="not one of smu, matrix"):
        control.inject(LinkFault.STUCK)
    with pytest.raises(ConfigError, match="not one of smu, matrix"):
        control.inject(LinkFault.STUCK, instrument="toaster")
    with pytest.raises(ConfigError, match="'reboot-before' is not one of"):
        control.inject(LinkFault.REBOOT_BEFORE, instrument="smu")
    with pytest.raises(ConfigError, match="'nonsense' is not one of"):
        control.inject("nonsense", instrument="smu")
    with pytest.raises(ConfigError, match="no ground truth"):
        control.truth("numbers")
    with pytest.raises(ConfigError, match="not known"):
        control.ask("dance")
    control.inject(LinkFault.STUCK, instrument="smu", count=3)
    assert control.status()["waiting_faults"] == 3
    control.clear()
    assert control.status()["waiting_faults"] == 0


def test_a_rack_knows_all_faults_of_a_link() -> None:
    needed = (
        "delay-reply drop-reply half-reply garbage disconnect-reply stuck wrong-model queue-full"
        " line-overrun"
    )
    assert set(needed.split()) <= set(FAULTS)


def test_faults_of_the_bench_file_are_there_from_the_start(tmp_path: Path) -> None:
    faults = [
        {"instrument": "smu", "kind": "wrong-model", "on": "*IDN?", "count": 2},
        {"instrument": "matrix", "kind": "delay-reply", "seconds": 0.01},
    ]
    far_side = launch(request_of(tmp_path, faults=faults))
    try:
        smu, matrix = Port(far_side, "smu"), Port(far_side, "matrix")
        with BoardControl(far_side.control) as control:
            assert control.status()["waiting_faults"] == 3
            told = [smu.ask("*IDN?") for _ in range(3)]
            assert ["2636B" in t for t in told] == [False, False, True]
            assert control.status()["waiting_faults"] == 1
            matrix.ask("*IDN?")
            assert control.status()["waiting_faults"] == 0
        for port in (smu, matrix):
            port.close()
    finally:
        far_side.stop()


def test_the_chip_outlives_the_rack_where_a_state_file_is_named(tmp_path: Path) -> None:
    def opened() -> tuple[SimulatedFarSide, Port, BoardControl]:
        far_side = launch(request_of(tmp_path, state="c1.state"))
        return far_side, Port(far_side, "smu"), BoardControl(far_side.control)

    far_side, smu, control = opened()
    smu.ask(
        "node[2].channel.close('1A05,1B01,1C09') smua.source.limiti = 1e-3 smub.source.levelv = 3"
        " smua.source.levelv = 3.5 smub.source.output = 1 smua.source.output = 1 delay(1e-3)"
        " print(1)"
    )
    now_s = control.status()["now_s"]
    # The levels still stand: what they have done until the end counts.
    control.quit()
    deadline = time.monotonic() + 10
    while far_side.is_running() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not far_side.is_running()
    far_side.stop()
    far_side, _, control = opened()
    try:
        status = control.status()
        assert now_s <= status["now_s"] < now_s + 0.1, "the matrix resets as it starts"
        assert not status["outputs_on"]
        assert int(control.pulses()[0, 0, 0]) == 1
        assert control.truth("formed")[0, 0, 0] or control.truth("stuck")[0, 0, 0]
    finally:
        far_side.stop()


def test_a_resistor_may_stand_for_the_array(tmp_path: Path) -> None:
    far_side = launch(request_of(tmp_path, load_ohm=1e4))
    try:
        smu = Port(far_side, "smu")
        amps = float(
            smu.ask("smua.source.levelv = 1 smua.source.output = 1 print(smua.measure.i())")
        )
        assert amps == pytest.approx(1e-4, rel=2e-3)
        smu.close()
    finally:
        far_side.stop()


def test_the_rack_ends_with_the_process_that_started_it(tmp_path: Path) -> None:
    script = f"""
        import os, sys
        sys.path.insert(0, {str(Path(__file__).parent)!r})
        from pathlib import Path
        import test_rack
        far_side = test_rack.launch(test_rack.request_of(Path({str(tmp_path)!r})))
        print(far_side.control, flush=True)
        os._exit(1)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1, done.stderr
    host, _, port = done.stdout.strip().rpartition(":")
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            socket.create_connection((host, int(port)), timeout=1).close()
        except OSError:
            break
        time.sleep(0.05)
    else:
        pytest.fail("the rack's process is still there")


def test_an_instrument_is_switched_off_and_on_through_the_control_socket(tmp_path: Path) -> None:
    settings = copy.deepcopy(SETTINGS)
    settings["instruments"]["smu"] = {"kind": "keithley-2450"}
    settings["wiring"] |= {"channels": {"smu.1": "A"}, "tsp_node": 0}
    rack = Rack(request_of(tmp_path, settings))
    sim = rack.instruments["smu"]
    try:
        sim.message("*LANG TSP")
        assert rack.control({"do": "reboot", "drop_link": False, "instrument": "smu"}) == {}
        assert sim.message("*LANG?") == b"TSP"
        for name, told in (
            ("matrix", "its power switch is not simulated"),
            ("toaster", "is not one of"),
        ):
            with pytest.raises(ConfigError, match=told):
                rack.control({"do": "reboot", "drop_link": False, "instrument": name})
    finally:
        for server in rack.servers.values():
            server.stop()


# What does not fit together


def refused(tmp_path: Path, change: dict[str, Any], **simulation: object) -> str:
    settings = copy.deepcopy(SETTINGS)
    for key, value in change.items():
        *path, last = key.split(".")
        at = settings
        for part in path:
            at = at[part]
        at[last] = value
    request = request_of(tmp_path, settings, **simulation)
    with pytest.raises(ConfigError) as found:
        Rack(request)
    assert "\n" not in str(found.value)
    return str(found.value)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"instruments": {}}, "driver.instruments: missing"),
        ({"instruments.smu": {"model": "2636B"}}, "driver.instruments.smu.kind: missing"),
        (
            {"instruments.smu.kind": "toaster"},
            "driver.instruments.smu.kind: instrument kind 'toaster' has no simulator",
        ),
        (
            {"instruments.smu.kind": "arc-one"},
            "driver.instruments.smu.kind: instrument kind 'arc-one' is no instrument",
        ),
        (
            {"instruments.smu.model": "9999"},
            "driver.instruments.smu.model: '9999' is wrong: one of 2601B",
        ),
        ({"wiring.channels": {"smx.a": "A"}}, "'smx.a': there is no instrument 'smx'"),
        (
            {"wiring.channels": {"smu.a": "A", "matrix.b": "B"}},
            "one instrument, the matrix, must be without channel",
        ),
        ({"wiring.wl": "1-3"}, "driver.wiring.wl: 3 matrix columns, 4 are needed"),
        ({"wiring.ground": "A"}, "driver.wiring: "),
        ({"wiring.tsp_node": 1}, "driver.wiring.tsp_node"),
    ],
)
def test_a_bench_that_does_not_fit_together_is_refused_in_one_line(
    tmp_path: Path, change: dict[str, Any], told: str
) -> None:
    assert told in refused(tmp_path, change)


def test_unknown_faults_in_the_bench_file_are_refused(tmp_path: Path) -> None:
    assert "'melt' is not one of" in refused(
        tmp_path, {}, faults=[{"instrument": "smu", "kind": "melt"}]
    )
    assert "'psu' is not one of smu, matrix" in refused(
        tmp_path, {}, faults=[{"instrument": "psu", "kind": "stuck"}]
    )


def test_a_rack_that_cannot_start_says_why(tmp_path: Path) -> None:
    settings = copy.deepcopy(SETTINGS)
    settings["wiring"]["sl"] = "9-12"
    with pytest.raises(
        ConfigError, match=r"simulated rack did not start: driver\.wiring\.sl: 4 matrix columns"
    ):
        launch(request_of(tmp_path, settings))


def test_trigger_wires_join_the_lines_that_the_bench_file_names(tmp_path: Path) -> None:
    settings = copy.deepcopy(SETTINGS)
    lines = {
        "smu_in": 1,
        "smu_measure": 2,
        "smu_out": 3,
        "matrix_in": 4,
        "matrix_out": 5,
        "matrix_measure": 6,
    }
    settings["wiring"]["triggers"] = {"smu": "smu"} | lines
    request = request_of(tmp_path, settings)
    rack = Rack(request)
    try:
        heard: list[tuple[str, int]] = []
        for pin in (("matrix", 4), ("smu", 1), ("smu", 2)):
            rack.bus.listen(pin, lambda pin=pin: heard.append(pin))  # type: ignore[misc]
        for pin in (("smu", 3), ("matrix", 5), ("matrix", 6), ("matrix", 7)):
            rack.bus.pulse(pin)
        assert heard == [("matrix", 4), ("smu", 1), ("smu", 2)]
        assert rack.bus.nodes[2] is rack.instruments["matrix"]
        assert rack.bus.nodes[1] is rack.instruments["smu"]
    finally:
        for server in rack.servers.values():
            server.stop()


def test_wiring_is_read_as_the_driver_reads_it() -> None:
    wiring = Wiring.model_validate(SETTINGS["wiring"])
    assert (wiring.bl_columns, wiring.sl_columns, wiring.wl_columns) == (
        (5, 6, 7, 8),
        (9,),
        (1, 2, 3, 4),
    )


def test_ports_are_reached_from_this_machine_only(rack: SimulatedFarSide) -> None:
    assert all(resource.startswith("TCPIP::127.0.0.1::") for _, _, resource in rack.instruments)
    if not os.path.exists("/proc/net/tcp"):
        pytest.skip("no list of sockets here")
    ports = {int(r.split("::")[2]) for _, _, r in rack.instruments} | {
        int(rack.control.rpartition(":")[2])
    }
    found = set()
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        address, _, port = line.split()[1].partition(":")
        if line.split()[3] == "0A" and int(port, 16) in ports:
            assert address == "0100007F"
            found.add(int(port, 16))
    assert found == ports
