"""Which weights own a word of on-chip memory: any, those that matter most, or whole small layers;
and the ranks of adapters instead.

Random: Mohanty et al., IEDM 2017, and Charan et al., JXCDC 2020. By importance: after Charan et
al., DAC 2020; a weight matters as much as its error can change the loss, to second order the Fisher
information of the weight times the square of its error.

A fraction is words and trained digital parameters (biases and scales) over weights, as
`rram_hil.networks.word_costs` counts it: it pays for the digital ones first. A share of the
multiply-accumulates bounds how much of the network words may compute.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rram_hil.errors import ConfigError, DataError
from rram_hil.learning.networks import M, TracedModule, traced
from rram_hil.networks.word_costs import adapter_multiplies, multiplies
from rram_hil.types import FloatArray, IntArray

Masks = list[NDArray[np.bool_]]
"""One boolean array a mapped layer, of its weight's shape."""
_ROUNDS = 40


def choose_words(
    model: M | TracedModule[M], fraction: float, seed: int = 0, *, scales: bool = False
) -> Masks:
    """Words drawn uniformly over all weights. Raises `ConfigError` where the fraction does not pay
    for the biases (and scales).
    """
    graph = traced(model)
    sizes = _sizes(graph)
    words = _paid_for(graph, fraction, scales)
    mask = np.zeros(sum(sizes), dtype=np.bool_)
    mask[np.random.default_rng(seed).choice(mask.size, size=words, replace=False)] = True
    return _parts(graph, mask)


def important_words(
    model: M | TracedModule[M],
    importance: Sequence[NDArray[np.floating]],
    fraction: float,
    *,
    image: ArrayLike | None = None,
    mac_share: float = 1.0,
    scales: bool = False,
) -> Masks:
    """The weights whose `importance` is largest in sum: one array a mapped layer, not negative,
    such as Fisher information times squared error.

    Where `mac_share` is below 1, words may do no more of the multiply-accumulates of one `image`
    (1, ...): a word of a convolution then counts as often as the image uses it. Raises
    `ConfigError` where the fraction does not pay for the digital parameters.
    """
    graph = traced(model)
    sizes = _sizes(graph)
    if [given.size for given in importance] != sizes:
        raise DataError(
            f"importance: arrays of {[given.size for given in importance]} values, the mapped"
            f" layers have {sizes}"
        )
    value = np.concatenate([np.ravel(given) for given in importance]).astype(np.float64)
    if not (np.isfinite(value).all() and (value >= 0).all()):
        raise DataError("importance: must be finite and not negative")
    words = _paid_for(graph, fraction, scales)
    if mac_share >= 1.0 or image is None:
        return _parts(graph, _largest(value, words))
    cost = np.repeat(_uses(graph, image), sizes).astype(np.float64)
    return _parts(graph, _best(value, cost, words, mac_share * float(cost.sum())))


def small_layers_first(
    model: M | TracedModule[M],
    fraction: float,
    *,
    image: ArrayLike | None = None,
    mac_share: float = 1.0,
    seed: int = 0,
    scales: bool = False,
) -> Masks:
    """Whole layers, the smallest first, as long as they can be paid for; what is left goes to
    weights of the next ones, drawn by `seed`. `mac_share` as for `important_words`.
    """
    graph = traced(model)
    sizes = _sizes(graph)
    words = _paid_for(graph, fraction, scales)
    uses = [0] * len(sizes) if mac_share >= 1.0 or image is None else _uses(graph, image).tolist()
    left = mac_share * float(np.dot(sizes, uses))
    random = np.random.default_rng(seed)
    masks = [np.zeros(size, dtype=np.bool_) for size in sizes]
    for k in sorted(range(len(sizes)), key=lambda k: sizes[k]):
        count = min(sizes[k], words, int(left / uses[k]) if uses[k] else sizes[k])
        masks[k][random.choice(sizes[k], size=count, replace=False)] = True
        words, left = words - count, left - count * uses[k]
    return _parts(graph, np.concatenate(masks))


def low_rank_adapters(
    model: M | TracedModule[M],
    fraction: float,
    *,
    rank: int | None = None,
    image: ArrayLike,
    mac_share: float = 1.0,
    scales: bool = False,
) -> tuple[list[int], Masks]:
    """Ranks of the adapters beside the mapped layers, and the layers (as masks) that get a word for
    every weight instead, since an adapter would have as many values.

    One rank more for each layer in turn, the smallest first, as long as `fraction` and `mac_share`
    (as for `important_words`) pay for it: all layers have the same rank, but for those that could
    not be paid for and what is left over for others. With `rank` all have that one; raises
    `ConfigError` where it cannot be paid for.
    """
    graph = traced(model)
    left = _paid_for(graph, fraction, scales)
    sizes, uses = _sizes(graph), _uses(graph, image)
    thin = adapter_multiplies(graph.network, image)
    work = mac_share * float(np.dot(sizes, uses))
    sides = [len(weight) + weight[0].numel() for weight in graph.weights]
    ranks = [0] * len(sizes)

    def is_whole(k: int) -> bool:
        return ranks[k] * sides[k] >= sizes[k]

    def cost() -> tuple[int, int]:
        """Values and multiply-accumulates of all layers."""
        values, macs = 0, 0
        for k, name in enumerate(graph.names):
            values += sizes[k] if is_whole(k) else ranks[k] * sides[k]
            macs += sizes[k] * int(uses[k]) if is_whole(k) else ranks[k] * thin[name]
        return values, macs

    def grows(k: int) -> bool:
        if is_whole(k) or ranks[k] == rank:
            return False
        ranks[k] += 1
        values, macs = cost()
        if values > left or macs > work:
            ranks[k] -= 1
            return False
        return True

    growing = sorted(range(len(sizes)), key=lambda k: sizes[k])
    while growing:
        growing = [k for k in growing if grows(k)]
    whole = [is_whole(k) for k in range(len(sizes))]
    if rank is not None and not all(w or own == rank for w, own in zip(whole, ranks, strict=True)):
        raise ConfigError(
            f"rank: adapters of rank {rank} take more than fraction {fraction:g} of the weights or"
            f" mac_share {mac_share:g} of the multiply-accumulates"
        )
    masks = [
        np.full(tuple(weight.shape), is_all)
        for weight, is_all in zip(graph.weights, whole, strict=True)
    ]
    return [0 if w else own for w, own in zip(whole, ranks, strict=True)], masks


def _sizes(graph: TracedModule[M]) -> list[int]:
    return [weight.numel() for weight in graph.weights]


def _uses(graph: TracedModule[M], image: ArrayLike) -> IntArray:
    """How often one image uses each weight of the mapped layers."""
    uses = multiplies(graph.network, image)
    return np.array([uses[name] for name in graph.names], dtype=np.int64)


def _paid_for(graph: TracedModule[M], fraction: float, scales: bool) -> int:
    """Words that `fraction` leaves beside the digital parameters."""
    weights = sum(_sizes(graph))
    digital = sum(0 if bias is None else bias.numel() for bias in graph.biases)
    what = "biases"
    if scales:
        digital += sum(len(weight) for weight in graph.weights)
        what = "biases and scales"
    words = int(fraction * weights) - digital
    if not 0 <= words <= weights:
        least, most = digital / weights, 1 + digital / weights
        raise ConfigError(
            f"on-chip words: fraction {fraction} is not {least:.4f} ({what} alone) to {most:.4f}"
        )
    return words


def _parts(graph: TracedModule[M], mask: NDArray[np.bool_]) -> Masks:
    parts = np.split(mask, np.cumsum(_sizes(graph))[:-1])
    return [
        part.reshape(tuple(weight.shape)) for part, weight in zip(parts, graph.weights, strict=True)
    ]


def _largest(value: FloatArray, count: int) -> NDArray[np.bool_]:
    mask = np.zeros(value.size, dtype=np.bool_)
    if count:
        mask[np.argpartition(value, value.size - count)[value.size - count :]] = True
    return mask


def _best(value: FloatArray, cost: FloatArray, count: int, most: float) -> NDArray[np.bool_]:
    """At most `count` with the largest sum of values whose costs are at most `most` together: each
    pays a price for its cost, the lowest that keeps to it (Lagrange); those that would lose are
    left out.
    """
    found = _largest(value, count)
    if float(cost[found].sum()) <= most:
        return found
    low, high = 0.0, float((value / np.maximum(cost, 1.0)).max()) + 1e-300
    found[:] = False
    for _ in range(_ROUNDS):
        price = (low + high) / 2
        worth = value - price * cost
        mask = _largest(worth, count) & (worth > 0)
        if float(cost[mask].sum()) <= most:
            found, high = mask, price
        else:
            low = price
    return found
