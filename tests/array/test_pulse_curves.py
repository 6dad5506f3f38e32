"""A curve of volts and conductances, and the calibration that measures one on the array."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from rram_hil.array import read
from rram_hil.array.pulse_curves import Curve, PulseCurves
from rram_hil.calibration.pulse_curves import MeasurePulseCurves, Sweep
from rram_hil.engine.protocol import CellChoice, Setting
from rram_hil.errors import ConfigError, DataError
from rram_hil.protocols.forming import Forming
from rram_hil.simulation.model import DeviceModel


@given(st.lists(st.integers(1, 1000), min_size=3, max_size=30))
def test_what_a_measured_curve_gives_for_its_own_points_are_its_volts(levels: list[int]) -> None:
    conductances = np.array(levels) * 1e-6
    volts = np.arange(len(conductances)) * 0.1 + 1.0
    try:
        curve = Curve.measured(volts, conductances, rising=True)
    except DataError:
        assert np.all(np.diff(np.maximum.accumulate(conductances)) == 0)
        return
    np.testing.assert_allclose(
        curve.volts(np.asarray(curve.conductance_s)), curve.volts_v, atol=1e-9
    )


def test_a_falling_curve_is_held_at_its_ends() -> None:
    curve = Curve(volts_v=[0.5, 1.0, 2.0], conductance_s=[1e-4, 1e-5, 1e-6])
    np.testing.assert_allclose(curve.volts(np.array([1.0, 1e-4, 1e-5, 1e-9])), [0.5, 0.5, 1.0, 2.0])


@pytest.mark.parametrize(
    ("volts", "conductance"),
    [([1.0, 1.0], [1e-6, 2e-6]), ([1.0, 2.0, 3.0], [1e-6, 3e-6, 2e-6]), ([1.0, 2.0], [1e-6])],
)
def test_a_curve_that_cannot_be_inverted_is_refused(
    volts: list[float], conductance: list[float]
) -> None:
    with pytest.raises(ValidationError):
        Curve(volts_v=volts, conductance_s=conductance)


@pytest.mark.rram(device="paper", tiles=1, rows=32, columns=32, seed=4)
def test_measured_pulse_curves_are_those_of_the_device(rram_bench) -> None:  # type: ignore[no-untyped-def]
    rram_bench.run(Forming())
    measure = MeasurePulseCurves(
        cells=CellChoice(rows=(0, 15)),
        set_gate_v=Sweep(start_v=2.0, stop_v=3.0, points=11),
        reset_sl_v=Sweep(start_v=0.8, stop_v=2.0, points=7),
    )
    rram_bench.run(measure)
    curves = rram_bench.setting.shared_by("pulse curves", PulseCurves)
    model = DeviceModel.load("paper")
    wanted = np.geomspace(2e-6, 80e-6, 7)
    nominal = model.nominal_set_s(curves.set_gate.volts(wanted), 2.0, 100e-9)
    np.testing.assert_allclose(nominal, wanted, rtol=0.06)
    assert curves.reset_sl.conductance_s[0] > curves.reset_sl.conductance_s[-1]


@pytest.mark.rram(device="paper", tiles=1, rows=8, columns=8)
def test_cells_that_never_respond_give_no_curve(rram_bench) -> None:  # type: ignore[no-untyped-def]
    measure = MeasurePulseCurves(
        cells=CellChoice(),
        set_gate_v=Sweep(start_v=2.0, stop_v=3.0, points=3),
        reset_sl_v=Sweep(start_v=0.8, stop_v=2.0, points=3),
    )
    with pytest.raises(ConfigError, match="none of the 64 sample cells responds"):
        rram_bench.run(measure)
    assert np.nanmax(rram_bench.apply(read(rram_bench.cells())).last_s) < 1e-3


def test_an_interrupted_curve_is_not_repeated_on_the_same_cells(rram_bench) -> None:  # type: ignore[no-untyped-def]
    from rram_hil.engine.engine import unknown_result

    setting: Setting = rram_bench.setting
    plan = MeasurePulseCurves(
        cells=CellChoice(rows=(0, 0)),
        set_gate_v=Sweep(start_v=2.0, stop_v=3.0, points=3),
        reset_sl_v=Sweep(start_v=0.8, stop_v=2.0, points=3),
    ).run(setting)
    next(plan)
    operation = plan.send(None)
    n = len(operation.cells)
    with pytest.raises(ConfigError, match="not repeated"):
        plan.send(unknown_result(operation, np.full(n, 6), 1.0))
