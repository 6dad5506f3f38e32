# %% [markdown]
# # Cells of the device model
#
# A notebook: each grey block is run when this site is built, and what follows is what it printed
# and drew. Its source is
# `docs/notebooks/device-model.py`, Python with `# %%` between cells, which Jupytext and most
# editors open as a notebook.
#
# `cells_of` gives simulated cells without a bench: no limits, no ledger, no wire. What the model
# says and what it was fitted to stands in
# [the device model](../device-model.md).

# %%
import numpy as np
from matplotlib import pyplot as plt

from rram_hil.simulation import cells_of

cells = cells_of("hfo2", 1000, seed=1)
print(cells.responsive.sum(), "of 1000 cells respond")

# %% [markdown]
# A RESET, then a SET whose gate differs from cell to cell. The gate limits the current, and so
# the conductance that is left:

# %%
gate_v = np.repeat(np.linspace(2.0, 2.9, 20), 50)
cells.apply(0.0, 2.5, 3.5, 200e-9)  # BL, SL, WL (V), width (s): RESET
cells.apply(2.0, 0.0, gate_v, 100e-9)  # SET
g_s = cells.read()

figure, axes = plt.subplots(figsize=(7, 3.2), layout="constrained")
axes.plot(gate_v, g_s * 1e6, ".", markersize=2, alpha=0.4)
axes.plot(gate_v[::50], np.median(g_s.reshape(20, 50), axis=1) * 1e6, "k-")
_ = axes.set(xlabel="gate of the SET pulse (V)", ylabel="conductance (uS)")

# %% [markdown]
# The line is the median. Cells at one gate differ by about this much:

# %%
middle = g_s.reshape(20, 50)[10]
low, high = np.percentile(middle, [16, 84])
print(f"at {gate_v[500]:.2f} V: {np.median(middle) * 1e6:.0f} uS")
print(f"68 % within {low * 1e6:.0f} to {high * 1e6:.0f} uS")

# %% [markdown]
# That is why a target is met by [write-verify](../recipes.md#write-verify), or is not met and
# [compensated](../compensation.md).
