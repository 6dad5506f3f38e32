"""Links to instruments: bytes over VISA or a serial port, and whole transactions with text instruments over them.

A `Link` moves bytes and knows nothing of their meaning; a `Dialog` holds one lock around each transaction and keeps command and
reply in step: after a timeout nothing is believed until the link was drained and the instrument has answered a question
that no old reply answers. Times are seconds of the computer's clock. Every error is a `LinkError` that names the resource.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import Any

import serial

from rram_hil.errors import ConfigError, DataError, LinkError
from rram_hil.traffic import Playback, Recorder, Traffic

SLICE_S = 0.05
"""Longest wait of one low-level read where a wait may be cut without losing what has come."""
QUIET_S = 0.1
"""Silence after which a drained link counts as empty."""
LARGEST_REPLY = 1 << 24

Probe = Callable[[int], tuple[str, str]]
"""probe(nonce in 1..127) -> (query, its reply): a question whose reply nobody can have asked for before."""


class Link(ABC):
    """Bytes to and from one instrument. Not safe for several threads: `Dialog`, or a driver's own lock, sees to that."""

    slice_s = SLICE_S
    """Longest wait of one low-level read."""

    def __init__(self, resource: str, traffic: Traffic | None = None) -> None:
        self.resource = resource
        self._recorder = traffic if isinstance(traffic, Recorder) else None
        self._ahead = bytearray()
        self._is_whole = False
        """Whether what was received last ended with the message itself (GPIB, USB): nothing more belongs to it."""

    def open(self) -> None:
        """Open it. Raises `LinkError` where that fails, `ConfigError` for a resource that is none."""
        with self._noted_errors(opening=True):
            self._open()
        self._note("open")

    def close(self) -> None:
        """Give it back. Never raises; safe to call twice."""
        if self.is_open:
            with contextlib.suppress(LinkError, DataError):
                self._note("close")
        self._ahead.clear()
        self._close()

    def send(self, data: bytes) -> None:
        """Send all of `data`. Raises `LinkError`."""
        with self._noted_errors():
            self._send(data)
        self._note("send", data)

    def receive(self, most: int, timeout_s: float, until: bytes = b"") -> bytes:
        """Up to `most` bytes, ending with the byte `until` where one is given; what came within the time, perhaps nothing.

        Raises `LinkError` where the far side is gone.
        """
        deadline_s = time.monotonic() + timeout_s
        while True:
            at = self._ahead.find(until) if until else -1
            size = at + 1 if at >= 0 else most if len(self._ahead) >= most else len(self._ahead) * self._is_whole
            left_s = deadline_s - time.monotonic()
            if size or left_s <= 0:
                size = min(size or len(self._ahead), most)
                data = bytes(self._ahead[:size])
                del self._ahead[:size]
                self._note("receive", data)
                return data
            self._is_whole = False
            with self._noted_errors():
                came = self._receive(most - len(self._ahead), min(left_s, self.slice_s), until)
            self._ahead += came
            if not came and self.slice_s > left_s:
                deadline_s = time.monotonic()  # it has waited for the whole time

    def drain(self) -> None:
        """Throw away what has come and comes until the far side is quiet; device clear where the interface has one."""
        self._ahead.clear()
        with self._noted_errors():
            self._drain()
        self._note("drain")

    @property
    @abstractmethod
    def is_open(self) -> bool:
        """Whether it is open."""

    @abstractmethod
    def _open(self) -> None: ...

    @abstractmethod
    def _close(self) -> None: ...

    @abstractmethod
    def _send(self, data: bytes) -> None: ...

    @abstractmethod
    def _receive(self, most: int, timeout_s: float, until: bytes) -> bytes: ...

    @abstractmethod
    def _drain(self) -> None: ...

    def _note(self, do: Any, data: bytes = b"") -> None:
        if self._recorder is not None:
            self._recorder.note(self.resource, do, data)

    @contextlib.contextmanager
    def _noted_errors(self, *, opening: bool = False) -> Iterator[None]:
        was_open = self.is_open
        try:
            yield
        except LinkError as error:
            if not (was_open or opening):
                raise
            self._note("error", str(error).encode("latin-1", "replace"))
            if not self.is_open:
                self._note("close")
            raise


class VisaLink(Link):
    """A VISA resource (GPIB, USB, LAN). pyvisa-py is used unless `backend` names another library ("@ivi" for the vendor's)."""

    def __init__(self, resource: str, traffic: Traffic | None = None, *, backend: str = "@py") -> None:
        super().__init__(resource, traffic)
        self._backend = backend
        self._is_socket = resource.upper().endswith("SOCKET")
        if not self._is_socket:
            # A read of GPIB or USB that times out may lose what was on its way: it waits for the whole time at once.
            self.slice_s = float("inf")
        self._device: Any = None

    @property
    def is_open(self) -> bool:
        """Whether it is open."""
        return self._device is not None

    def _open(self) -> None:
        import pyvisa

        self._close()
        try:
            # There is one manager a library in a process, and closing it closes what others have opened: it stays open.
            self._device = pyvisa.ResourceManager(self._backend).open_resource(self.resource, open_timeout=5000)
        except Exception as error:  # pyvisa-py raises bare Exception where a connection fails
            invalid = pyvisa.constants.StatusCode.error_invalid_resource_name
            if getattr(error, "error_code", None) == invalid or isinstance(error, pyvisa.rname.InvalidResourceName):
                self._close()
                raise ConfigError(f"{self.resource!r} is no VISA resource name") from None
            raise self._lost("cannot be opened", error) from None
        if self._is_socket:
            # pyvisa-py then gives what has come when a wait ends, instead of throwing it away.
            self._device.set_visa_attribute(pyvisa.constants.ResourceAttribute.suppress_end_enabled, False)
        # Nagle's algorithm holds a second small message back for up to 44 ms; pyvisa-py leaves it on.
        session = getattr(self._device.visalib, "sessions", {}).get(self._device.session)
        inner = getattr(session, "interface", None)
        if isinstance(inner, socket.socket):
            # pyvisa-py takes a refused connection for an open one.
            if refused := inner.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                raise self._lost("cannot be opened", OSError(refused, os.strerror(refused)))
            inner.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def _close(self) -> None:
        device, self._device = self._device, None
        if device is not None:
            with contextlib.suppress(Exception):
                device.close()

    def _send(self, data: bytes) -> None:
        device = self._opened()
        try:
            device.write_raw(data)
        except Exception as error:  # a refused or broken socket comes as it pleases
            raise self._lost("writing failed", error) from None

    def _receive(self, most: int, timeout_s: float, until: bytes) -> bytes:
        from pyvisa import constants
        from pyvisa.errors import VisaIOError

        device = self._opened()
        try:
            device.timeout = max(1.0, timeout_s * 1e3)
            device.set_visa_attribute(constants.ResourceAttribute.termchar, until[0] if until else 10)
            device.set_visa_attribute(constants.ResourceAttribute.termchar_enabled, bool(until))
            with device.ignore_warning(constants.StatusCode.success_max_count_read):
                data, status = device.visalib.read(device.session, most)
            self._is_whole = not self._is_socket and status == constants.StatusCode.success
            return bytes(data)
        except VisaIOError as error:
            if error.error_code == constants.StatusCode.error_timeout:
                self._probe_peer(timeout_s)
                return b""
            raise self._lost("reading failed", error) from None
        except Exception as error:
            raise self._lost("reading failed", error) from None

    def _probe_peer(self, timeout_s: float) -> None:
        """pyvisa-py reports a peer that has closed its socket as a timeout: ask the socket itself."""
        session = getattr(self._opened().visalib, "sessions", {}).get(self._opened().session)
        inner = getattr(session, "interface", None)
        if not isinstance(inner, socket.socket):
            return
        before = inner.gettimeout()
        try:
            inner.setblocking(False)
            if inner.recv(1, socket.MSG_PEEK) == b"":
                raise LinkError(f"{self.resource}: the instrument has closed the connection")
        except BlockingIOError:
            pass
        except OSError as error:
            raise self._lost("the connection is broken", error) from None
        finally:
            with contextlib.suppress(OSError):
                inner.settimeout(before)

    def _drain(self) -> None:
        if self._is_socket:
            # What was on its way to the old connection cannot reach the new one.
            self._close()
            self._open()
            while self._receive(1 << 16, QUIET_S, b""):
                pass
            return
        try:
            self._opened().clear()
        except Exception as error:
            raise self._lost("device clear failed", error) from None

    def _opened(self) -> Any:
        if self._device is None:
            raise LinkError(f"{self.resource}: the link is not open")
        return self._device

    def _lost(self, what: str, error: BaseException) -> LinkError:
        self._close()
        return LinkError(f"{self.resource}: {what}: {error or type(error).__name__}")


class SerialLink(Link):
    """A serial port (COM3, /dev/ttyUSB0) or a pyserial URL (socket://host:port)."""

    def __init__(
        self,
        resource: str,
        traffic: Traffic | None = None,
        *,
        baud: int = 9600,
        parity: str = serial.PARITY_NONE,
        stopbits: float = serial.STOPBITS_ONE,
        xonxoff: bool = False,
    ) -> None:
        super().__init__(resource, traffic)
        self._settings: dict[str, Any] = {"baudrate": baud, "parity": parity, "stopbits": stopbits, "xonxoff": xonxoff}
        self._port: serial.SerialBase | None = None

    @property
    def is_open(self) -> bool:
        """Whether it is open."""
        return self._port is not None

    def _open(self) -> None:
        self._close()
        settings = dict(self._settings)
        if os.path.realpath(self.resource).startswith("/dev/pts/"):
            # A pseudo-terminal carries no parity bit, and refuses to be told to.
            settings["parity"] = serial.PARITY_NONE
        try:
            self._port = serial.serial_for_url(
                self.resource, timeout=SLICE_S, write_timeout=5.0, exclusive=True, **settings
            )
        except ValueError as error:
            raise ConfigError(f"{self.resource!r} is no serial port or URL: {error}") from None
        except Exception as error:  # termios has an error of its own
            raise LinkError(
                f"{self.resource}: cannot be opened: {error}; is it plugged in and no other program using it?"
            ) from None
        inner = getattr(self._port, "_socket", None)
        if isinstance(inner, socket.socket):
            inner.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def _close(self) -> None:
        port, self._port = self._port, None
        if port is not None:
            with contextlib.suppress(OSError, serial.SerialException):
                port.close()

    def _send(self, data: bytes) -> None:
        try:
            self._opened().write(data)
        except (OSError, serial.SerialException) as error:
            self._close()
            raise LinkError(f"{self.resource}: writing failed: {error}") from None

    def _receive(self, most: int, timeout_s: float, until: bytes) -> bytes:
        port = self._opened()
        try:
            port.timeout = timeout_s
            data = port.read(1)
            if data and most > 1:
                # What is there already; `in_waiting` of a socket says 1 at most.
                port.timeout = 0
                data += port.read(most - 1)
            return bytes(data)
        except (OSError, serial.SerialException) as error:
            self._close()
            raise LinkError(f"{self.resource}: the instrument is gone: {error}") from None

    def _drain(self) -> None:
        while self._receive(1 << 16, QUIET_S, b""):
            pass

    def _opened(self) -> serial.SerialBase:
        if self._port is None:
            raise LinkError(f"{self.resource}: the link is not open")
        return self._port


class PlaybackLink(Link):
    """Stands for a link of a recording: sends are compared with it, replies come from it.

    A silence takes as long as it took, up to `SLICE_S`: long enough for a driver that counts time to give up.
    """

    def __init__(self, resource: str, playback: Playback) -> None:
        super().__init__(resource)
        self._playback = playback

    @property
    def is_open(self) -> bool:
        """Whether it is open."""
        return self._playback.is_open(self.resource)

    def receive(self, most: int, timeout_s: float, until: bytes = b"") -> bytes:
        """What came then. Raises `LinkError` where the link failed then, `DataError` where the recording has no reply."""
        return self._receive(most, timeout_s, until)

    def _open(self) -> None:
        self._playback.opened(self.resource)

    def _close(self) -> None:
        self._playback.closed(self.resource)

    def _send(self, data: bytes) -> None:
        self._playback.sent(self._opened(), data)

    def _receive(self, most: int, timeout_s: float, until: bytes) -> bytes:
        data = self._playback.received(self._opened(), most, until)
        if not data:
            time.sleep(min(timeout_s, SLICE_S))
        return data

    def _drain(self) -> None:
        self._playback.drained(self._opened())

    def _opened(self) -> str:
        if not self.is_open:
            raise LinkError(f"{self.resource}: the link is not open")
        return self.resource


def make_link(resource: str, traffic: Traffic | None = None, **serial_settings: Any) -> Link:
    """The link that a resource names, not yet open: a VISA name has "::" in it, everything else is serial.

    `serial_settings` are those of `SerialLink`; with a `Playback` the recorded far side stands in.
    """
    if not resource:
        raise ConfigError("resource: missing; give a VISA resource (TCPIP::192.168.1.5::5025::SOCKET) or a serial port")
    if isinstance(traffic, Playback):
        return PlaybackLink(resource, traffic)
    if "::" in resource:
        return VisaLink(resource, traffic)
    return SerialLink(resource, traffic, **serial_settings)


class Dialog:
    """Whole transactions with an instrument that takes lines of text; one lock around each.

    `probe` makes the question that proves the link in step after a timeout. `transactions` counts the turns on the link, `sent`
    and `received` bytes. A reply is awaited for `timeout_s` and `slack` times as long as the instrument says that it works.
    """

    slack = 1.5

    def __init__(
        self, link: Link, probe: Probe, *, timeout_s: float = 2.0, ending: bytes = b"\n", name: str = ""
    ) -> None:
        self.link = link
        self.lock = threading.RLock()
        self.timeout_s = timeout_s
        self.name = name
        self.transactions = 0
        self.bytes_sent = 0
        self.bytes_received = 0
        self._probe = probe
        self._nonce = 0
        self._ending = ending
        self._in_step = True

    def open(self) -> None:
        """Open the link."""
        with self.lock:
            self.link.open()
            self._in_step = True

    def close(self) -> None:
        """Close the link. Never raises."""
        with self.lock:
            self.link.close()

    def write(self, command: str) -> None:
        """Send one message that has no reply. Raises `LinkError`."""
        with self.lock:
            self._get_in_step()
            self.transactions += 1
            self._send(command)

    def query(self, command: str, *, takes_s: float = 0.0) -> str:
        """Send one message and return its one-line reply, endings stripped.

        `takes_s` is how long the instrument works before it answers; the timeout follows it. Raises `LinkError` for a timeout
        (the link is then brought back into step before its next use) or a reply that is no text.
        """
        with self.lock:
            self._get_in_step()
            self.transactions += 1
            with self._out_of_step_on_error():
                self._send(command)
                return self._line(command, takes_s)

    def query_block(self, command: str, *, takes_s: float = 0.0) -> bytes:
        """Send one message and return the data of its IEEE 488.2 definite-length block ("#", digits, length, data)."""
        with self.lock:
            self._get_in_step()
            self.transactions += 1
            with self._out_of_step_on_error():
                self._send(command)
                return self._block(command, takes_s)

    def query_block_and_line(self, command: str, *, takes_s: float = 0.0) -> tuple[bytes, str]:
        """Like `query_block` for a message with two queries: the block, and the text that follows it behind ";"."""
        with self.lock:
            self._get_in_step()
            self.transactions += 1
            with self._out_of_step_on_error():
                self._send(command)
                data = self._block(command, takes_s, last=False)
                return data, self._line(command, 0.0).lstrip(";")

    def query_lines(
        self, command: str, last: str | Callable[[str], bool], *, takes_s: float = 0.0, block_of: int = 0
    ) -> tuple[bytes, list[str]]:
        """Send one message of several lines and return the lines of its reply up to the one that begins with `last`, included.

        `last` may also be a function that is called once with each line and tells whether it is the last one.
        With `block_of`, a first line that is a number n may be followed by an indefinite-length block ("#0", n values of
        `block_of` bytes, line feed), whose data come first; else they are empty. Raises as `query`.
        """
        with self.lock:
            self._get_in_step()
            self.transactions += 1
            with self._out_of_step_on_error():
                self._send(command)
                lines = [self._line(command, takes_s)]
                data = b""
                if block_of and lines[0].isdigit() and int(lines[0]):
                    size = int(lines[0]) * block_of
                    if size > LARGEST_REPLY:
                        raise LinkError(f"{self.link.resource}: a data block of {size} bytes is not believed")
                    if (head := self._exactly(2, command)) == b"#0":
                        data = self._exactly(size, command)
                        self.bytes_received += size + 3
                        self._exactly(1, command)
                    else:
                        lines.append((head + self._line(command, 0.0).encode("latin-1")).decode("latin-1"))
                while not (last(lines[-1]) if callable(last) else lines[-1].startswith(last)):
                    lines.append(self._line(command, takes_s))
                return data, lines

    def _send(self, command: str) -> None:
        data = command.encode("latin-1") + self._ending
        self.link.send(data)
        self.bytes_sent += len(data)

    def _line(self, command: str, takes_s: float) -> str:
        timeout_s = self.timeout_s + self.slack * takes_s
        data = self.link.receive(LARGEST_REPLY, timeout_s, b"\n")
        self.bytes_received += len(data)
        if not data.endswith(b"\n"):
            # A message interface (GPIB, USB) may end a reply without a line feed.
            if data and not isinstance(self.link, SerialLink) and not self.link.resource.upper().endswith("SOCKET"):
                return data.decode("latin-1").strip()
            raise self._silent(command, timeout_s, data)
        try:
            return data.decode("ascii").strip()
        except UnicodeDecodeError:
            raise LinkError(f"{self.link.resource}: the reply to {command[:60]!r} is no text: {data[:40]!r}") from None

    def _block(self, command: str, takes_s: float, *, last: bool = True) -> bytes:
        timeout_s = self.timeout_s + self.slack * takes_s
        head = self.link.receive(2, timeout_s)
        if len(head) < 2:
            raise self._silent(command, timeout_s, head)
        if head[:1] != b"#" or not head[1:].isdigit() or head == b"#0":
            raise LinkError(f"{self.link.resource}: the reply to {command[:60]!r} is no data block: it begins {head!r}")
        digits = self._exactly(int(head[1:]), command)
        if not digits.isdigit() or int(digits) > LARGEST_REPLY:
            raise LinkError(f"{self.link.resource}: a data block of {digits!r} bytes is not believed")
        data = self._exactly(int(digits), command)
        self.bytes_received += len(head) + len(digits) + len(data)
        if last:
            self._exactly(1, command)
        return data

    def _exactly(self, count: int, command: str) -> bytes:
        data = b""
        while len(data) < count:
            part = self.link.receive(count - len(data), self.timeout_s)
            if not part:
                raise self._silent(command, self.timeout_s, data)
            data += part
        return data

    def _silent(self, command: str, timeout_s: float, data: bytes) -> LinkError:
        what = f"only {data[:40]!r} came" if data else "no reply"
        return LinkError(f"{self.link.resource}: {what} to {command[:60]!r} within {timeout_s:.3g} s")

    @contextlib.contextmanager
    def _out_of_step_on_error(self) -> Iterator[None]:
        try:
            yield
        except BaseException:
            self._in_step = False
            raise

    def out_of_step(self) -> None:
        """Say that the link may hold a reply that nobody waits for: it is drained and proved before its next use."""
        self._in_step = False

    def _get_in_step(self) -> None:
        """After a timeout: drain, then ask until the answer is the one to this very question."""
        if not self.link.is_open:
            raise LinkError(f"{self.link.resource}: the link is not open")
        if self._in_step:
            return
        self.link.drain()
        for _ in range(3):
            self._nonce = self._nonce % 127 + 1
            query, expected = self._probe(self._nonce)
            self.transactions += 1
            self._send(query)
            reply = self.link.receive(LARGEST_REPLY, self.timeout_s, b"\n").decode("latin-1").strip()
            if reply == expected:
                self._in_step = True
                return
            self.link.drain()
        raise LinkError(f"{self.link.resource}: the instrument does not answer in step; last reply {reply[:60]!r}")


def number(value: float) -> str:
    """A number as commands carry it: ten significant digits, never rounded to nothing (%f turns 100 nA into 0.000000)."""
    return f"{value:.9e}"


def ese_probe(nonce: int) -> tuple[str, str]:
    """A probe for instruments with the IEEE 488.2 common commands: the event-status enable register written and read back."""
    return f"*ESE {nonce};*ESE?", str(nonce)
