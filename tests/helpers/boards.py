"""The chip and the limits of the tests of a simulated board."""

from rram_hil.array import Geometry, Limits

GEOMETRY = Geometry(2, 16, 24)
LIMITS = Limits(
    bl_v=4.0,
    sl_v=4.0,
    wl_v=5.0,
    cell_v=4.0,
    gate_over_v=5.0,
    half_select_v=4.0,
    read_v=0.3,
    current_a=1e-3,
    energy_j=1e-3,
    width_s=1e-2,
    pulses_per_cell=100000,
)
