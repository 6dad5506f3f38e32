"""Write target.npy, the map of recipe-program.toml: a ramp of eight levels from 20 to 140 uS over
the columns, one tile.
"""

from pathlib import Path

import numpy as np

ROWS, COLUMNS = 32, 32
levels_s = np.linspace(20e-6, 140e-6, 8)
target_s = np.broadcast_to(np.repeat(levels_s, COLUMNS // 8), (1, ROWS, COLUMNS)).copy()
# NaN leaves a cell alone: the last row shows what forming left.
target_s[0, -1, :] = np.nan
np.save(Path(__file__).with_name("target.npy"), target_s)
