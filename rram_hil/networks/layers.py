"""What a network is made of, as data: each model here is one kind of layer, and its fields are all
that there is to know of it.

A layer takes the values of the layers that `of` names, by default of the one before it; the inputs
of the network are named `input`, `input_1` and so on. Dimensions count as in torch: 0 is the batch,
negative ones count from the end. A size that is known only when the network runs is the name of a
layer that gives it. What each kind computes stands in `evaluation` (NumPy) and in `torch_layers`
(torch); the two agree.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import ConfigDict, Field, TypeAdapter

from rram_hil.validation import StrictModel

INPUT = "input"
"""Name of the first input of a network; those after it are `input_1`, `input_2` ..."""

Count = Annotated[int, Field(ge=1)]
NotNegative = Annotated[int, Field(ge=0)]
Pair = tuple[Count, Count]
Padding = tuple[NotNegative, NotNegative]
Name = Annotated[str, Field(min_length=1, pattern=r"^[^/]+$")]
Size = int | str
"""A size, or the name of the layer that gives it."""


class _Layer(StrictModel):
    name: Name
    of: tuple[Name, ...] = ()


class _Weighted(_Layer):
    inputs: Count
    outputs: Count
    weight: Name | None = None
    """The weight's name where it is not the layer's own: a weight that two layers share."""
    biased: bool = True
    """Whether the bias of the weight's name is added, where there is one."""
    digital: bool = False
    """Whether its weight was allowed to stay off the array: it is then the tensor `<weight's
    name>.weight` of the network, and its bias the tensor `<weight's name>.bias`.
    """

    @property
    def weight_name(self) -> str:
        """Name of the weight, under which it is on the array."""
        return self.weight or self.name


class Linear(_Weighted):
    """outputs = weight (outputs, inputs) times the last dimension of the input, plus a bias where
    the network has one for the weight's name.
    """

    kind: Literal["linear"] = "linear"
    rows: tuple[NotNegative, Count] | None = None
    """First output taken and the one after the last; by default all."""

    @property
    def weight_shape(self) -> tuple[int, ...]:
        """Shape of the weight."""
        return (self.outputs, self.inputs)

    @property
    def groups(self) -> int:
        """Its inputs are one group, as those of a convolution may be several."""
        return 1

    @property
    def taken(self) -> slice:
        """The outputs taken."""
        return slice(*(self.rows or (0, self.outputs)))


class _Convolution(_Weighted):
    kernel: Pair
    stride: Pair = (1, 1)
    padding: Padding = (0, 0)
    dilation: Pair = (1, 1)
    groups: Count = 1


class Conv2d(_Convolution):
    """Two-dimensional convolution, zero padding; weight (outputs, inputs / groups, kernel height,
    kernel width).
    """

    kind: Literal["conv2d"] = "conv2d"

    @property
    def weight_shape(self) -> tuple[int, ...]:
        """Shape of the weight."""
        return (self.outputs, self.inputs // self.groups, *self.kernel)


class Conv1d(_Convolution):
    """One-dimensional convolution of (n, channels, length): one of two dimensions with a height of
    1, and a weight (outputs, inputs / groups, kernel width).
    """

    kind: Literal["conv1d"] = "conv1d"

    @property
    def weight_shape(self) -> tuple[int, ...]:
        """Shape of the weight."""
        return (self.outputs, self.inputs // self.groups, self.kernel[1])


class Recurrent(_Layer):
    """A recurrent network over (batch, time, features): an LSTM, a GRU, or one with tanh or ReLU.

    Gives three parts: the outputs (batch, time, directions x hidden), the last hidden states
    (layers x directions, batch, hidden), and an LSTM's last cell states. `of` may name first states
    after the input. Each layer and direction has two weights on the array, `<name>.ih_l0` and
    `<name>.hh_l0` (then `_l1` and so on, `_reverse` for the second direction), with a bias each.
    """

    kind: Literal["recurrent"] = "recurrent"
    cell: Literal["lstm", "gru", "tanh", "relu"]
    inputs: Count
    hidden: Count
    layers: Count = 1
    directions: Annotated[int, Field(ge=1, le=2)] = 1
    dropout: float = 0.0
    """Between layers, in training."""
    weights: Name | None = None
    """The prefix of the weights' names where it is not the layer's own name."""
    digital: bool = False
    """As for a linear layer."""

    @property
    def gates(self) -> int:
        """Vectors of `hidden` values that a step makes."""
        return {"lstm": 4, "gru": 3}.get(self.cell, 1)

    def pair(self, layer: int, direction: int) -> tuple[Linear, Linear]:
        """The two products of one layer and direction: of its inputs, and of its hidden state."""
        inputs = self.inputs if layer == 0 else self.directions * self.hidden
        end = f"_l{layer}" + ("_reverse" if direction else "")
        prefix, outputs = self.weights or self.name, self.gates * self.hidden
        first, second = (
            Linear(name=f"{prefix}.{which}{end}", inputs=n, outputs=outputs, digital=self.digital)
            for which, n in (("ih", inputs), ("hh", self.hidden))
        )
        return first, second

    @property
    def products(self) -> tuple[Linear, ...]:
        """All products that it makes, as layers."""
        return tuple(
            product
            for layer in range(self.layers)
            for direction in range(self.directions)
            for product in self.pair(layer, direction)
        )


class ReLU(_Layer):
    """max(x, 0)."""

    kind: Literal["relu"] = "relu"


class Tanh(_Layer):
    """tanh(x)."""

    kind: Literal["tanh"] = "tanh"


Function = Literal[
    "sigmoid", "gelu", "gelu_tanh", "silu", "leaky_relu", "elu", "celu", "selu", "clamp",
    "hardswish", "hardsigmoid", "softplus", "softsign", "mish", "logsigmoid", "exp", "log", "sqrt",
    "rsqrt", "abs", "neg", "sin", "cos", "erf", "square", "reciprocal", "not",
]  # fmt: skip


class Elementwise(_Layer):
    """A function of each value, with torch's definition and its parameters in torch's order
    (`leaky_relu`: slope; `elu`, `celu`: alpha; `clamp`: lowest, highest; `softplus`: beta,
    threshold).
    """

    kind: Literal["elementwise"] = "elementwise"
    function: Function
    parameters: tuple[float, ...] = ()


Operator = Literal[
    "add", "sub", "mul", "div", "floordiv", "mod", "pow", "maximum", "minimum", "gt", "ge", "lt",
    "le", "eq", "ne", "and", "or",
]  # fmt: skip


class Arithmetic(_Layer):
    """left operator right, of two layers, or of one layer and `scalar`, which stands on the right
    or, if `swapped`, on the left. Sizes may be operands.
    """

    kind: Literal["arithmetic"] = "arithmetic"
    operator: Operator
    scalar: int | float | None = None
    swapped: bool = False


class Constant(_Layer):
    """A digital tensor of the network: a parameter that is no weight, or a buffer."""

    kind: Literal["constant"] = "constant"
    tensor: Name


class MatMul(_Layer):
    """The matrix product of two layers, digital: neither side is a weight."""

    kind: Literal["matmul"] = "matmul"


class Einsum(_Layer):
    """Einstein's sum of layers, digital: none is a weight."""

    kind: Literal["einsum"] = "einsum"
    equation: str


class Attention(_Layer):
    """softmax(q k^T x scale + mask) v, of q, k, v and perhaps a mask, which is added; one of truth
    values says what is seen or, if it `hides`, what is not. `scale` is by default 1 / sqrt(features
    of q).
    """

    kind: Literal["attention"] = "attention"
    causal: bool = False
    hides: bool = False
    scale: float | None = None
    dropout: float = 0.0
    """Of the softmax, in training."""
    gives: Literal["values", "weights"] = "values"
    """"weights" gives the softmax itself."""


class Softmax(_Layer):
    """The softmax along a dimension, or its logarithm."""

    kind: Literal["softmax"] = "softmax"
    dim: int
    log: bool = False


class Reduce(_Layer):
    """One value for all along `dims` (none: along all). The variance and the standard deviation
    divide by the number of values less `correction`.
    """

    kind: Literal["reduce"] = "reduce"
    function: Literal["mean", "sum", "amax", "amin", "var", "std"]
    dims: tuple[int, ...] = ()
    keepdim: bool = False
    correction: float = 1.0


class BatchNorm(_Layer):
    """(x - mean) / sqrt(var + eps) x weight + bias along dimension 1, digital, from the running
    statistics `<name>.running_mean` and `<name>.running_var` and, if `affine`, from `<name>.weight`
    and `<name>.bias`.
    """

    kind: Literal["batch_norm"] = "batch_norm"
    channels: Count
    eps: float
    momentum: float | None = 0.1
    affine: bool = True
    tensors: Name | None = None
    """The prefix of the tensors' names where it is not the layer's own name."""

    @property
    def prefix(self) -> str:
        """What the names of its tensors begin with."""
        return self.tensors or self.name

    def tensor(self, what: str) -> str:
        """Name of one of its tensors."""
        return f"{self.prefix}.{what}"


class LayerNorm(_Layer):
    """Normalisation over the last `dims` dimensions, digital: x less its mean (unless `rms`) over
    the root of its mean square, times `weight`, plus `bias`, which are names of tensors.
    """

    kind: Literal["layer_norm"] = "layer_norm"
    dims: Count
    eps: float
    weight: Name | None = None
    bias: Name | None = None
    rms: bool = False


class GroupNorm(_Layer):
    """Normalisation of groups of channels over all their places, digital; `groups` 0: each channel
    is one (instance norm).
    """

    kind: Literal["group_norm"] = "group_norm"
    groups: NotNegative
    eps: float
    weight: Name | None = None
    bias: Name | None = None


class MaxPool2d(_Layer):
    """Largest value of each window."""

    kind: Literal["max_pool2d"] = "max_pool2d"
    kernel: Pair
    stride: Pair
    padding: Padding = (0, 0)
    dilation: Pair = (1, 1)
    ceil_mode: bool = False


class AvgPool2d(_Layer):
    """Mean of each window."""

    kind: Literal["avg_pool2d"] = "avg_pool2d"
    kernel: Pair
    stride: Pair
    padding: Padding = (0, 0)
    ceil_mode: bool = False
    count_include_pad: bool = True
    divisor: Count | None = None


class AdaptivePool2d(_Layer):
    """Mean or largest value of `size` windows that share the image between them (none: as many as
    there are pixels).
    """

    kind: Literal["adaptive_pool2d"] = "adaptive_pool2d"
    function: Literal["mean", "max"]
    size: tuple[Count | None, Count | None]


class Flatten(_Layer):
    """Dimensions `start` to `end` as one; by default (images, channels, height, width) to (images,
    features).
    """

    kind: Literal["flatten"] = "flatten"
    start: int = 1
    end: int = -1


class Reshape(_Layer):
    """The same values in another shape; one size may be -1, which is what is left."""

    kind: Literal["reshape"] = "reshape"
    shape: tuple[Size, ...]


class Unflatten(_Layer):
    """Dimension `dim` as several."""

    kind: Literal["unflatten"] = "unflatten"
    dim: int
    shape: tuple[Size, ...]


class Permute(_Layer):
    """The dimensions in another order."""

    kind: Literal["permute"] = "permute"
    dims: tuple[int, ...]


class Transpose(_Layer):
    """Two dimensions exchanged. An input of another `rank`, where it is given, is refused."""

    kind: Literal["transpose"] = "transpose"
    dims: tuple[int, int]
    rank: Count | None = None


class Squeeze(_Layer):
    """Without the dimensions `dims` of one value (none: without any such)."""

    kind: Literal["squeeze"] = "squeeze"
    dims: tuple[int, ...] = ()


class Unsqueeze(_Layer):
    """With a dimension of one value at `dim`."""

    kind: Literal["unsqueeze"] = "unsqueeze"
    dim: int


class Expand(_Layer):
    """Dimensions of one value repeated to `shape`; -1 leaves one as it is."""

    kind: Literal["expand"] = "expand"
    shape: tuple[Size, ...]


class Repeat(_Layer):
    """The whole repeated so often along each dimension."""

    kind: Literal["repeat"] = "repeat"
    counts: tuple[Size, ...]


class Concat(_Layer):
    """Layers one after the other along `dim`, or, if `new`, along a new dimension there."""

    kind: Literal["concat"] = "concat"
    dim: int
    new: bool = False


class Chunk(_Layer):
    """Part `index` of `chunks` along `dim`, all as long as the first but perhaps the last."""

    kind: Literal["chunk"] = "chunk"
    chunks: Count
    dim: int
    index: int


class Narrow(_Layer):
    """`length` values (or as many as there are) from `start` on along `dim`."""

    kind: Literal["narrow"] = "narrow"
    dim: int
    start: Size
    length: Size


class Select(_Layer):
    """Value `index` along `dim`, which is gone afterwards."""

    kind: Literal["select"] = "select"
    dim: int
    index: Size


Entry = int | tuple[Size | None, Size | None, int | None] | Literal["...", "new"]
"""One entry of an index: a number, a slice (start, stop, step), all between, or a new dimension."""


class Index(_Layer):
    """x[entries]."""

    kind: Literal["index"] = "index"
    entries: tuple[Entry, ...]


class Part(_Layer):
    """One of the parts that a layer gives."""

    kind: Literal["part"] = "part"
    index: NotNegative


class SizeOf(_Layer):
    """The size of a dimension."""

    kind: Literal["size"] = "size"
    dim: int


class Pad(_Layer):
    """More values around: `amounts` are before and after the last dimension, then the one before it
    and so on; negative ones cut.
    """

    kind: Literal["pad"] = "pad"
    amounts: tuple[int, ...]
    mode: Literal["constant", "reflect", "replicate", "circular"] = "constant"
    value: float = 0.0


class Embedding(_Layer):
    """Rows of a digital table, one for each number of the input."""

    kind: Literal["embedding"] = "embedding"
    tensor: Name
    padding: int | None = None
    """The number whose row learns nothing in training."""


class Where(_Layer):
    """Of three layers (truth, a, b): a where true, else b; of two (truth, x), `value` where true,
    else x.
    """

    kind: Literal["where"] = "where"
    value: float | None = None


class Dropout(_Layer):
    """Nothing; in training, values (or, with `dims`, whole channels) set to zero with probability
    `p`.
    """

    kind: Literal["dropout"] = "dropout"
    p: float
    channels: bool = False


class Full(_Layer):
    """A tensor of one value."""

    kind: Literal["full"] = "full"
    shape: tuple[Size, ...]
    value: float


class Upsample(_Layer):
    """Each pixel as a square of `scale` x `scale`."""

    kind: Literal["upsample"] = "upsample"
    scale: Pair


Convolution = Conv1d | Conv2d
Weighted = Linear | Conv1d | Conv2d
Layer = (
    Linear | Conv1d | Conv2d | Recurrent | ReLU | Tanh | Elementwise | Arithmetic | Constant
    | MatMul | Einsum | Attention | Softmax | Reduce | BatchNorm | LayerNorm | GroupNorm | MaxPool2d
    | AvgPool2d | AdaptivePool2d | Flatten | Reshape | Unflatten | Permute | Transpose | Squeeze
    | Unsqueeze | Expand | Repeat | Concat | Chunk | Narrow | Select | Index | Part | SizeOf | Pad
    | Embedding | Where | Dropout | Full | Upsample
)  # fmt: skip

LAYERS: TypeAdapter[tuple[Layer, ...]] = TypeAdapter(
    tuple[Annotated[Layer, Field(discriminator="kind")], ...],
    config=ConfigDict(ser_json_inf_nan="constants"),  # a mask may hide by an infinity
)


def products_of(layer: Layer) -> tuple[Weighted, ...]:
    """The products that a layer makes with weights: itself, those of a recurrent network, or
    none.
    """
    if isinstance(layer, Recurrent):
        return layer.products
    return (layer,) if isinstance(layer, Linear | Conv1d | Conv2d) else ()
