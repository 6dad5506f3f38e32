"""The crossbar solver beside scipy's sparse factorisation and badcrossbar: time and agreement, one
thread.

All in the same rounds, one after the other, each time from the conductances; medians, and the
median of the ratios within rounds, of wall time and of the process's own CPU time, which a busy
machine changes less. badcrossbar takes part where it is installed (`pip install --no-deps
badcrossbar`: without its drawing).

    python benchmarks/ir_drop.py [--rounds N] [--sizes 256 512] [--ohm 1.0]
"""

from __future__ import annotations

import argparse
import importlib
import logging
import os
import sys
import time
import types
from collections.abc import Callable
from typing import Any

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[name] = "1"

import numpy as np  # noqa: E402
from numpy.typing import NDArray  # noqa: E402
from scipy import sparse  # noqa: E402
from scipy.sparse.linalg import splu, spsolve  # noqa: E402

from rram_hil.crossbar.solver import Crossbar  # noqa: E402

FloatArray = NDArray[np.float64]
VECTORS = 16


def assemble(g: FloatArray, ohm: float) -> sparse.csc_array:
    """The nodal matrix of rows driven at the left, columns grounded at the bottom, one segment at
    each end.
    """
    rows, columns = g.shape
    wire, node = 1.0 / ohm, np.arange(g.size).reshape(rows, columns)
    ends = [(node[:, 0], wire), (node[-1] + g.size, wire)]
    pairs = [
        (node.ravel(), node.ravel() + g.size, g.ravel()),
        (node[:, :-1].ravel(), node[:, 1:].ravel(), np.full(rows * (columns - 1), wire)),
        (
            node[:-1].ravel() + g.size,
            node[1:].ravel() + g.size,
            np.full((rows - 1) * columns, wire),
        ),
    ]
    i = np.concatenate([x for a, b, _ in pairs for x in (a, b, a, b)] + [a for a, _ in ends])
    j = np.concatenate([x for a, b, _ in pairs for x in (a, b, b, a)] + [a for a, _ in ends])
    s = np.concatenate(
        [x for _, _, c in pairs for x in (c, c, -c, -c)] + [np.full(a.size, c) for a, c in ends]
    )
    return sparse.coo_array((s, (i, j)), shape=(2 * g.size, 2 * g.size)).tocsc()


def sources(g: FloatArray, ohm: float, volts: FloatArray) -> FloatArray:
    """Right sides, (nodes, vectors)."""
    found = np.zeros((2 * g.size, len(volts)))
    found[np.arange(g.shape[0]) * g.shape[1]] = volts.T / ohm
    return found


def column_currents(g: FloatArray, ohm: float, solution: FloatArray) -> FloatArray:
    return solution[-g.shape[1] :].T / ohm


def by_spsolve(g: FloatArray, ohm: float, volts: FloatArray) -> FloatArray:
    """scipy.sparse.linalg.spsolve with its own settings."""
    found = spsolve(assemble(g, ohm), sources(g, ohm, volts)[:, 0])
    return column_currents(g, ohm, found[:, None])


def by_splu(g: FloatArray, ohm: float, volts: FloatArray) -> FloatArray:
    """Factored once, with scipy's own settings, then all vectors."""
    return column_currents(g, ohm, splu(assemble(g, ohm)).solve(sources(g, ohm, volts)))


def by_splu_symmetric(g: FloatArray, ohm: float, volts: FloatArray) -> FloatArray:
    """The same with the ordering and mode for symmetric matrices, which scipy does not choose by
    itself.
    """
    factors = splu(assemble(g, ohm), permc_spec="MMD_AT_PLUS_A", options={"SymmetricMode": True})
    return column_currents(g, ohm, factors.solve(sources(g, ohm, volts)))


def by_crossbar(g: FloatArray, ohm: float, volts: FloatArray) -> FloatArray:
    """Ours: the potentials of all nodes as well, as the others."""
    found = Crossbar(g, ohm, ohm, left_ohm=ohm, bottom_ohm=ohm).solve(left_v=volts)
    assert not found.note, found.note
    return -found.bottom_a


def badcrossbar_solver() -> Callable[[FloatArray, float, FloatArray], FloatArray] | None:
    """badcrossbar.compute, without the drawing library that its package also imports; None where it
    is not installed.
    """
    for name in ("cairo", "badcrossbar.plot"):
        sys.modules.setdefault(name, types.ModuleType(name))
    try:
        package: Any = importlib.import_module("badcrossbar")
    except ImportError as error:
        print(f"badcrossbar takes no part: {error}")
        return None
    logging.disable(logging.INFO)

    def solve(g: FloatArray, ohm: float, volts: FloatArray) -> FloatArray:
        found = package.compute(volts.T, 1.0 / g, r_i=ohm)
        return np.asarray(found.currents.output, dtype=np.float64)

    return solve


def compare(title: str, solvers: dict[str, Callable[[], FloatArray]], rounds: int) -> None:
    """Rounds of one after the other; the first solver is ours, the second the reference of the
    errors.
    """
    wall: dict[str, list[float]] = {name: [] for name in solvers}
    cpu: dict[str, list[float]] = {name: [] for name in solvers}
    results: dict[str, FloatArray] = {}
    for _ in range(rounds):
        for name, solver in solvers.items():
            started, started_cpu = time.perf_counter(), time.process_time()
            results[name] = solver()
            wall[name].append(time.perf_counter() - started)
            cpu[name].append(time.process_time() - started_cpu)
    ours, reference = list(solvers)[:2]
    print(
        f"\n{title}{'':{34 - len(title)}s}   wall ms (least .. most)      x ours   CPU ms   x ours "
        "  differs"
    )
    for name, result in results.items():
        ratio = np.median(np.array(wall[name]) / np.array(wall[ours]))
        ratio_cpu = np.median(np.array(cpu[name]) / np.array(cpu[ours]))
        spread = f"({min(wall[name]) * 1e3:.1f} .. {max(wall[name]) * 1e3:.1f})"
        error = float(np.abs(result / results[reference] - 1).max())
        print(
            f"  {name:32s} {np.median(wall[name]) * 1e3:9.1f} {spread:20s} {ratio:6.1f}"
            f" {np.median(cpu[name]) * 1e3:9.1f} {ratio_cpu:7.1f}   {error:.1e}"
        )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--sizes", type=int, nargs="+", default=[256, 512])
    parser.add_argument("--ohm", type=float, default=1.0)
    options = parser.parse_args()
    print(
        f"wires of {options.ohm} ohm a segment, cells of 1 to 100 uS; load of the machine"
        f" {os.getloadavg()[0]:.1f}"
    )
    bad = badcrossbar_solver()
    for size in options.sizes:
        rng = np.random.default_rng(size)
        g = rng.uniform(1e-6, 100e-6, (size, size))
        volts = rng.uniform(0.0, 0.3, (VECTORS, size))
        g_first, ohm, one = g, options.ohm, volts[:1]
        by_crossbar(g, ohm, one)
        solvers = {
            "Crossbar": lambda g=g_first, ohm=ohm, one=one: by_crossbar(g, ohm, one),
            "scipy spsolve": lambda g=g_first, ohm=ohm, one=one: by_spsolve(g, ohm, one),
            "scipy splu, symmetric ordering": lambda g=g_first, ohm=ohm, one=one: by_splu_symmetric(
                g, ohm, one
            ),
        }
        if bad is not None:
            solvers["badcrossbar"] = lambda g=g_first, ohm=ohm, one=one, bad=bad: bad(g, ohm, one)
        compare(f"{size} x {size}, one vector", solvers, options.rounds)
        solvers = {
            "Crossbar": lambda g=g_first, ohm=ohm, volts=volts: by_crossbar(g, ohm, volts),
            "scipy splu": lambda g=g_first, ohm=ohm, volts=volts: by_splu(g, ohm, volts),
            "scipy splu, symmetric ordering": lambda g=g_first, ohm=ohm, volts=volts: (
                by_splu_symmetric(g, ohm, volts)
            ),
        }
        if bad is not None:
            solvers["badcrossbar"] = lambda g=g_first, ohm=ohm, volts=volts, bad=bad: bad(
                g, ohm, volts
            )
        compare(f"{size} x {size}, {VECTORS} vectors", solvers, options.rounds)


if __name__ == "__main__":
    main()
