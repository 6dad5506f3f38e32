"""Stopping a bench from another thread."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from small_bench import bench_toml

from rram_hil import Bench, read
from rram_hil.array import ApplyResult
from rram_hil.engine.protocol import Plan
from rram_hil.errors import AbortedError


def test_abort_ends_what_is_under_way_and_nothing_after_it(tmp_path: Path) -> None:
    (tmp_path / "bench.toml").write_text(bench_toml("x", 4, 4, 100))
    with Bench.open(tmp_path / "bench.toml") as bench:
        begun = threading.Event()

        def endless() -> Plan[None]:
            while True:
                yield from read(bench.cells())
                begun.set()

        def stop() -> None:
            begun.wait()
            bench.abort()

        other = threading.Thread(target=stop)
        other.start()
        with pytest.raises(AbortedError) as ended:
            bench.run(endless())
        other.join()
        assert ended.value.outputs_off
        result: ApplyResult = bench.do(read(bench.cells()))
        assert result.reads.sum() == 16
        bench.abort()
        assert bench.read_map().size == 16, "nothing was under way"
