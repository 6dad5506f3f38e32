"""Which link an address means."""

from __future__ import annotations

import ipaddress
from typing import Any

from rram_hil.errors import ConfigError
from rram_hil.wire.gpib_adapter import GpibAdapterLink
from rram_hil.wire.link import Link
from rram_hil.wire.playback_link import PlaybackLink
from rram_hil.wire.recording import Playback, Traffic
from rram_hil.wire.serial_port import SerialLink
from rram_hil.wire.visa import VisaLink


def make_link(
    resource: str,
    traffic: Traffic | None = None,
    *,
    gpib_address: int | None = None,
    visa_library: str = "",
    **serial_settings: Any,
) -> Link:
    """The link that a resource names, not yet open: a VISA name has "::" in it, everything else is
    serial.

    `serial_settings` are those of `SerialLink`, for a serial port of either name. With
    `gpib_address` the resource is a Prologix or AR488 adapter. With a `Playback` the recorded far
    side stands in.
    """
    if not resource:
        raise ConfigError(
            "resource: missing; give a VISA resource (TCPIP::192.168.1.5::5025::SOCKET) or a serial"
            " port"
        )
    _refuse_bare_address(resource)
    if gpib_address is not None:
        adapter = make_link(resource, visa_library=visa_library, **serial_settings)
        link = GpibAdapterLink(adapter, gpib_address, traffic)
        return PlaybackLink(link.resource, traffic) if isinstance(traffic, Playback) else link
    if isinstance(traffic, Playback):
        return PlaybackLink(resource, traffic)
    if "::" in resource:
        return VisaLink(resource, traffic, backend=visa_library, **serial_settings)
    return SerialLink(resource, traffic, **serial_settings)


def _refuse_bare_address(resource: str) -> None:
    """Raise `ConfigError` for an IP address, or one with a port, that would pass for the name of a
    serial port.
    """
    host, _, port = resource.partition(":")
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return
    raise ConfigError(
        f"{resource!r} is an IP address and no resource; write"
        f" TCPIP::{host}::{port or 5025}::SOCKET with the port of the instrument's manual"
    )
