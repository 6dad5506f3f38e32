"""One set of keys says how anything is reached; what cannot apply is refused with what to write."""

from __future__ import annotations

import os
import pty
import threading
import tty
from collections.abc import Iterator
from typing import Any

import pytest
from pytest_mock import MockerFixture

from rram_hil.drivers.arc_one import ArcOneConfig
from rram_hil.drivers.test_chip_board import TestChipBoardConfig
from rram_hil.errors import ConfigError, LinkError
from rram_hil.hardware.instrument import InstrumentConfig, make_instrument
from rram_hil.wire import serial_port
from rram_hil.wire.dialog import Dialog, count_question, ese_probe
from rram_hil.wire.link_keys import LinkKeys
from rram_hil.wire.open_link import make_link
from rram_hil.wire.serial_port import SerialLink

TABLES = (InstrumentConfig, TestChipBoardConfig, ArcOneConfig)


@pytest.mark.parametrize("table", TABLES)
def test_every_table_takes_the_same_keys(table: type[LinkKeys]) -> None:
    keys: dict[str, Any] = {
        "baud": 57600,
        "parity": "odd",
        "data_bits": 7,
        "stop_bits": 2,
        "flow_control": "xon-xoff",
        "timeout_s": 3.0,
        "reconnect_s": 20.0,
    }
    for name in ("resource", "port"):
        made = table.model_validate({name: "/dev/ttyUSB0"} | keys)
        assert made.address == "/dev/ttyUSB0"
        assert made.link_settings() == {
            "baud": 57600,
            "parity": "O",
            "bytesize": 7,
            "stopbits": 2,
            "xonxoff": True,
        }
    over_gpib = table.model_validate({"resource": "/dev/ttyUSB0", "gpib_address": 24})
    assert over_gpib.link_settings()["gpib_address"] == 24
    with_library = table.model_validate({"port": "GPIB0::24::INSTR", "visa_library": "@ivi"})
    assert with_library.link_settings()["visa_library"] == "@ivi"
    with pytest.raises(ValueError, match="say the same"):
        table.model_validate({"resource": "COM3", "port": "COM4"})


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"resource": "GPIB0::24::INSTR", "baud": 57600}, "delete `baud`"),
        ({"resource": "USB0::1::2::3::INSTR", "parity": "even"}, "delete `parity`"),
        ({"resource": "TCPIP::1.2.3.4::5025::SOCKET", "flow_control": "none"}, "no serial line"),
        ({"resource": "GPIB0::24::INSTR", "gpib_address": 24}, "GPIB0::24::INSTR.*delete"),
        ({"resource": "/dev/ttyUSB0", "visa_library": "@ivi"}, "ASRL/dev/ttyUSB0::INSTR"),
        ({"resource": "COM3", "parity": "O"}, "'none', 'even', 'odd'"),
    ],
)
def test_a_key_that_cannot_apply_is_refused_with_what_to_write(
    keys: dict[str, Any], said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        make_instrument({"kind": "keithley-2400"} | keys, "driver.instruments.smu")


def test_the_library_of_the_environment_is_used(
    mocker: MockerFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    manager = mocker.patch("pyvisa.ResourceManager")
    monkeypatch.setenv("PYVISA_LIBRARY", "/opt/ni/visa.so")
    make_link("GPIB0::1::INSTR").open()
    make_link("GPIB0::1::INSTR", visa_library="@py").open()
    monkeypatch.delenv("PYVISA_LIBRARY")
    make_link("GPIB0::1::INSTR").open()
    asked = [call.args[0] for call in manager.call_args_list]
    assert asked == ["/opt/ni/visa.so", "@py", "@py"]


@pytest.fixture
def adapter() -> Iterator[tuple[str, list[bytes]]]:
    """A GPIB adapter on a pseudo-terminal, an instrument that echoes behind it."""
    far, near = pty.openpty()
    for end in (far, near):
        tty.setraw(end)
    heard: list[bytes] = []

    def work() -> None:
        pending, answer = b"", b""
        while True:
            try:
                pending += os.read(far, 4096)
            except OSError:
                return
            while b"\n" in pending:
                line, _, pending = pending.partition(b"\n")
                while line.endswith(b"\x1b"):  # an escaped line feed belongs to the message
                    more, _, pending = pending.partition(b"\n")
                    line = line[:-1] + b"\n" + more
                heard.append(line)
                if line == b"++read eoi":
                    os.write(far, answer)
                    answer = b""
                elif not line.startswith(b"++"):
                    answer = b"<" + line.strip() + b">\n"

    threading.Thread(target=work, daemon=True).start()
    yield os.ttyname(near), heard
    os.close(near)
    os.close(far)


def test_an_instrument_behind_a_gpib_adapter(adapter: tuple[str, list[bytes]]) -> None:
    port, heard = adapter
    dialog = Dialog(make_link(port, gpib_address=24), ese_probe)
    dialog.open()
    assert dialog.query("*IDN?") == "<*IDN?>"
    dialog.write("*RST")
    assert dialog.query("READ?") == "<READ?>"
    assert b"++addr 24" in heard
    assert b"++auto 0" in heard
    assert heard[-2:] == [b"READ?\n", b"++read eoi"]
    dialog.link.drain()
    assert b"++clr" in heard
    dialog.close()


def test_what_an_earlier_program_asked_for_is_thrown_away(
    adapter: tuple[str, list[bytes]], mocker: MockerFixture
) -> None:
    link = mocker.MagicMock()
    link.resource = "x"
    link.receive.side_effect = [b"1.5,2.5\n", b"0;0;0;0\n", b"0;0;0;0;0\n"]
    dialog = Dialog(link, ese_probe)
    dialog.prove(count_question, 1)  # asks five times
    assert link.send.call_args.args == (b"*ESE?;*ESE?;*ESE?;*ESE?;*ESE?\n",)
    link.receive.side_effect = lambda *_: b""
    with pytest.raises(LinkError, match="it is silent"):
        dialog.prove(count_question, 1)
    link.receive.side_effect = lambda *_: b"COFFEE\n"
    with pytest.raises(LinkError, match="COFFEE"):
        dialog.prove(count_question, 1)


def test_a_usb_port_is_found_again_by_its_serial_number(monkeypatch: pytest.MonkeyPatch) -> None:
    listed = {"/dev/ttyUSB0": "A1"}
    opened: list[str] = []

    def port(name: str, **_: Any) -> object:
        if name not in listed:
            raise OSError("no such port")
        opened.append(name)
        return type("Port", (), {"close": lambda self: None})()

    monkeypatch.setattr(serial_port, "_usb_serials", lambda: dict(listed))
    monkeypatch.setattr(serial_port.serial, "serial_for_url", port)
    waits: list[float] = []

    def later(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 5:
            listed["/dev/ttyUSB3"] = "A1"

    monkeypatch.setattr("rram_hil.wire.link.time.sleep", later)
    link = SerialLink("/dev/ttyUSB0")
    link.open()
    listed.clear()
    link.reopen(10.0)
    assert opened == ["/dev/ttyUSB0", "/dev/ttyUSB3"]
    assert sum(waits) < 2
    listed.clear()
    waits.clear()
    with pytest.raises(LinkError, match="no such port"):
        link.reopen(1.0)
    assert sum(waits) == pytest.approx(1.0)
