"""The devices of studies: what a simulated bench has in its socket, and what its user knows of
it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from rram_hil.units import Siemens
from rram_hil.validation import (
    FiniteVolts,
    Fraction,
    NotNegative,
    NotNegativeSiemens,
    Positive,
    PositiveSiemens,
    StrictModel,
)

if TYPE_CHECKING:
    from rram_hil.learning import DeviceNoise


Error = Literal["normal", "lognormal", "additive"]
"""How one-shot errors spread, as `rram_hil.learning.DeviceNoise` says."""


class Conditions(StrictModel):
    """What a bench user knows of a technology: window (S), volts between which its pulses work,
    budgets.

    A target at or below `accept_below_s` is met by anything down there.
    """

    g_min_s: NotNegativeSiemens
    g_max_s: PositiveSiemens
    accept_below_s: Annotated[Siemens, Field(ge=0)]
    set_gate_v: Annotated[tuple[FiniteVolts, FiniteVolts], Field(strict=False)]
    reset_from_v: FiniteVolts
    reset_sl_v: FiniteVolts
    max_pulses: Annotated[int, Field(ge=1)]
    max_reversals: Annotated[int, Field(ge=0)]


class Noise(StrictModel):
    """The errors that students are trained with: `rram_hil.learning.DeviceNoise` as a study file
    writes it.
    """

    sigma: NotNegative = 0.1
    stuck_low_resistance: Fraction = 0.0175
    stuck_high_resistance: Fraction = 0.0904
    levels: Annotated[int, Field(ge=2)] = 8
    input_bits: Annotated[int, Field(ge=2, le=16)] = 8
    clip: Positive = 1.5
    error: Error = "normal"

    def draws(self) -> DeviceNoise:
        """The same as training takes it."""
        from rram_hil.learning import DeviceNoise

        return DeviceNoise(**self.model_dump())


class Device(StrictModel):
    """A device of a study. `model` is what `[simulation] device` says: a preset, or the path of a
    device model, relative to the study file.

    Weights have `levels` conductances a cell and are clipped at `clip_rms` times a layer's root
    mean square, on the chip as in training; `noise` is what training knows besides.
    """

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,31}$")]
    title: str
    model: str
    conditions: Conditions
    levels: Annotated[int, Field(ge=2)] = 8
    clip_rms: Positive = 1.5
    sigma: NotNegative = 0.1
    stuck_low_resistance: Fraction = 0.0175
    stuck_high_resistance: Fraction = 0.0904
    error: Error = "normal"

    @property
    def noise(self) -> Noise:
        """What its students are trained with."""
        return Noise(
            sigma=self.sigma,
            stuck_low_resistance=self.stuck_low_resistance,
            stuck_high_resistance=self.stuck_high_resistance,
            levels=self.levels,
            clip=self.clip_rms,
            error=self.error,
        )


_PAPER = Conditions(
    g_min_s=1e-6,
    g_max_s=100e-6,
    accept_below_s=1.5e-6,
    set_gate_v=(1.9, 3.1),
    reset_from_v=0.6,
    reset_sl_v=2.0,
    max_pulses=30,
    max_reversals=10,
)
_HFO2 = Conditions(
    g_min_s=20e-6,
    g_max_s=200e-6,
    accept_below_s=22e-6,
    set_gate_v=(2.0, 3.0),
    reset_from_v=0.6,
    reset_sl_v=2.2,
    max_pulses=60,
    max_reversals=30,
)
_STUCK = "1.75 % of cells stuck at low and 9.04 % at high resistance"


def _paper(
    name: str, model: str, sigma: float, error: Error, levels: int, pulses: int, sound: bool = False
) -> Device:
    """A device like the paper's with another error; `pulses` are write-verify's for a cell."""
    of = "window" if error == "additive" else "target"
    stuck = "no cell stuck" if sound else _STUCK
    rates = {"stuck_low_resistance": 0.0, "stuck_high_resistance": 0.0} if sound else {}
    return Device(
        name=name,
        title=f"one-shot sigma {sigma:g} of the {of} ({error}), {levels} levels, {stuck}",
        model=model,
        conditions=_PAPER.model_copy(
            # Gates up to 3.2 V reach 100 uS on slow cells too; the budgets verify them all.
            update={"set_gate_v": (1.9, 3.2), "max_pulses": pulses, "max_reversals": pulses // 3}
        ),
        levels=levels,
        sigma=sigma,
        error=error,
        **rates,
    )


DEVICES: dict[str, Device] = {
    device.name: device
    for device in (
        Device(
            name="A",
            title=f"the paper's: one-shot sigma 0.1 of the target, {_STUCK}",
            model="paper",
            conditions=_PAPER,
        ),
        _paper("B", "paper-0.3", 0.3, "lognormal", 8, 60),
        _paper("C", "paper-0.5", 0.5, "lognormal", 10, 60),
        _paper("C-sound", "paper-0.5-sound", 0.5, "lognormal", 10, 60, sound=True),
        _paper("A-additive", "paper-additive", 0.1, "additive", 8, 60),
        _paper("B-additive", "paper-0.3-additive", 0.3, "additive", 8, 120),
        _paper("C-additive", "paper-0.5-additive", 0.5, "additive", 10, 240),
        _paper(
            "C-sound-additive", "paper-0.5-sound-additive", 0.5, "additive", 10, 240, sound=True
        ),
        *(
            _paper(f"sigma-{sigma}", f"paper-{sigma}", sigma, "lognormal", 8, 60)
            for sigma in (0.05, 0.2, 0.4)
        ),
        Device(
            name="hfo2",
            title="figures of measured HfO2 1T1R chips",
            model="hfo2",
            conditions=_HFO2,
            error="additive",
            sigma=0.09,
            stuck_low_resistance=0.002,
            stuck_high_resistance=0.006,
        ),
        *(
            Device(
                name=name,
                title=f"fitted to measurements of HfO2 1T1R cells{also}",
                model=name,
                conditions=_HFO2.model_copy(update={"g_max_s": 150e-6}),
                error="additive",
                sigma=0.15,
                # More are off by far than the model has stuck cells: RESET sometimes fails.
                stuck_low_resistance=0.02,
                stuck_high_resistance=0.02,
            )
            for name, also in (
                ("hfo2-measured", ""),
                ("hfo2-measured-2bit", ", and to 2-bit write-verify: many do not open"),
            )
        ),
    )
}
"""Devices that a study may name. One more is one more entry here, or a `[[device]]` of the study's
own file.
"""
