"""Programming methods over the wire: the same maps as in the process, one transaction a round."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from methods import METHODS, method
from small_bench import WHOLE, bench_toml

from rram_hil.array import Apply, Wait
from rram_hil.bench.bench import Bench
from rram_hil.engine.protocol import Save, Setting
from rram_hil.protocols.forming import Forming

SIZE = 8
TARGET = np.full((1, SIZE, SIZE), np.nan)
TARGET[0, :, 1:7] = np.linspace(5e-6, 90e-6, 6 * SIZE).reshape(SIZE, 6)


def programmed(
    folder: Path, driver: str, methods: Iterable[str]
) -> tuple[dict[str, dict[str, Any]], dict[str, int]]:
    """What each method saved, one after the other on one chip; and by how many its transactions
    are more than the operations it asked for.
    """
    text = bench_toml("c1", SIZE, SIZE, 4000, driver=f'name = "{driver}"', limits=WHOLE)
    (folder / "bench.toml").write_text(text, encoding="utf-8")
    saved: dict[str, dict[str, Any]] = {}
    more: dict[str, int] = {}
    with Bench.open(folder / "bench.toml") as bench:
        bench.run(Forming())
        for name in methods:
            saved[name] = {}
            asked = method(name, targets=TARGET, tolerance_s=4e-6, max_pulses=40, reverify=1)
            operations = 0

            def watched(setting: Setting, asked: Any = asked, name: str = name) -> Any:
                nonlocal operations
                plan, answer = asked.run(setting), None
                try:
                    while True:
                        message = plan.send(answer)
                        operations += isinstance(message, Apply | Wait)
                        if isinstance(message, Save):
                            saved[name][message.name] = message.values
                        answer = yield message
                except StopIteration as stop:
                    return stop.value

            before = bench.driver.transactions
            summary = bench.run(watched(bench.setting))
            more[name] = bench.driver.transactions - before - operations
            assert summary.inside > 0.4 * summary.cells
    return saved, more


@pytest.mark.parametrize(
    "methods",
    [
        pytest.param(["ispp", "model-aware"], id="two"),
        pytest.param(list(METHODS), id="all", marks=pytest.mark.long),
    ],
)
def test_a_board_gives_the_same_maps_with_one_transaction_a_round(
    tmp_path: Path, methods: list[str]
) -> None:
    folders = {driver: tmp_path / driver for driver in ("simulated-array", "test-chip-board")}
    for folder in folders.values():
        folder.mkdir()
    here, _ = programmed(folders["simulated-array"], "simulated-array", methods)
    there, more = programmed(folders["test-chip-board"], "test-chip-board", methods)
    for name, maps in here.items():
        assert maps.keys() == there[name].keys()
        for key, values in maps.items():
            np.testing.assert_array_equal(there[name][key], values, err_msg=f"{name}: {key}")
    assert more == dict.fromkeys(methods, 0)
