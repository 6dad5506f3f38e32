"""Links over real sockets against a scripted far side, and over mocked libraries for what a socket
cannot show.
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import pyvisa
import serial
from hypothesis import given
from hypothesis import strategies as st
from pytest_mock import MockerFixture
from pyvisa.constants import StatusCode

from rram_hil.errors import ConfigError, LinkError
from rram_hil.wire.dialog import Dialog, ese_probe, number
from rram_hil.wire.link import Link
from rram_hil.wire.open_link import make_link
from rram_hil.wire.serial_port import SerialLink
from rram_hil.wire.visa import VisaLink

Script = Callable[[socket.socket, bytes], None]


class Peer:
    """A far side on 127.0.0.1: `script(connection, line)` acts on every line that comes."""

    def __init__(self, script: Script) -> None:
        self.lines: list[bytes] = []
        self._script = script
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._connections: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                self._connections.append(connection)
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError), connection.makefile("rb") as stream:
            for line in stream:
                self.lines.append(line)
                self._script(connection, line.rstrip(b"\n"))

    def stop(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for connection in self._connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


def answer(connection: socket.socket, line: bytes) -> None:
    """What most scripts end with: the probe of `ese_probe`, and an echo in brackets."""
    if line.startswith(b"*ESE "):
        connection.sendall(line[5:].partition(b";")[0] + b"\n")
    elif line.endswith(b"?"):
        connection.sendall(b"<" + line + b">\n")


@pytest.fixture(params=["visa", "serial"])
def open_to(request: pytest.FixtureRequest) -> Iterator[Callable[..., tuple[Dialog, Peer]]]:
    """`open_to(script)` gives a dialog with a far side, over VISA and over a serial URL."""
    opened: list[Any] = []

    def begin(script: Script = answer, timeout_s: float = 0.5) -> tuple[Dialog, Peer]:
        peer = Peer(script)
        name = (
            "TCPIP::127.0.0.1::{}::SOCKET" if request.param == "visa" else "socket://127.0.0.1:{}"
        )
        dialog = Dialog(make_link(name.format(peer.port)), ese_probe, timeout_s=timeout_s)
        dialog.open()
        opened.extend([dialog.close, peer.stop])
        return dialog, peer

    yield begin
    for end in opened:
        end()


OpenTo = Callable[..., tuple[Dialog, Peer]]


def socket_of(link: Link) -> socket.socket:
    """The socket under a link: private, for no public name of these libraries gives it."""
    found: Any = link._port._socket if isinstance(link, SerialLink) else None  # type: ignore[union-attr]
    if isinstance(link, VisaLink):
        found = link._device.visalib.sessions[link._device.session].interface
    assert isinstance(found, socket.socket)
    return found


def test_a_query_is_one_transaction_and_counts_its_bytes(open_to: OpenTo) -> None:
    dialog, peer = open_to()
    assert dialog.query("VOLT?") == "<VOLT?>"
    dialog.write("VOLT 1")
    assert dialog.query("VOLT?") == "<VOLT?>"
    assert peer.lines == [b"VOLT?\n", b"VOLT 1\n", b"VOLT?\n"]
    assert (dialog.transactions, dialog.bytes_sent, dialog.bytes_received) == (3, 6 + 7 + 6, 16)


def test_nagles_algorithm_is_off(open_to: OpenTo) -> None:
    dialog, _ = open_to()
    assert socket_of(dialog.link).getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_a_reply_that_comes_in_pieces_longer_apart_than_a_slice_is_whole(open_to: OpenTo) -> None:
    def script(connection: socket.socket, line: bytes) -> None:
        for piece in (b"1.", b"23", b"45", b"\n"):
            connection.sendall(piece)
            time.sleep(0.09)

    dialog, _ = open_to(script)
    assert dialog.query("READ?") == "1.2345"


@pytest.mark.parametrize("name", ["TCPIP::127.0.0.1::{}::SOCKET", "socket://127.0.0.1:{}"])
def test_a_refused_port_is_an_error_that_names_the_resource(name: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    link = make_link(name.format(port))
    with pytest.raises(LinkError, match=rf"{port}.*cannot be opened.*refused"):
        link.open()
    assert not link.is_open
    link.close()


@pytest.mark.parametrize("name", ["no::such::thing", "TCPIP::", "nosuch://port", ""])
def test_what_is_no_resource_is_refused(name: str) -> None:
    with pytest.raises(
        ConfigError, match=r"is no VISA resource name|is no serial port or URL|resource: missing"
    ):
        make_link(name).open()


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("192.168.1.10", "write TCPIP::192.168.1.10::5025::SOCKET"),
        ("192.168.1.10:4000", "write TCPIP::192.168.1.10::4000::SOCKET"),
    ],
)
def test_a_bare_address_is_told_as_the_resource_to_write(name: str, meant: str) -> None:
    with pytest.raises(ConfigError, match=meant):
        make_link(name)


def test_a_wrong_visa_name_is_told_with_a_right_one() -> None:
    with pytest.raises(ConfigError, match=r"as TCPIP::192\.168\.1\.5::5025::SOCKET and GPIB0"):
        make_link("TCPI::127.0.0.1::5025::SOCKET").open()


def test_a_refused_socket_is_not_asked_whether_it_is_plugged_in() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(LinkError, match="does it listen there") as caught:
        make_link(f"socket://127.0.0.1:{port}").open()
    assert "plugged in" not in str(caught.value)


def test_a_serial_port_that_is_not_there_says_what_to_look_at() -> None:
    with pytest.raises(LinkError, match=r"/dev/no-such-port: cannot be opened.*plugged in"):
        SerialLink("/dev/no-such-port").open()


def test_a_block_of_a_megabyte_arrives_whole(open_to: OpenTo) -> None:
    data = bytes(range(256)) * 4096

    def script(connection: socket.socket, line: bytes) -> None:
        if line == b"BOTH?":
            connection.sendall(b"#71048576" + data + b';0,"No error"\n')
        elif line == b"BLOCK?":
            connection.sendall(b"#71048576" + data + b"\n")
        else:
            answer(connection, line)

    dialog, _ = open_to(script, timeout_s=5.0)
    assert dialog.query_block("BLOCK?") == data
    assert dialog.query_block_and_line("BOTH?") == (data, '0,"No error"')
    assert dialog.query("NEXT?") == "<NEXT?>"


@pytest.mark.parametrize(
    "head", [b"1.5\n", b"#", b"#0", b"#x12", b"#2ab", b"#9999999999", b"#15abc"]
)
def test_what_is_no_whole_block_is_an_error_and_the_link_goes_on(
    open_to: OpenTo, head: bytes
) -> None:
    def script(connection: socket.socket, line: bytes) -> None:
        connection.sendall(head) if line == b"BLOCK?" else answer(connection, line)

    dialog, _ = open_to(script, timeout_s=0.1)
    with pytest.raises(LinkError):
        dialog.query_block("BLOCK?")
    assert dialog.query("NEXT?") == "<NEXT?>"


def test_lines_and_a_block_of_a_script(open_to: OpenTo) -> None:
    def script(connection: socket.socket, line: bytes) -> None:
        if line == b"block":
            connection.sendall(b"2\n#0" + b"\n" * 16 + b"\nmore\nerrors\t0\n")
        elif line == b"none":
            connection.sendall(b"0\nerrors\t0\n")
        else:
            answer(connection, line)

    dialog, _ = open_to(script)
    assert dialog.query_lines("block", "errors", block_of=8) == (
        b"\n" * 16,
        ["2", "more", "errors\t0"],
    )
    assert dialog.query_lines("none", "errors", block_of=8) == (b"", ["0", "errors\t0"])
    assert dialog.query("NEXT?") == "<NEXT?>"


def test_a_late_reply_is_never_given_to_another_question(open_to: OpenTo) -> None:
    late = threading.Event()

    def script(connection: socket.socket, line: bytes) -> None:
        if line == b"SLOW?":
            assert late.wait(60)
            late.clear()
        answer(connection, line)

    dialog, _ = open_to(script, timeout_s=0.1)
    for _ in range(3):
        with pytest.raises(LinkError, match=r"no reply to 'SLOW\?' within 0\.1 s"):
            dialog.query("SLOW?")
        late.set()
        dialog.timeout_s = 5.0
        assert dialog.query("FAST?") == "<FAST?>"
        dialog.timeout_s = 0.1


def test_the_timeout_follows_the_work(open_to: OpenTo) -> None:
    def script(connection: socket.socket, line: bytes) -> None:
        time.sleep(0.3)
        answer(connection, line)

    dialog, _ = open_to(script, timeout_s=0.15)
    assert dialog.query("SWEEP?", takes_s=30.0) == "<SWEEP?>"


def test_a_peer_that_hangs_up_is_noticed_at_once(open_to: OpenTo) -> None:
    def script(connection: socket.socket, line: bytes) -> None:
        connection.sendall(b"1.2")
        connection.shutdown(socket.SHUT_RDWR)

    dialog, _ = open_to(script, timeout_s=600.0)  # a timeout would be one of this test
    with pytest.raises(LinkError):
        dialog.query("READ?")


def test_a_reply_of_many_packets_arrives_whole_and_leaves_what_is_behind_it(
    open_to: OpenTo,
) -> None:
    long = b"7" * 300_000

    def script(connection: socket.socket, line: bytes) -> None:
        connection.sendall(long + b"\nsecond\n")

    dialog, peer = open_to(script, timeout_s=5.0)
    _, lines = dialog.query_lines("READ?", "second")
    assert lines == [long.decode(), "second"]
    assert peer.lines == [b"READ?\n"]


def test_a_connection_that_is_reset_is_a_link_error(open_to: OpenTo) -> None:
    def script(connection: socket.socket, line: bytes) -> None:
        connection.sendall(b"1.2")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        os.close(connection.detach())

    dialog, _ = open_to(script, timeout_s=600.0)  # a timeout would be one of this test
    with pytest.raises(LinkError):
        dialog.query("READ?")
    assert not dialog.link.is_open


@pytest.fixture
def slow() -> Iterator[tuple[VisaLink, socket.socket]]:
    """A socket resource and its far side, whose buffer holds little."""
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    listener.bind(("127.0.0.1", 0))
    listener.listen()
    link = VisaLink(f"TCPIP::127.0.0.1::{listener.getsockname()[1]}::SOCKET")
    link.open()
    connection, _ = listener.accept()
    yield link, connection
    link.close()
    connection.close()
    listener.close()


def test_a_message_larger_than_all_buffers_is_sent_whole_also_after_a_short_read(
    slow: tuple[VisaLink, socket.socket],
) -> None:
    link, connection = slow
    message = bytes(range(256)) * 40_000
    taken = bytearray()

    def take() -> None:
        while len(taken) < len(message):
            taken.extend(connection.recv(1 << 16))

    assert link.receive(1, 0.001) == b""
    taker = threading.Thread(target=take)
    taker.start()
    link.send(message)
    taker.join(60)
    assert bytes(taken) == message


def test_a_far_side_that_takes_nothing_of_a_message_is_gone(
    slow: tuple[VisaLink, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rram_hil.wire.visa.STUCK_S", 0.1)
    link, _ = slow
    with pytest.raises(LinkError, match="writing failed: timed out"):
        link.send(bytes(20_000_000))
    assert not link.is_open


def test_what_a_library_says_in_several_lines_is_told_in_one(mocker: MockerFixture) -> None:
    fake = FakeDevice(mocker)
    fake.manager.return_value.open_resource.side_effect = OSError("no library.\nLoad it:\n  so")
    with pytest.raises(LinkError, match=r"no library\. Load it: so$"):
        VisaLink("GPIB0::24::INSTR").open()


def test_noise_is_no_text(open_to: OpenTo) -> None:
    def script(connection: socket.socket, line: bytes) -> None:
        connection.sendall(b"\xff\xfe\x00\n") if line == b"READ?" else answer(connection, line)

    dialog, _ = open_to(script)
    with pytest.raises(LinkError, match="no text"):
        dialog.query("READ?")
    assert dialog.query("NEXT?") == "<NEXT?>"


def test_an_instrument_that_never_gets_in_step_is_an_error(open_to: OpenTo) -> None:
    dialog, peer = open_to(lambda connection, line: connection.sendall(b"0\n"), timeout_s=0.1)
    dialog.out_of_step()
    with pytest.raises(LinkError, match="does not answer in step; last reply '0'"):
        dialog.query("READ?")
    assert b"READ?\n" not in peer.lines


def test_two_threads_get_their_own_replies(open_to: OpenTo) -> None:
    dialog, _ = open_to(timeout_s=5.0)
    wrong: list[str] = []

    def ask(name: str) -> None:
        for k in range(500):
            told = dialog.query(f"{name}{k}?")
            if told != f"<{name}{k}?>":
                wrong.append(told)

    threads = [threading.Thread(target=ask, args=(name,)) for name in "AB"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert wrong == []


def test_a_closed_link_says_so(open_to: OpenTo) -> None:
    dialog, _ = open_to()
    dialog.close()
    dialog.close()
    for use in (
        lambda: dialog.query("READ?"),
        lambda: dialog.write("X"),
        lambda: dialog.link.receive(1, 0.1),
    ):
        with pytest.raises(LinkError, match="not open"):
            use()


# What a socket cannot show: libraries that raise what they like, and interfaces that send messages.


class FakeDevice:
    """An opened pyvisa resource that reads from a list: bytes with a status, or an exception."""

    def __init__(self, mocker: MockerFixture, *reads: tuple[bytes, StatusCode] | Exception) -> None:
        self.device = mocker.MagicMock()
        self.device.visalib.sessions = {}
        self.device.ignore_warning = lambda *_: contextlib.nullcontext()
        self.timeouts: list[float] = []
        self._reads = list(reads)

        def read(_session: object, most: int) -> tuple[bytes, StatusCode]:
            self.timeouts.append(self.device.timeout)
            now = self._reads.pop(0)
            if isinstance(now, Exception):
                raise now
            return now[0][:most], now[1]

        self.device.visalib.read = read
        self.manager = mocker.patch("pyvisa.ResourceManager")
        self.manager.return_value.open_resource.return_value = self.device


TIMEOUT = pyvisa.VisaIOError(StatusCode.error_timeout)


def test_the_vendors_library_reads_a_gpib_reply_with_one_long_timeout(
    mocker: MockerFixture,
) -> None:
    fake = FakeDevice(mocker, (b"1.5\n", StatusCode.success_termination_character_read), TIMEOUT)
    dialog = Dialog(VisaLink("GPIB0::24::INSTR", backend="@ivi"), ese_probe, timeout_s=3.0)
    dialog.open()
    fake.manager.assert_called_once_with("@ivi")
    assert dialog.query("READ?") == "1.5"
    # A read that is cut into slices loses what was on its way when a slice ends.
    with pytest.raises(LinkError, match="no reply"):
        dialog.query("READ?", takes_s=2.0)
    assert fake.timeouts == [pytest.approx(3e3, rel=0.01), pytest.approx(6e3, rel=0.01)]


def test_a_message_that_ends_without_a_line_feed_is_taken_at_once(mocker: MockerFixture) -> None:
    fake = FakeDevice(
        mocker,
        (b"1.5", StatusCode.success),
        (b"#1", StatusCode.success_max_count_read),
        (b"3", StatusCode.success_max_count_read),
        (b"\n\n\n", StatusCode.success_max_count_read),
        (b"\n", StatusCode.success),
    )
    dialog = Dialog(VisaLink("USB0::0x05E6::0x2450::01::INSTR"), ese_probe, timeout_s=30.0)
    dialog.open()
    assert dialog.query("READ?") == "1.5"
    assert dialog.query_block("BLOCK?") == b"\n\n\n"
    assert len(fake.timeouts) == 5


def test_a_device_clear_brings_a_message_interface_into_step(mocker: MockerFixture) -> None:
    fake = FakeDevice(mocker, TIMEOUT, (b"1\n", StatusCode.success), (b"2.5\n", StatusCode.success))
    dialog = Dialog(VisaLink("GPIB0::24::INSTR"), ese_probe, timeout_s=0.1)
    dialog.open()
    with pytest.raises(LinkError, match="no reply"):
        dialog.query("READ?")
    assert dialog.query("READ?") == "2.5"
    fake.device.clear.assert_called_once()
    fake.device.clear.side_effect = RuntimeError("interface gone")
    dialog.out_of_step()
    with pytest.raises(LinkError, match="device clear failed: interface gone"):
        dialog.query("READ?")
    fake.device.close.assert_called_once()


ODD = [
    Exception("could not connect: success_nonstandard"),
    ValueError("Please install PyUSB to use this resource type"),
    OSError(5, "Input/output error"),
    pyvisa.VisaIOError(StatusCode.error_resource_busy),
    AttributeError("'NoneType' object has no attribute 'write'"),
]


@pytest.mark.parametrize("error", ODD, ids=repr)
def test_whatever_opening_raises_is_a_link_error_and_nothing_stays_open(
    error: Exception, mocker: MockerFixture
) -> None:
    fake = FakeDevice(mocker)
    fake.manager.return_value.open_resource.side_effect = error
    link = VisaLink("USB0::1::2::3::INSTR")
    with pytest.raises(LinkError, match=r"USB0::1::2::3::INSTR: cannot be opened: "):
        link.open()
    assert not link.is_open


@pytest.mark.parametrize(
    "error", [*ODD, pyvisa.VisaIOError(StatusCode.error_connection_lost)], ids=repr
)
def test_whatever_writing_and_reading_raise_is_a_link_error_and_closes(
    error: Exception, mocker: MockerFixture
) -> None:
    for is_write in (True, False):
        fake = FakeDevice(mocker, error)
        fake.device.write_raw.side_effect = error if is_write else None
        dialog = Dialog(VisaLink("GPIB0::24::INSTR"), ese_probe, timeout_s=0.1)
        dialog.open()
        with pytest.raises(LinkError, match="writing failed" if is_write else "reading failed"):
            dialog.query("READ?")
        assert not dialog.link.is_open
        fake.device.close.assert_called_once()


def test_closing_never_raises(mocker: MockerFixture) -> None:
    fake = FakeDevice(mocker)
    fake.device.close.side_effect = pyvisa.errors.InvalidSession()
    link = VisaLink("GPIB0::24::INSTR")
    link.open()
    link.close()
    assert not link.is_open
    fake.device.close.assert_called_once()


def test_a_link_that_closes_or_drains_leaves_other_links_alone(open_to: OpenTo) -> None:
    dialogs = [open_to()[0] for _ in range(3)]
    dialogs[0].close()
    dialogs[1].out_of_step()
    for dialog in (dialogs[1], dialogs[2]):
        assert dialog.query("READ?") == "<READ?>"
    dialogs[2].link.drain()
    assert dialogs[1].query("READ?") == "<READ?>"
    assert dialogs[1].transactions == 3


def test_serial_settings_reach_the_port(mocker: MockerFixture) -> None:
    made = mocker.patch("serial.serial_for_url")
    make_link("/dev/ttyUSB0", baud=57600, xonxoff=True).open()
    assert made.call_args.args == ("/dev/ttyUSB0",)
    told = made.call_args.kwargs
    assert (told["baudrate"], told["xonxoff"], told["exclusive"]) == (57600, True, True)


@pytest.mark.parametrize(
    "error", [serial.SerialException("device disconnected"), OSError(5, "Input/output error")]
)
def test_a_serial_port_that_is_pulled_out_is_a_link_error_and_closes(
    error: Exception, mocker: MockerFixture
) -> None:
    for call in ("write", "read"):
        port = mocker.patch("serial.serial_for_url").return_value
        getattr(port, call).side_effect = error
        port.close.side_effect = OSError("gone")
        dialog = Dialog(SerialLink("COM3"), ese_probe, timeout_s=0.1)
        dialog.open()
        with pytest.raises(LinkError, match="COM3"):
            dialog.query("READ?")
        assert not dialog.link.is_open
        port.close.assert_called_once()


@given(st.floats(allow_nan=False, allow_infinity=False, min_value=-1e37, max_value=1e37))
def test_a_number_is_never_rounded_to_nothing(value: float) -> None:
    assert float(number(value)) == pytest.approx(value, rel=1e-9, abs=0.0)
    assert (float(number(value)) == 0.0) == (value == 0.0 or abs(value) < 5e-324)
