"""Types that every room shares."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Self

import numpy as np
from numpy.typing import NDArray

IntArray = NDArray[np.int64]

FloatArray = NDArray[np.float64]
StatusArray = NDArray[np.uint8]


class Closable(ABC):
    """What a `with` statement closes at its end, however it ends."""

    @abstractmethod
    def close(self) -> None:
        """Give free what is held. Safe to call twice."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
