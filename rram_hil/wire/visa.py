"""A link over VISA."""

from __future__ import annotations

import contextlib
import os
import socket
import warnings
from typing import Any

from rram_hil.errors import ConfigError, LinkError
from rram_hil.wire.link import QUIET_S, Link
from rram_hil.wire.recording import Traffic

STUCK_S = 5.0
"""How long a socket may take nothing of a message before the far side counts as gone."""


def visa_library(given: str = "") -> str:
    """The VISA library to use: the one given, else that of PYVISA_LIBRARY, else pyvisa-py."""
    return given or os.environ.get("PYVISA_LIBRARY", "") or "@py"


class VisaLink(Link):
    """A VISA resource (GPIB, USB, LAN, serial). `backend` is as of `visa_library`; the serial
    settings are those of `SerialLink` and are for an ASRL name.
    """

    def __init__(
        self,
        resource: str,
        traffic: Traffic | None = None,
        *,
        backend: str = "",
        **serial_settings: Any,
    ) -> None:
        super().__init__(resource, traffic)
        self._backend = backend
        self._serial_settings = serial_settings if resource.upper().startswith("ASRL") else {}
        self._is_socket = resource.upper().endswith("SOCKET")
        if not self._is_socket:
            # A read of GPIB or USB that times out may lose what was on its way: it waits for the
            # whole time at once.
            self.slice_s = float("inf")
        self._device: Any = None
        self._socket: socket.socket | None = None

    @property
    def is_open(self) -> bool:
        """Whether it is open."""
        return self._device is not None

    def _open(self) -> None:
        import pyvisa

        self._close()
        try:
            # There is one manager a library in a process, and closing it closes what others have
            # opened: it stays open. It warns of each optional package that is not whole; what this
            # link lacks is an error when it is opened.
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                manager = pyvisa.ResourceManager(visa_library(self._backend))
            self._device = manager.open_resource(self.resource, open_timeout=5000)
            for name, value in _serial_attributes(self._serial_settings).items():
                setattr(self._device, name, value)
        except Exception as error:  # pyvisa-py raises bare Exception where a connection fails
            invalid = pyvisa.constants.StatusCode.error_invalid_resource_name
            if getattr(error, "error_code", None) == invalid or isinstance(
                error, pyvisa.rname.InvalidResourceName
            ):
                self._close()
                raise ConfigError(
                    f"{self.resource!r} is no VISA resource name, as"
                    " TCPIP::192.168.1.5::5025::SOCKET and GPIB0::24::INSTR are"
                ) from None
            raise self._lost("cannot be opened", error) from None
        # pyvisa-py's own socket: it is read and probed without VISA attributes, three a read, and
        # Nagle's algorithm, which holds a second small message back for up to 44 ms, is off.
        session = getattr(self._device.visalib, "sessions", {}).get(self._device.session)
        inner = getattr(session, "interface", None)
        self._socket = inner if self._is_socket and isinstance(inner, socket.socket) else None
        if self._socket is not None:
            # pyvisa-py takes a refused connection for an open one.
            if refused := self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                raise self._lost("cannot be opened", OSError(refused, os.strerror(refused)))
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def _close(self) -> None:
        device, self._device, self._socket = self._device, None, None
        if device is not None:
            with contextlib.suppress(Exception):
                device.close()

    def _send(self, data: bytes) -> None:
        device = self._opened()
        try:
            if self._socket is None:
                device.write_raw(data)
            else:
                # pyvisa-py would wait without an end for a far side that takes nothing.
                _send_all(self._socket, data)
        except Exception as error:  # a refused or broken socket comes as it pleases
            raise self._lost("writing failed", error) from None

    def _receive(self, most: int, timeout_s: float, until: bytes) -> bytes:
        if self._socket is not None:
            return self._from_socket(self._socket, timeout_s)
        from pyvisa import constants
        from pyvisa.errors import VisaIOError

        device = self._opened()
        try:
            device.timeout = max(1.0, timeout_s * 1e3)
            device.set_visa_attribute(
                constants.ResourceAttribute.termchar, until[0] if until else 10
            )
            device.set_visa_attribute(constants.ResourceAttribute.termchar_enabled, bool(until))
            with device.ignore_warning(constants.StatusCode.success_max_count_read):
                data, status = device.visalib.read(device.session, most)
            self._is_whole = not self._is_socket and status == constants.StatusCode.success
            return bytes(data)
        except VisaIOError as error:
            if error.error_code == constants.StatusCode.error_timeout:
                return b""
            raise self._lost("reading failed", error) from None
        except Exception as error:
            raise self._lost("reading failed", error) from None

    def _from_socket(self, connection: socket.socket, timeout_s: float) -> bytes:
        """What has come or comes first within the time, however much that is."""
        try:
            connection.settimeout(max(timeout_s, 1e-3))
            data = connection.recv(1 << 16)
        except TimeoutError:
            return b""
        except OSError as error:
            raise self._lost("the connection is broken", error) from None
        if not data:
            raise self._lost("reading failed", ConnectionError("the instrument has closed it"))
        return data

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
            raise LinkError("the link is not open", where=self.resource)
        return self._device

    def _lost(self, what: str, error: BaseException) -> LinkError:
        self._close()
        said = _one_line(str(error)) or type(error).__name__
        return LinkError(f"{what}: {said}", where=self.resource)


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _send_all(connection: socket.socket, data: bytes) -> None:
    """Send all of it, however slowly it is taken. Raises `OSError`."""
    connection.settimeout(STUCK_S)
    left = memoryview(data)
    while left:
        left = left[connection.send(left) :]


def _serial_attributes(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings of `SerialLink` as pyvisa's serial devices have them."""
    from pyvisa import constants

    parities = {
        "N": constants.Parity.none,
        "E": constants.Parity.even,
        "O": constants.Parity.odd,
        "M": constants.Parity.mark,
        "S": constants.Parity.space,
    }
    stops = {1: constants.StopBits.one, 2: constants.StopBits.two}
    flows = {
        "xonxoff": constants.ControlFlow.xon_xoff,
        "rtscts": constants.ControlFlow.rts_cts,
        "dsrdtr": constants.ControlFlow.dtr_dsr,
    }
    made: dict[str, Any] = {}
    if "baud" in settings:
        made["baud_rate"] = settings["baud"]
    if "parity" in settings:
        made["parity"] = parities[settings["parity"]]
    if "bytesize" in settings:
        made["data_bits"] = settings["bytesize"]
    if "stopbits" in settings:
        made["stop_bits"] = stops[settings["stopbits"]]
    for key, flow in flows.items():
        if settings.get(key):
            made["flow_control"] = flow
    return made
