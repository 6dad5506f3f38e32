"""Teacher and student on the handwritten digits."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch

from rram_hil.errors import ConfigError
from rram_hil.learning import (
    Augmentation,
    DeviceNoise,
    LabelledImages,
    accuracy,
    digits_net,
    distil,
    draw_chip,
    forward,
    lenet5,
    mapped_layers,
    train_teacher,
    vgg,
)
from rram_hil.learning.networks import folded
from rram_hil.learning.train import batches
from rram_hil.networks.network import Network
from rram_hil.networks.network import forward as in_numpy

Data = tuple[LabelledImages, LabelledImages]


def parameters(model: torch.nn.Sequential) -> int:
    return sum(p.numel() for p in model.parameters())


def first(seed: int) -> torch.Tensor:
    return mapped_layers(lenet5(seed))[0].weight


def on_chips(
    model: torch.nn.Sequential,
    noise: DeviceNoise,
    test: LabelledImages,
    count: int = 5,
    fault_aware: bool = False,
) -> list[float]:
    found = []
    for chip in range(count):
        generator = torch.Generator().manual_seed(100 + chip)
        weights = draw_chip(model, noise, generator, fault_aware)
        on_chip = partial(forward, model, weights=weights, input_bits=noise.input_bits)
        found.append(accuracy(on_chip, test))
    return found


def test_the_networks_have_their_sizes_and_are_the_same_for_the_same_seed() -> None:
    assert parameters(lenet5()) == 61706
    assert parameters(digits_net()) < 6000
    assert lenet5()(torch.zeros(2, 1, 28, 28)).shape == (2, 10)
    assert torch.equal(first(4), first(4))
    assert not torch.equal(first(4), first(5))


def test_vgg16_has_its_sixteen_layers() -> None:
    net = vgg()
    shapes = [tuple(layer.weight.shape) for layer in mapped_layers(net)]
    kernels = [64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512]
    before = [3, *kernels[:-1]]
    wanted: list[tuple[int, ...]] = [(n, k, 3, 3) for n, k in zip(kernels, before, strict=True)]
    assert shapes == [*wanted, (512, 512), (512, 512), (10, 512)]
    assert net.eval()(torch.zeros(1, 3, 32, 32)).shape == (1, 10)


def test_a_small_vgg_is_of_the_family_and_folds_into_what_an_array_holds() -> None:
    net = vgg(3, width=4, blocks=(1, 2), units=(), classes=5)
    assert torch.equal(mapped_layers(net)[0].weight, mapped_layers(vgg(3, width=4))[0].weight)
    images = torch.rand((6, 3, 32, 32), generator=torch.Generator().manual_seed(1))
    net.train()(images)  # so that the batch norms have statistics
    network = Network.from_torch(net.eval())
    shapes = [weight.shape for weight in network.weights.values()]
    assert shapes == [(4, 3, 3, 3), (8, 4, 3, 3), (8, 8, 3, 3), (5, 8 * 8 * 8)]
    assert set(network.biases) == set(network.weights)  # the norms are in weights and biases
    wanted = net(images).detach()
    assert torch.allclose(folded(net)(images), wanted, atol=1e-5)
    np.testing.assert_allclose(in_numpy(network, images.numpy()), wanted, atol=1e-5)


@pytest.mark.parametrize("blocks", [(), (2, 0), (1,) * 6])
def test_a_vgg_of_no_or_too_many_blocks_is_refused(blocks: tuple[int, ...]) -> None:
    with pytest.raises(ConfigError, match="vgg: blocks"):
        vgg(blocks=blocks)


def test_a_flip_mirrors_half_of_the_images_and_moves_no_other_draw() -> None:
    generator = np.random.default_rng(1)
    pictures = generator.random((400, 3, 6, 6), dtype=np.float32)
    data = LabelledImages(pictures, np.arange(400))
    still = {"shift": 0.0, "rotation": 0.0, "zoom": 0.0, "shear": 0.0}
    own, mirrored = torch.from_numpy(pictures), torch.from_numpy(pictures[..., ::-1].copy())

    def epoch(changes: Augmentation) -> tuple[torch.Tensor, torch.Tensor]:
        return next(batches(data, 400, changes, torch.Generator().manual_seed(2)))

    images, labels = epoch(Augmentation(**still, flip=True))
    is_own = torch.isclose(images, own[labels], atol=1e-5).all(dim=(1, 2, 3))
    is_mirrored = torch.isclose(images, mirrored[labels], atol=1e-5).all(dim=(1, 2, 3))
    assert bool((is_own ^ is_mirrored).all())
    assert 160 < int(is_mirrored.sum()) < 240
    moved, same = epoch(Augmentation()), epoch(Augmentation(flip=True))
    flipped = torch.isclose(moved[0], same[0], atol=1e-5).all(dim=(1, 2, 3))
    assert torch.equal(moved[1], same[1])
    assert 160 < int(flipped.sum()) < 240


def test_the_teacher_learns(teacher: torch.nn.Sequential, data: Data) -> None:
    assert accuracy(teacher, data[1]) > 0.96


def test_a_student_is_more_accurate_than_the_teacher_under_faults(
    teacher: torch.nn.Sequential, student: torch.nn.Sequential, data: Data, noise: DeviceNoise
) -> None:
    plain, taught = on_chips(teacher, noise, data[1]), on_chips(student, noise, data[1])
    assert np.mean(taught) > np.mean(plain) + 0.03
    assert min(taught) > min(plain)


def test_without_a_teacher_a_network_learns_to_bear_the_faults_from_labels_alone(
    teacher: torch.nn.Sequential, data: Data
) -> None:
    aware = distil(None, teacher, data[0], DeviceNoise(), epochs=4, batch=64, augmentation=None)
    before, after = (on_chips(model, DeviceNoise(), data[1]) for model in (teacher, aware))
    assert np.mean(after) > np.mean(before) + 0.05


@pytest.mark.long
def test_a_student_taught_with_known_faults_is_the_better_one_where_they_are_known(
    teacher: torch.nn.Sequential, data: Data
) -> None:
    noise = DeviceNoise(sigma=0.05, stuck_low_resistance=0.15, stuck_high_resistance=0.0)
    blind, aware = (
        distil(
            teacher,
            teacher,
            data[0],
            noise,
            epochs=12,
            batch=64,
            learning_rate=1e-2,
            augmentation=None,
            fault_aware=fault_aware,
        )
        for fault_aware in (False, True)
    )
    known = [on_chips(taught, noise, data[1], 10, True) for taught in (blind, aware)]
    assert np.mean(known[1]) > np.mean(known[0]) + 0.01


@pytest.mark.parametrize("augmentation", [None, Augmentation(shift=1.0)])
def test_the_same_seed_gives_the_same_weights(
    data: Data, augmentation: Augmentation | None
) -> None:
    net, noise = digits_net(seed=2), DeviceNoise()
    before = [p.clone() for p in net.parameters()]

    def both(seed: int) -> list[torch.Tensor]:
        taught = train_teacher(net, data[0], epochs=1, augmentation=augmentation, seed=seed)
        return list(
            distil(
                taught, taught, data[0], noise, epochs=1, augmentation=augmentation, seed=seed
            ).parameters()
        )

    first, again, other = both(1), both(1), both(2)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(first, other, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(before, net.parameters(), strict=True)), (
        "the model given was changed"
    )


def test_training_leaves_the_global_generators_alone_and_reports_progress(data: Data) -> None:
    state, numpy_state = torch.random.get_rng_state(), str(np.random.get_state())
    seen: list[float] = []
    train_teacher(
        digits_net(), data[0], epochs=8, batch=100, progress=lambda done, _: seen.append(done)
    )
    assert torch.equal(torch.random.get_rng_state(), state)
    assert str(np.random.get_state()) == numpy_state
    assert seen == sorted(seen)
    assert len(seen) == 3
    assert seen[-1] == 1.0
