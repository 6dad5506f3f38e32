"""What each function of torch becomes in a `Network`.

A converter has the signature of torch's function (or method) of its name, after the conversion `c`;
tensors arrive as `Value`, tensors that no input has to do with as `Const`. One converter is one
decorated function in the file of its kind.
"""

from rram_hil.networks.pytorch.converters import (
    arithmetic,
    elementwise,
    norms,
    pooling,
    products,
    reductions,
    shapes,
)
from rram_hil.networks.pytorch.converters.registry import converted

__all__ = [
    "arithmetic",
    "converted",
    "elementwise",
    "norms",
    "pooling",
    "products",
    "reductions",
    "shapes",
]
