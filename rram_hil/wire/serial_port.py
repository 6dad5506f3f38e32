"""A link over a serial port."""

from __future__ import annotations

import contextlib
import os
import socket
from typing import Any

import serial
from serial.tools import list_ports

from rram_hil.errors import ConfigError, LinkError
from rram_hil.wire.link import QUIET_S, SLICE_S, Link
from rram_hil.wire.recording import Traffic


class SerialLink(Link):
    """A serial port (COM3, /dev/ttyUSB0) or a pyserial URL (socket://host:port)."""

    def __init__(
        self,
        resource: str,
        traffic: Traffic | None = None,
        *,
        baud: int = 9600,
        parity: str = serial.PARITY_NONE,
        bytesize: int = serial.EIGHTBITS,
        stopbits: float = serial.STOPBITS_ONE,
        xonxoff: bool = False,
        rtscts: bool = False,
        dsrdtr: bool = False,
    ) -> None:
        super().__init__(resource, traffic)
        self._settings: dict[str, Any] = {
            "baudrate": baud,
            "parity": parity,
            "bytesize": bytesize,
            "stopbits": stopbits,
            "xonxoff": xonxoff,
            "rtscts": rtscts,
            "dsrdtr": dsrdtr,
        }
        self._usb_serial = ""
        """Serial number of the USB device that the port was, where it was one."""
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
        name = self._name_now()
        try:
            self._port = serial.serial_for_url(
                name, timeout=SLICE_S, write_timeout=5.0, exclusive=True, **settings
            )
        except ValueError as error:
            raise ConfigError(f"{self.resource!r} is no serial port or URL: {error}") from None
        except Exception as error:  # termios has an error of its own
            look = (
                "is it on, and does it listen there?"
                if "://" in name
                else "is it plugged in and no other program using it?"
            )
            raise LinkError(f"cannot be opened: {error}; {look}", where=self.resource) from None
        if not self._usb_serial:
            self._usb_serial = _usb_serials().get(name, "")
        inner = getattr(self._port, "_socket", None)
        if isinstance(inner, socket.socket):
            inner.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def _name_now(self) -> str:
        """The port's name; where the same USB device has come back under another one, that."""
        if self._usb_serial:
            found = _usb_serials()
            if found.get(self.resource) != self._usb_serial:
                same = [name for name, number in found.items() if number == self._usb_serial]
                return same[0] if len(same) == 1 else self.resource
        return self.resource

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
            raise LinkError(f"writing failed: {error}", where=self.resource) from None

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
            raise LinkError(f"the instrument is gone: {error}", where=self.resource) from None

    def _drain(self) -> None:
        while self._receive(1 << 16, QUIET_S, b""):
            pass

    def _opened(self) -> serial.SerialBase:
        if self._port is None:
            raise LinkError("the link is not open", where=self.resource)
        return self._port


def _usb_serials() -> dict[str, str]:
    """Serial ports that are USB devices with a serial number, by name. Empty where they cannot be
    listed.
    """
    try:
        return {p.device: p.serial_number for p in list_ports.comports() if p.serial_number}
    except Exception:  # the operating system's listing fails as it pleases
        return {}
