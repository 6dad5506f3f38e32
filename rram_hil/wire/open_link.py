"""Which link an address means."""

from __future__ import annotations

from typing import Any

from rram_hil.errors import ConfigError
from rram_hil.wire.link import Link
from rram_hil.wire.playback_link import PlaybackLink
from rram_hil.wire.recording import Playback, Traffic
from rram_hil.wire.serial_port import SerialLink
from rram_hil.wire.visa import VisaLink


def make_link(resource: str, traffic: Traffic | None = None, **serial_settings: Any) -> Link:
    """The link that a resource names, not yet open: a VISA name has "::" in it, everything else is
    serial.

    `serial_settings` are those of `SerialLink`; with a `Playback` the recorded far side stands in.
    """
    if not resource:
        raise ConfigError(
            "resource: missing; give a VISA resource (TCPIP::192.168.1.5::5025::SOCKET) or a serial"
            " port"
        )
    if isinstance(traffic, Playback):
        return PlaybackLink(resource, traffic)
    if "::" in resource:
        return VisaLink(resource, traffic)
    return SerialLink(resource, traffic, **serial_settings)
