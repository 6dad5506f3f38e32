"""Benches that know three lines refuse by name what a step says beside them, before anything moves,
whoever asks; and chips whose selectors they do not know.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from chain_benches import ARC_ONE, CHAINS, bench_text

from rram_hil import Bench
from rram_hil.array import STEP_EXTRAS, Apply, Cells, Scheme, Step
from rram_hil.errors import BenchError, ConfigError

FIRST, *OTHERS = CHAINS
BENCHES = [FIRST, ARC_ONE, *(pytest.param(chain, marks=pytest.mark.long) for chain in OTHERS)]
VALUES = {"body_v": 0.0, "unselected_wl_v": 0.0, "also_gate": True}


@pytest.mark.parametrize("chain", BENCHES)
def test_a_bench_refuses_what_it_has_not_by_name(chain: str, tmp_path: Path) -> None:
    cell, scheme = ("1R", Scheme.HALF) if chain == ARC_ONE else ("1T1R", Scheme.INHIBIT)
    (tmp_path / "bench.toml").write_text(bench_text(chain, cell, 2), encoding="utf-8")
    with Bench.open(tmp_path / "bench.toml") as bench:
        assert bench.capabilities.step_extras == frozenset()
        assert bench.capabilities.selectors == {"nmos"}
        for name in STEP_EXTRAS:
            step = replace(Step(0.2, 0.0, 2.0, 2e-3, "current"), **{name: VALUES[name]})
            operation = Apply(Cells.of([(0, 0, 0)]), (step,), scheme)
            with pytest.raises(ConfigError, match=f"^{name}: ") as refused:
                bench.do(operation)
            assert "\n" not in str(refused.value)
            before = bench.driver.transactions
            with pytest.raises(ConfigError, match=f"^{name}: .* is not available on this bench"):
                bench.driver.execute(operation, 1)
            assert bench.driver.transactions == before


def test_a_rack_refuses_a_chip_with_pmos_selectors(tmp_path: Path) -> None:
    text = bench_text(FIRST, "1T1R", 2)
    text = text.replace('cell = "1T1R"', 'cell = "1T1R"\nselector = "pmos"', 1)
    (tmp_path / "bench.toml").write_text(text, encoding="utf-8")
    with pytest.raises(BenchError, match="must be nmos, not pmos") as refused:
        Bench.open(tmp_path / "bench.toml")
    assert "\n" not in str(refused.value)


def test_an_array_without_selectors_has_no_kind_of_them(tmp_path: Path) -> None:
    text = bench_text(ARC_ONE, "1R", 2).replace('cell = "1R"', 'cell = "1R"\nselector = "pmos"', 1)
    (tmp_path / "bench.toml").write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match="says of what a 1R array has not"):
        Bench.open(tmp_path / "bench.toml")
