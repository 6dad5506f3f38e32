"""Source-meters that a calibration talks to by itself: the bench's own, or one that is reached for
this alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from rram_hil.engine.protocol import Setting
from rram_hil.errors import ConfigError, LimitError
from rram_hil.hardware.instrument import (
    Readings,
    SourceMeter,
    SourceSetup,
    SwitchMatrix,
    make_instrument,
)
from rram_hil.types import FloatArray


def stay_within(
    setting: Setting, volts: float, amps: float, *instruments: str | dict[str, Any]
) -> None:
    """Refuse levels beyond the bench's limits on an instrument of the bench, whose lines may reach
    the chip.

    Raises `LimitError` naming value and limit.
    """
    if not any(isinstance(i, str) and i for i in instruments):
        return
    limits = setting.limits
    if not volts <= limits.bl_v:
        raise LimitError(
            f"{volts:g} V is above limits.bl_v, {limits.bl_v:g} V",
            value=volts,
            allowed=(-limits.bl_v, limits.bl_v),
        )
    if not amps <= limits.current_a:
        raise LimitError(
            f"{amps:g} A is above limits.current_a, {limits.current_a:g} A",
            value=amps,
            allowed=(-limits.current_a, limits.current_a),
        )


@contextmanager
def opened(setting: Setting, named: str | dict[str, Any], key: str) -> Iterator[SourceMeter]:
    """The source-meter, connected and armed; afterwards off, verified, and given back where it was
    opened here.

    Raises `ConfigError` where it is none, or where a relay of the bench's matrix is closed: the
    chip must not be reached.
    """
    if isinstance(named, str):
        if named not in setting.instruments:
            there = ", ".join(setting.instruments) or "none; give its kind and resource instead"
            raise ConfigError(f"{key}: {named!r} is no instrument of this bench; there is: {there}")
        meter = setting.instruments[named]
        for name, other in setting.instruments.items():
            if isinstance(other, SwitchMatrix) and other.closed():
                raise ConfigError(
                    f"{key}: relays of {name} are closed; the chip must not be reached"
                )
    else:
        meter = make_instrument(named, key)
    if not isinstance(meter, SourceMeter):
        raise ConfigError(f"{key}: {type(meter).__name__} is no source-meter")
    with ExitStack() as at_the_end:
        if not isinstance(named, str):
            meter.connect()
            at_the_end.callback(meter.close)
        meter.arm()
        at_the_end.callback(meter.safe_off)
        yield meter


def swept(meter: SourceMeter, channel: str, setup: SourceSetup, levels: FloatArray) -> Readings:
    """Readings at these levels, with the channel's output on for them alone."""
    meter.configure(channel, setup)
    meter.output(channel, True)
    try:
        return meter.list_sweep(channel, levels)
    finally:
        meter.output(channel, False)
