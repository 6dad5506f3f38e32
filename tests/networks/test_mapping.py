from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from shuffled import shuffled

from rram_hil.array import Cells, Geometry
from rram_hil.errors import ConfigError, DataError
from rram_hil.networks.fault_mapping import Order
from rram_hil.networks.mapping import (
    LayerWords,
    Mapping,
    MappingOptions,
    map_network,
    word_operation,
)

G_MIN, G_MAX = 10e-6, 120e-6


def random_weights(seed: int, shapes: list[tuple[int, ...]]) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {
        f"layer{k}": rng.normal(size=shape).astype(np.float32) for k, shape in enumerate(shapes)
    }


matrix = st.tuples(st.integers(1, 12), st.integers(1, 30))
kernel = st.tuples(st.integers(1, 6), st.integers(1, 4), st.integers(1, 3), st.integers(1, 3))
networks = st.lists(matrix | kernel, min_size=1, max_size=4)
tile_sizes = st.tuples(st.integers(5, 32), st.integers(4, 24))


@settings(deadline=None, max_examples=60)
@given(
    networks,
    tile_sizes,
    st.sampled_from([0, 2, 5, 16]),
    st.sampled_from(["max", "percentile", "rms"]),
    st.integers(0, 99),
)
def test_array_at_its_targets_holds_the_clipped_quantised_weights(
    shapes, tile, levels, clip, seed
) -> None:
    weights = random_weights(seed, shapes)
    mapping = map_network(
        weights, Geometry(200, *tile), MappingOptions(levels=levels, clip=clip, percentile=95.0)
    )
    held = mapping.target_weights()
    for layer in mapping.layers:
        wanted = np.clip(weights[layer.name], -layer.clip, layer.clip)
        if levels:
            step = layer.clip / (levels - 1)
            wanted = np.rint(wanted.astype(np.float64) / step) * step
            # A weight half way between two levels may go to either.
            middle = np.abs(np.abs(weights[layer.name] / step) % 1 - 0.5) < 1e-4
            wanted = np.where(middle, held[layer.name], wanted)
        assert held[layer.name].shape == weights[layer.name].shape
        np.testing.assert_allclose(held[layer.name], wanted, atol=2e-6 * layer.clip)


def stuck_cells(geometry: Geometry, seed: int, low: float = 0.0175, high: float = 0.0904):
    """Conductances of cells stuck at low and high resistance, NaN elsewhere."""
    rng = np.random.default_rng(seed)
    draw, spread = rng.random(geometry.shape), rng.normal(1, 0.1, geometry.shape)
    return np.where(draw < low, G_MAX * spread, np.where(draw > 1 - high, G_MIN / 2, np.nan))


@settings(deadline=None, max_examples=60)
@given(networks, tile_sizes, st.integers(0, 99), st.sampled_from(["none", "permute"]))
def test_every_cell_belongs_to_one_weight_and_lies_on_the_chip(shapes, tile, seed, faults) -> None:
    weights = random_weights(seed, shapes)
    geometry = Geometry(200, *tile)
    stuck = np.clip(stuck_cells(geometry, seed), G_MIN, G_MAX)
    mapping = map_network(weights, geometry, MappingOptions(faults=faults), stuck)
    pairs = [index.ravel() for name in weights for index in mapping.pair_index(name)]
    index = np.concatenate(pairs)
    assert index.size == 2 * sum(w.size for w in weights.values())
    assert np.unique(index).size == index.size
    np.testing.assert_array_equal(np.sort(index), mapping.cells.index(geometry))
    assert mapping.target_s.min() >= G_MIN
    assert mapping.target_s.max() <= G_MAX * (1 + 1e-12)
    for name in weights:
        first, second = mapping.pair_index(name)
        np.testing.assert_array_equal(second, first + 1)


@settings(deadline=None, max_examples=30)
@given(networks, tile_sizes, st.integers(0, 99))
def test_splitting_into_blocks_does_not_change_the_weights(shapes, tile, seed) -> None:
    weights = random_weights(seed, shapes)
    split = map_network(weights, Geometry(200, *tile), MappingOptions(levels=9))
    whole = map_network(weights, Geometry(4, 64, 64), MappingOptions(levels=9))
    for name, held in split.target_weights().items():
        np.testing.assert_array_equal(held, whole.target_weights()[name])


@settings(deadline=None, max_examples=30)
@given(networks, tile_sizes, st.integers(0, 99), st.sampled_from(["flip", "permute"]))
def test_arrays_bring_the_same_mapping_back(shapes, tile, seed, faults) -> None:
    geometry = Geometry(200, *tile)
    stuck = np.where(np.random.default_rng(seed).random(geometry.shape) < 0.1, G_MAX, np.nan)
    mapping = map_network(
        random_weights(seed, shapes), geometry, MappingOptions(faults=faults), stuck
    )
    back = Mapping.from_arrays(geometry, mapping.to_arrays())
    for name, array in mapping.to_arrays().items():
        np.testing.assert_array_equal(array, back.to_arrays()[name])
    np.testing.assert_array_equal(mapping.stuck_map, back.stuck_map)
    for name, held in mapping.target_weights().items():
        np.testing.assert_array_equal(held, back.target_weights()[name])


def test_arrays_from_before_there_were_orders_are_as_they_come() -> None:
    geometry = Geometry(1, 16, 20)
    mapping = map_network(
        random_weights(3, [(8, 12)]),
        geometry,
        MappingOptions(faults="flip"),
        stuck_cells(geometry, 3, low=0.1),
    )
    arrays = {k: v for k, v in mapping.to_arrays().items() if k not in ("rows", "pairs")}
    back = Mapping.from_arrays(geometry, arrays)
    assert np.any(back.layers[0].blocks[0].signs < 0)
    np.testing.assert_array_equal(
        back.target_weights()["layer0"], mapping.target_weights()["layer0"]
    )


def test_a_bare_map_of_targets_goes_into_arrays_and_back() -> None:
    target = np.full((1, 3, 2), np.nan)
    target[0, 1, 1] = 5e-5
    mapping = Mapping(Geometry(1, 3, 2), (), target, np.zeros(target.shape, dtype=np.bool_))
    back = Mapping.from_arrays(mapping.geometry, mapping.to_arrays())
    assert back.cells == Cells.of([(0, 1, 1)])
    assert back.target_s[0] == 5e-5
    assert back.target_weights() == {}


def test_arrays_of_another_chip_are_refused() -> None:
    mapping = map_network(random_weights(0, [(3, 4)]), Geometry(1, 8, 8))
    with pytest.raises(DataError, match="of a chip of shape"):
        Mapping.from_arrays(Geometry(1, 8, 10), mapping.to_arrays())
    with pytest.raises(DataError, match="'signs' is missing"):
        Mapping.from_arrays(
            Geometry(1, 8, 8), {k: v for k, v in mapping.to_arrays().items() if k != "signs"}
        )


def test_a_measured_map_gives_the_weights_that_are_really_there() -> None:
    weights = random_weights(1, [(5, 7)])
    mapping = map_network(weights, Geometry(1, 8, 12))
    noisy = mapping.target_map_s * np.random.default_rng(0).normal(1, 0.1, mapping.geometry.shape)
    first, second = mapping.pair_index("layer0")
    expected = (noisy.ravel()[first] - noisy.ravel()[second]) * mapping.layers[0].weight_per_s
    np.testing.assert_allclose(mapping.effective_weights(noisy)["layer0"], expected, rtol=1e-5)


def test_gaps_in_a_measured_map_are_filled_as_asked_and_counted() -> None:
    mapping = map_network(random_weights(1, [(5, 7)]), Geometry(1, 8, 12))
    read = mapping.target_map_s.copy()
    read[0, 0, 0] = np.nan
    read[0, 1, 3] = np.inf
    filled, count = mapping.fill(read)
    assert count == 2
    used = np.isfinite(mapping.target_map_s)
    np.testing.assert_array_equal(filled[used], mapping.target_map_s[used])
    zeroed, _ = mapping.fill(read, "zero")
    assert zeroed[0, 0, 0] == 0
    assert zeroed[0, 1, 3] == 0
    with pytest.raises(DataError, match=r"cell \(0, 0, 0\).*2 cells"):
        mapping.effective_weights(read, "refuse")
    with pytest.raises(DataError, match="has shape"):
        mapping.fill(read[0])


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 9999), st.sampled_from([0, 8]))
def test_knowing_stuck_cells_lowers_the_error_of_the_weights(seed, levels) -> None:
    weights = random_weights(seed, [(12, 40), (6, 3, 3, 3)])
    geometry = Geometry(2, 64, 32)
    stuck = stuck_cells(geometry, seed)
    errors = []
    for faults in ("none", "partner", "flip", "permute"):
        mapping = map_network(
            weights, geometry, MappingOptions(levels=levels, faults=faults), stuck
        )
        real = np.where(np.isfinite(stuck), stuck, mapping.target_map_s)
        held = mapping.effective_weights(real)
        errors.append(sum(float(np.sum((held[n] - w) ** 2)) for n, w in weights.items()))
    assert errors[1] < errors[0]
    assert errors[2] <= errors[1] * (1 + 1e-9)
    assert errors[3] < 0.5 * errors[2]


@settings(deadline=None, max_examples=60)
@given(
    networks,
    tile_sizes,
    st.sampled_from([0, 2, 8]),
    st.floats(0, 0.6),
    st.floats(0, 0.4),
    st.integers(0, 99),
)
def test_an_order_is_never_worse_than_that_of_the_weights(
    shapes, tile, levels, low, high, seed
) -> None:
    weights, geometry = random_weights(seed, shapes), Geometry(200, *tile)
    stuck = stuck_cells(geometry, seed, low, high)
    by_layer = []
    for faults in ("partner", "flip", "permute"):
        mapping = map_network(
            weights, geometry, MappingOptions(levels=levels, faults=faults), stuck
        )
        held = mapping.target_weights()
        by_layer.append([float(np.sum((held[n] - w) ** 2)) for n, w in weights.items()])
        again = map_network(weights, geometry, MappingOptions(levels=levels, faults=faults), stuck)
        np.testing.assert_array_equal(again.target_map_s, mapping.target_map_s)
        assert all(
            set(block.order.rows) == set(range(block.inputs))
            and set(block.order.pairs) == set(range(block.outputs))
            for layer in mapping.layers
            for block in layer.blocks
        )
    partner, flip, permute = np.array(by_layer)
    assert np.all(permute <= flip * (1 + 1e-4) + 1e-9)
    assert np.all(permute <= partner * (1 + 1e-4) + 1e-9)


@settings(deadline=None, max_examples=30)
@given(networks, tile_sizes, st.integers(0, 99))
def test_the_order_of_sound_cells_changes_no_weight(shapes, tile, seed) -> None:
    plain = map_network(random_weights(seed, shapes), Geometry(200, *tile))
    other = shuffled(plain, seed)
    for name, held in other.target_weights().items():
        np.testing.assert_array_equal(held, plain.target_weights()[name])


def test_without_stuck_cells_nothing_is_moved() -> None:
    weights, geometry = random_weights(1, [(12, 40)]), Geometry(1, 64, 32)
    nowhere = np.full(geometry.shape, np.nan)
    moved = map_network(weights, geometry, MappingOptions(faults="permute"), nowhere)
    assert moved.order_bits == 0
    np.testing.assert_array_equal(moved.target_map_s, map_network(weights, geometry).target_map_s)


def test_the_map_of_weights_says_which_weight_a_cell_is_of() -> None:
    geometry = Geometry(4, 40, 20)
    weights = random_weights(2, [(14, 50), (5, 2, 3, 3)])
    mapping = shuffled(map_network(weights, geometry), 4)
    held = mapping.weight_map()
    np.testing.assert_array_equal(held != 0, np.isfinite(mapping.target_map_s))
    for layer in mapping.layers:
        found = np.zeros(layer.outputs * layer.inputs)
        for block in layer.blocks:
            which, cells = held[block.place], mapping.target_map_s[block.place]
            np.add.at(found, np.abs(which) - 1, np.sign(which) * cells)
        wanted = weights[layer.name].ravel()
        np.testing.assert_allclose(found * layer.weight_per_s, wanted, atol=1e-5)


def test_an_order_costs_the_bits_of_its_lists() -> None:
    plain = Order.plain(5, 3)
    assert plain.bits == 0
    rows, pairs = np.array([1, 0, 2, 3, 4]), np.array([2, 1, 0])
    signs = np.array([1, -1, 1], dtype=np.int8)
    assert Order(rows, plain.pairs, plain.signs).bits == 5 * 3
    assert Order(plain.rows, pairs, plain.signs).bits == 3 * 2
    assert Order(rows, pairs, signs).bits == 5 * 3 + 3 * 2 + 3


def test_stuck_cells_are_not_to_be_programmed_and_keep_their_conductance_as_target() -> None:
    geometry = Geometry(1, 4, 4)
    stuck = np.full(geometry.shape, np.nan)
    stuck[0, 1, 0] = G_MAX
    mapping = map_network(
        {"a": np.zeros((2, 4))}, geometry, MappingOptions(faults="partner"), stuck
    )
    assert list(np.flatnonzero(~mapping.free)) == [4]
    np.testing.assert_allclose(mapping.target_s[[4, 5]], [G_MAX, G_MAX])
    assert mapping.target_weights()["a"][0, 1] == pytest.approx(0)
    unaware = map_network({"a": np.zeros((2, 4))}, geometry, MappingOptions(), stuck)
    assert unaware.free.all()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_weight_that_is_not_finite_is_refused_by_tensor_and_index(value) -> None:
    weights = random_weights(0, [(3, 4)])
    weights["layer0"][2, 1] = value
    with pytest.raises(DataError, match=r"layer0.*\(2, 1\)"):
        map_network(weights, Geometry(1, 8, 8))


def test_a_network_that_does_not_fit_is_refused_with_the_cells_it_needs() -> None:
    with pytest.raises(ConfigError, match=r"needs 400 cells, and 128 are available on 2 tile"):
        map_network(random_weights(0, [(10, 20)]), Geometry(2, 8, 8))
    with pytest.raises(ConfigError, match=r"needs 400 cells, and 64 are available on 1 tile"):
        map_network(random_weights(0, [(10, 20)]), Geometry(2, 8, 8), MappingOptions(tiles=[1]))


def test_pieces_are_cut_between_outputs_where_whole_ones_do_not_fit() -> None:
    weights = random_weights(0, [(3, 8), (5, 8)])
    mapping = map_network(weights, Geometry(2, 8, 8))
    assert np.isfinite(mapping.target_map_s).all()
    np.testing.assert_allclose(mapping.target_weights()["layer1"], weights["layer1"], atol=1e-5)


def test_only_the_allowed_tiles_are_used() -> None:
    mapping = map_network(
        random_weights(0, [(2, 4), (2, 6)]), Geometry(4, 8, 8), MappingOptions(tiles=[2])
    )
    assert set(mapping.cells.tile) == {2}
    with pytest.raises(ConfigError, match="no tile 7"):
        map_network(random_weights(0, [(3, 4)]), Geometry(4, 8, 8), MappingOptions(tiles=[7]))


def test_clips_of_single_layers_take_precedence_and_must_name_a_layer() -> None:
    weights = random_weights(0, [(3, 4), (2, 6)])
    mapping = map_network(
        weights, Geometry(1, 8, 16), MappingOptions(clip=0.5, clips={"layer1": 0.25})
    )
    assert [layer.clip for layer in mapping.layers] == [0.5, 0.25]
    with pytest.raises(ConfigError, match="no layer 'conv9'"):
        map_network(weights, Geometry(1, 8, 16), MappingOptions(clips={"conv9": 1.0}))


def test_wrong_options_and_tensors_are_refused() -> None:
    with pytest.raises(ValueError, match="g_min_s must be below"):
        MappingOptions(g_min_s=1e-4, g_max_s=1e-5)
    with pytest.raises(ValueError, match="levels"):
        MappingOptions(levels=1)
    with pytest.raises(ConfigError, match=r"a weight must be \(out, in\)"):
        map_network({"a": np.zeros(3)}, Geometry(1, 8, 8))
    with pytest.raises(ConfigError, match="no layer to map"):
        map_network({}, Geometry(1, 8, 8))
    with pytest.raises(ConfigError, match="single column"):
        map_network({"a": np.zeros((1, 1))}, Geometry(1, 8, 1))


def test_a_layer_of_zeros_is_mapped_to_the_lowest_conductance() -> None:
    mapping = map_network({"a": np.zeros((2, 3))}, Geometry(1, 4, 4))
    np.testing.assert_array_equal(mapping.target_s, G_MIN)


def layer_words(indices: list[int], values: list[int]) -> LayerWords:
    none = np.zeros(0, dtype=np.int32)
    return LayerWords(
        np.array(indices, dtype=np.int64), np.array(values, dtype=np.int32), 0.01, none, 1.0
    )


def test_words_go_to_the_first_cell_of_their_weights_pair() -> None:
    mapping = map_network(random_weights(0, [(6, 20), (4, 2, 3, 3)]), Geometry(8, 8, 8))
    operation = word_operation(
        mapping,
        {"layer0": layer_words([0, 37, 119], [1, -127, 5]), "layer1": layer_words([71], [9])},
    )
    first = mapping.pair_index("layer0")[0].ravel()[[0, 37, 119]]
    other = mapping.pair_index("layer1")[0].ravel()[[71]]
    assert operation.cells == Cells.from_index(np.concatenate([first, other]), mapping.geometry)
    assert list(operation.values) == [1, -127, 5, 9]
    assert operation.clear


def test_words_that_do_not_fit_are_refused() -> None:
    mapping = map_network(random_weights(0, [(3, 4)]), Geometry(1, 8, 8))
    with pytest.raises(DataError, match=r"layer0: indices must differ and lie in 0\.\.11"):
        word_operation(mapping, {"layer0": layer_words([12], [1])})
    with pytest.raises(DataError, match="indices must differ"):
        word_operation(mapping, {"layer0": layer_words([3, 3], [1, 1])})
    with pytest.raises(DataError, match="8-bit values"):
        word_operation(mapping, {"layer0": layer_words([3], [-128])})
    with pytest.raises(ConfigError, match="'conv' is not on the array"):
        word_operation(mapping, {"conv": layer_words([3], [1])})
