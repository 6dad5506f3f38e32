"""rram_hil: hardware-in-the-loop control of RRAM arrays."""

from pathlib import Path

__version__ = "0.1.0"

# In a checkout the three plugin folders lie beside this package, not inside it: without this line, a non-editable
# install would lose them to the checkout's own `rram_hil` folder whenever Python starts there.
_checkout = Path(__file__).resolve().parent.parent
if not (Path(__file__).parent / "drivers").exists() and (_checkout / "drivers" / "__init__.py").exists():
    __path__.append(str(_checkout))
