"""What `import rram_hil` offers: every public name, none loaded before it is used."""

import subprocess
import sys

import pytest

import rram_hil


def test_every_public_name_is_there_and_listed() -> None:
    for name in rram_hil.__all__:
        assert getattr(rram_hil, name) is not None
    assert set(rram_hil.__all__) <= set(dir(rram_hil))
    assert rram_hil.__all__ == sorted(rram_hil.__all__, key=lambda n: (n.islower(), n))


def test_a_name_that_is_none_is_refused() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'Bnch'"):
        rram_hil.Bnch  # noqa: B018


def test_importing_the_front_door_loads_nothing_behind_it() -> None:
    heavy = {"numpy", "pydantic", "rram_hil.array"}
    code = f"import sys, rram_hil\nassert not {heavy} & set(sys.modules)"
    subprocess.run([sys.executable, "-P", "-c", code], check=True, timeout=60)
