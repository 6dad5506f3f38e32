"""Array types that every room shares."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

IntArray = NDArray[np.int64]

FloatArray = NDArray[np.float64]
StatusArray = NDArray[np.uint8]
