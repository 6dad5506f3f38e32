# %% [markdown]
# # An array, pulse by pulse
#
# The ten lines of Python of the front page, and what they leave. A bench may be described in
# memory as well as in a file:

# %%
import numpy as np
from matplotlib import pyplot as plt

from rram_hil import Bench, pulse
from rram_hil.bench.bench_file import parse_bench_file
from rram_hil.protocols.forming import Forming

file = parse_bench_file(
    {
        "chip": {"id": "notebook", "tiles": 1, "rows": 32, "columns": 32, "cell": "1T1R"},
        "driver": {"name": "simulated-array"},
        "limits": {
            "bl_v": 4.0,
            "sl_v": 3.0,
            "wl_v": 4.0,
            "cell_v": 4.0,
            "gate_over_v": 4.0,
            "half_select_v": 0.3,
            "read_v": 0.25,
            "current_a": 1e-3,
            "energy_j": 1e-8,
            "width_s": 1e-5,
            "pulses_per_cell": 2000,
        },
        "simulation": {"device": "hfo2", "seed": 1},
    }
)
bench = Bench.open(file)
print(bench.identity.model)

# %% [markdown]
# Forming, once in the life of a chip, and the map that it leaves:

# %%
summary = bench.run(Forming())
print(f"{summary.formed} of {summary.cells} cells formed, median {summary.median_v:g} V")
formed_s = bench.read_map()[0]

# %% [markdown]
# RESET the left half, then SET it again with a gate that rises from row to row:

# %%
half = bench.cells(columns=(0, 15))
bench.do(pulse(half, sl_v=2.2, wl_v=3.5, width_s=200e-9))
after_reset_s = bench.read_map()[0]
bench.do(pulse(half, bl_v=2.0, wl_v=2.1 + 0.7 * half.row / 31, width_s=100e-9))
after_set_s = bench.read_map()[0]

figure, all_axes = plt.subplots(1, 3, figsize=(9, 3.2), layout="constrained")
maps = {"formed": formed_s, "RESET": after_reset_s, "SET": after_set_s}
for axes, (title, g_s) in zip(all_axes, maps.items(), strict=True):
    shown = axes.imshow(g_s * 1e6, vmin=0, vmax=250)
    axes.set(title=title, xlabel="column", ylabel="row")
_ = figure.colorbar(shown, ax=all_axes, label="conductance (uS)")

# %% [markdown]
# The ledger has counted what each cell took. Limits hold here as everywhere: outputs are off when
# the bench is closed.

# %%
print("pulses of the most pulsed cell:", bench.ledger.counts.max())
print(f"row 31, SET: {np.median(after_set_s[31, :16]) * 1e6:.0f} uS")
bench.close()
