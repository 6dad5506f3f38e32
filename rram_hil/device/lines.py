"""Wire resistance of the array: what of a cell's conductance is left at the terminals.

Source lines are driven at column 0, bit lines are held at virtual ground below the last row; one cell pitch of either line
has `line_ohm`. Word lines carry no current.
"""

from __future__ import annotations

import numpy as np
from scipy import sparse
from scipy.sparse.linalg import splu

from rram_hil.cells import Geometry, IntArray
from rram_hil.operations import FloatArray


def series_ohm(index: IntArray, geometry: Geometry, line_ohm: float) -> FloatArray:
    """Wire in series with each cell (ohm) when it alone conducts: exact for single reads with all other gates closed."""
    row = index // geometry.columns % geometry.rows
    column = index % geometry.columns
    return np.asarray(line_ohm * (column + 1 + geometry.rows - row), dtype=np.float64)


def block_transfer(g_s: FloatArray, row: int, column: int, geometry: Geometry, line_ohm: float) -> FloatArray:
    """Effective conductances (S) of a block with wires, shape of `g_s`: column currents = inputs (V) @ this.

    The exact nodal solution of the linear network of the block's source and bit lines, driven at their ends; lines outside
    the block carry no current (their gates are closed or their bit lines float) and only add length. Cost: one sparse
    factorisation of 2 x rows x columns nodes.
    """
    rows, columns = g_s.shape
    count = rows * columns
    wire = 1.0 / line_ohm
    node = np.arange(count).reshape(rows, columns)
    diagonal = np.concatenate((g_s.ravel(), g_s.ravel()))
    pairs = [(node.ravel(), node.ravel() + count, g_s.ravel())]
    pairs.append((node[:, :-1].ravel(), node[:, 1:].ravel(), np.full(rows * (columns - 1), wire)))
    pairs.append((node[:-1].ravel() + count, node[1:].ravel() + count, np.full((rows - 1) * columns, wire)))
    for a, b, g in pairs[1:]:
        np.add.at(diagonal, a, g)
        np.add.at(diagonal, b, g)
    drive = 1.0 / (line_ohm * (column + 1))
    sense = 1.0 / (line_ohm * (geometry.rows - (row + rows) + 1))
    diagonal[node[:, 0]] += drive
    diagonal[node[-1] + count] += sense
    a = np.concatenate([p[0] for p in pairs])
    b = np.concatenate([p[1] for p in pairs])
    g = -np.concatenate([p[2] for p in pairs])
    every = np.arange(2 * count)
    network = sparse.coo_array(
        (np.concatenate((g, g, diagonal)), (np.concatenate((a, b, every)), np.concatenate((b, a, every)))),
        shape=(2 * count, 2 * count),
    ).tocsc()
    excite = np.zeros((2 * count, columns))
    excite[node[-1] + count, np.arange(columns)] = sense
    response = splu(network).solve(excite)
    return np.asarray(drive * response[node[:, 0]], dtype=np.float64)
