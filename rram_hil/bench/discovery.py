"""`rram-hil devices`: what can be reached from this computer, who answers, and which driver fits.

An instrument is asked `*IDN?` and nothing else; no output moves. A serial port is opened only where
that is asked for: opening one toggles its control lines, which resets some boards, and the line
rate is not known.
"""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal

from rram_hil.bench.plugins import driver_class
from rram_hil.errors import ConfigError, LinkError
from rram_hil.hardware.instrument import (
    Instrument,
    ModelSheet,
    PulseGenerator,
    SourceMeter,
    SwitchMatrix,
    instrument_class,
)
from rram_hil.hardware.oscilloscope import Oscilloscope
from rram_hil.hardware.thermostat import Thermostat
from rram_hil.hardware.undriven import why_undriven
from rram_hil.plugins import working
from rram_hil.wire.open_link import make_link
from rram_hil.wire.recording import Traffic
from rram_hil.wire.visa import visa_library

ANSWER_S = 1.0
LONGEST_ANSWER = 4096
KXCI = re.compile(r"::1225::SOCKET$", re.IGNORECASE)
"""Where a 4200A-SCS listens, whose messages end with a NUL."""
NOT_OPENED = (
    "a serial port, not opened: opening toggles its control lines, and the line rate is unknown;"
    " --probe-serial asks it"
)

NO_ADDRESS = (
    "neither a VISA resource (TCPIP::192.168.1.5::5025::SOCKET, GPIB0::24::INSTR) nor a serial port"
    " (/dev/ttyUSB0, COM3)"
)


NEAR_ROOM = ("lowest_k = 290.0", "highest_k = 310.0")
"""Limits of a thermostat's section until somebody chooses others."""


@dataclass(frozen=True)
class Device:
    """One address, who answers there, and what fits.

    `told` is its identification as given. `kind` is the entry point of an instrument family, for
    `[driver.instruments.*]`; `driver` one of a whole board, for `[driver]`. `problem` says why
    nobody is known there.
    """

    resource: str
    link: Literal["visa", "serial"]
    told: str = ""
    maker: str = ""
    model: str = ""
    serial: str = ""
    firmware: str = ""
    kind: str = ""
    driver: str = ""
    problem: str = ""
    toml: str = ""


def find_devices(
    resources: Iterable[str] = (), *, probe_serial: bool = False, traffic: Traffic | None = None
) -> list[Device]:
    """Every VISA resource and serial port that can be listed, and the `resources` named, each asked
    who it is.

    Serial ports are asked with `probe_serial` alone. What cannot be reached has a `problem`;
    nothing is raised for it.
    """
    found = [
        _asked(name, probe_serial, traffic)
        for name in dict.fromkeys([*resources, *listed_visa(), *listed_serial()])
    ]
    return _with_blocks(found)


def listed_visa() -> list[str]:
    """VISA resources that pyvisa-py finds (GPIB, USB, LAN by broadcast), serial ones left out; none
    where it cannot look.
    """
    import pyvisa

    with warnings.catch_warnings():
        # It warns of each optional package that is not there.
        warnings.simplefilter("ignore")
        try:
            found = pyvisa.ResourceManager(visa_library()).list_resources("?*")
        except Exception:  # a backend that is broken or missing raises what it likes
            return []
    return [
        name
        for name in found
        if name.endswith(("INSTR", "SOCKET", "RAW")) and not name.startswith("ASRL")
    ]


def listed_serial() -> list[str]:
    """Serial ports of this computer."""
    from serial.tools import list_ports

    try:
        return sorted(port.device for port in list_ports.comports())
    except OSError:
        return []


def _asked(resource: str, probe_serial: bool, traffic: Traffic | None) -> Device:
    device = Device(resource, "visa" if "::" in resource else "serial")
    if device.link == "serial" and not _names_port(resource):
        return replace(device, problem=NO_ADDRESS)
    if device.link == "serial" and not probe_serial:
        return replace(device, problem=NOT_OPENED)
    try:
        told = _identification(resource, traffic)
    except (LinkError, ConfigError) as error:
        return replace(device, problem=error.message)
    if told.count(",") >= 2:
        maker, model, serial, firmware = ([part.strip() for part in told.split(",", 3)] + [""])[:4]
        device = replace(
            device, told=told, maker=maker, model=model, serial=serial, firmware=firmware
        )
        kind, model, problem = _family(maker, model)
        return replace(device, kind=kind, model=model, problem=problem)
    if device.link == "serial":
        for name, driver in working("rram_hil.drivers", driver_class):
            if (who := driver.identify_at(resource)) is not None:
                return replace(
                    device, model=who.model, serial=who.serial, firmware=who.firmware, driver=name
                )
    said = (
        why_undriven(told) or f"it answers {told[:40]!r} to *IDN?"
        if told
        else f"no answer to *IDN? within {ANSWER_S:g} s"
    )
    return replace(device, told=told, problem=said)


def _names_port(name: str) -> bool:
    """Whether a name can be one of a serial port, here or at a URL of pyserial."""
    is_port = re.fullmatch(r"COM\d+|/.+|[a-z0-9]+://.+", name, re.IGNORECASE)
    return bool(is_port) or name in listed_serial()


def _identification(resource: str, traffic: Traffic | None) -> str:
    """The reply to `*IDN?`; empty for a silence. Raises `LinkError`, or `ConfigError` for no
    address.
    """
    link = make_link(resource, traffic)
    ending = b"\0" if KXCI.search(resource) else b"\n"
    link.open()
    try:
        link.send(b"*IDN?" + ending)
        said = link.receive(LONGEST_ANSWER, ANSWER_S, ending).decode("ascii", "replace")
        return said.strip("\0 \r\n\t")
    finally:
        link.close()


def _family(maker: str, told: str) -> tuple[str, str, str]:
    """The entry point of the family that drives a model, the model as that family calls it, and
    why there is none.
    """
    problem = "no installed driver knows this model"
    for name, family in families():
        model = family(family.Config(kind=name)).plain_model(told)
        offer = family.offer(model)
        if not family.is_made_by(maker):
            if model in family.MODELS:
                problem += f"; {name} drives a {model} of {' or '.join(family.MAKERS)}"
        elif model in family.MODELS:
            return name, model, ""
        elif offer:
            problem += f"; of {name} {offer}"
    return "", told, why_undriven(told) or problem


@dataclass(frozen=True)
class KnownModels:
    """Models of one family that were checked against the same documents."""

    kind: str
    models: tuple[str, ...]
    documents: tuple[str, ...]
    unverified: tuple[str, ...]


def known_models() -> list[KnownModels]:
    """Every model of every installed family, with what its driver says was checked."""
    rows = []
    for kind, family in families():
        sheets = {model: family.SHEETS.get(model, ModelSheet(())) for model in family.MODELS}
        makers = tuple(f"maker {name!r}: {seen}" for name, seen in family.MAKERS.items())
        for sheet in dict.fromkeys(sheets.values()):
            models = tuple(model for model, own in sheets.items() if own == sheet)
            documents = (*sheet.documents, *makers)
            rows.append(KnownModels(kind, models, documents, sheet.unverified))
    return rows


def families() -> list[tuple[str, type[Instrument]]]:
    """Every instrument family that is installed and can be imported, by name."""
    return working("rram_hil.instruments", instrument_class)


def _with_blocks(devices: list[Device]) -> list[Device]:
    """Each with its section of a bench file, to be pasted as it stands."""
    used: dict[str, int] = {}
    whole = []
    for device in devices:
        lines: list[str] = []
        if device.kind:
            family = instrument_class(device.kind)
            role = _role(family)
            used[role] = used.get(role, 0) + 1
            name = role if used[role] == 1 else f"{role}{used[role]}"
            is_thermostat = issubclass(family, Thermostat)
            lines = [
                "[thermostat]" if is_thermostat else f"[driver.instruments.{name}]",
                f"kind = {json.dumps(device.kind)}",
                f"model = {json.dumps(device.model)}",
                f"resource = {json.dumps(device.resource)}",
                # Some instruments tell a zero.
                *([f"serial = {json.dumps(device.serial)}"] if device.serial.strip("0") else ()),
                *(NEAR_ROOM if is_thermostat else ()),
            ]
        elif device.driver:
            lines = [
                "[driver]",
                f"name = {json.dumps(device.driver)}",
                f"port = {json.dumps(device.resource)}",
            ]
        whole.append(replace(device, toml="".join(f"{line}\n" for line in lines)))
    return whole


def _role(family: type[Instrument]) -> str:
    roles: dict[type[Instrument], str] = {
        SourceMeter: "smu",
        SwitchMatrix: "matrix",
        PulseGenerator: "pulser",
        Oscilloscope: "scope",
    }
    return next((name for base, name in roles.items() if issubclass(family, base)), "instrument")
