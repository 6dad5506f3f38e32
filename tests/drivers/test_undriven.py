"""Instruments of RRAM labs that are known by name and not driven: what a bench file and discovery
say of them.
"""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Iterator

import pytest

from rram_hil.bench import discovery
from rram_hil.drivers.simulated.conformance import kinds
from rram_hil.errors import ConfigError
from rram_hil.hardware.instrument import make_instrument
from rram_hil.hardware.undriven import undriven_kinds, why_undriven


@pytest.mark.fast
@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("keithley-4200", ["KXCI", "4225-PMU", "keysight-b1500"]),
        ("keithley-707a", ["DDC", "707B"]),
    ],
)
def test_a_bench_file_is_told_in_one_line_what_is_missing_and_what_to_use(
    kind: str, words: list[str]
) -> None:
    with pytest.raises(ConfigError) as refusal:
        make_instrument({"kind": kind, "resource": "GPIB0::17::INSTR"}, "driver.instruments.x")
    said = str(refusal.value)
    assert kind in said
    assert "\n" not in said
    for word in words:
        assert word in said


@pytest.mark.fast
@pytest.mark.parametrize(
    "told", ["KI4200A", "MODEL 4200A", "Model 4200A-SCS", "4200-SCS", "707A", "708A", "MODEL 707"]
)
def test_what_tells_itself_so_is_recognised(told: str) -> None:
    assert "is not driven" in why_undriven(told)


@pytest.mark.fast
@pytest.mark.parametrize("told", ["", "707B", "MODEL 2400", "B1500A", "4201", "hello"])
def test_anything_else_is_not(told: str) -> None:
    assert why_undriven(told) == ""


@pytest.mark.fast
def test_no_kind_is_both_driven_and_not() -> None:
    assert not set(undriven_kinds()) & set(kinds())


@pytest.fixture
def kxci(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A 4200A-SCS as it answers over TCP: messages end with a NUL, its own too."""
    listening = socket.create_server(("127.0.0.1", 0))
    port = listening.getsockname()[1]

    def answer() -> None:
        connection, _ = listening.accept()
        with connection:
            asked = b""
            while not asked.endswith(b"\0"):
                asked += connection.recv(64)
            assert asked == b"*IDN?\0"
            connection.sendall(b"KEITHLEY INSTRUMENTS,KI4200A,1489223,V1.14\0")

    thread = threading.Thread(target=answer)
    thread.start()
    monkeypatch.setattr(discovery, "KXCI", re.compile(f"::{port}::SOCKET$"))
    monkeypatch.setattr(discovery, "listed_visa", list)
    monkeypatch.setattr(discovery, "listed_serial", list)
    yield f"TCPIP::127.0.0.1::{port}::SOCKET"
    thread.join(5)
    listening.close()


def test_discovery_knows_a_4200a_by_its_answer(kxci: str) -> None:
    (found,) = discovery.find_devices([kxci])
    assert (found.model, found.serial, found.kind) == ("KI4200A", "1489223", "")
    assert "a 4200A-SCS is not driven" in found.problem


@pytest.mark.fast
def test_the_port_of_kxci_is_known() -> None:
    assert discovery.KXCI.search("TCPIP0::192.168.1.9::1225::SOCKET")
    assert not discovery.KXCI.search("TCPIP0::192.168.1.9::5025::SOCKET")
