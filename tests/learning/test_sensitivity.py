"""Second derivatives and Fisher information of weights, beside what autograd says one by one."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from digit_modules import ZOO, make
from torch import nn
from torch.nn import functional

from rram_hil.errors import ConfigError
from rram_hil.learning import (
    LabelledImages,
    TracedModule,
    digits_net,
    mapped_layers,
    weight_sensitivities,
)


def tiny(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(1, 2, 3), nn.MaxPool2d(2), nn.ReLU(), nn.Conv2d(2, 3, 2), nn.ReLU(),
        nn.Flatten(), nn.Linear(12, 5), nn.ReLU(), nn.Linear(5, 4),
    ).double()  # fmt: skip


def some(count: int, classes: int = 4, seed: int = 0) -> LabelledImages:
    rng = np.random.default_rng(seed)
    images = rng.random((count, 1, 8, 8)).astype(np.float32)
    return LabelledImages(images, rng.integers(0, classes, count))


def exact_diagonals(model: nn.Module, data: LabelledImages) -> list[torch.Tensor]:
    """The diagonal of autograd's whole Hessian of the mean cross-entropy, layer by layer."""
    names = [name for name, p in model.named_parameters() if p.ndim > 1]
    images, labels = torch.from_numpy(data.images).double(), torch.from_numpy(data.labels)
    found = []
    for name in names:
        own = dict(model.named_parameters())[name].detach()

        def loss(flat: torch.Tensor, name: str = name, own: torch.Tensor = own) -> torch.Tensor:
            given = torch.func.functional_call(model, {name: flat.view_as(own)}, (images,))
            return functional.cross_entropy(given, labels)

        hessian = torch.autograd.functional.hessian(loss, own.reshape(-1))
        found.append(hessian.diagonal().view_as(own))
    return found


@pytest.mark.parametrize("batch", [64, 3])
def test_second_derivatives_are_the_diagonal_of_the_hessian(batch: int) -> None:
    model, data = tiny(), some(8)
    found = weight_sensitivities(model, data, images=8, batch=batch)
    for given, wanted in zip(found, exact_diagonals(model, data), strict=True):
        np.testing.assert_allclose(given, wanted.numpy(), rtol=1e-9, atol=1e-15)
        assert 0 <= given.min() < given.max()


class TimeFirst(nn.Module):
    """A linear layer over the rows of an image, which come before the images."""

    def __init__(self) -> None:
        super().__init__()
        self.rows, self.out = nn.Linear(8, 4), nn.Linear(4, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        rows = torch.relu(self.rows(x.squeeze(1).transpose(0, 1)))
        return self.out(rows.mean(0))


class Flat(TimeFirst):
    """The same layers over all rows of all images at once."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        rows = torch.relu(self.rows(x.reshape(-1, 8)))
        return self.out(rows.reshape(-1, 8, 4).mean(1))


@pytest.mark.parametrize("name", [*ZOO, "time first", "flat"])
def test_fisher_is_the_mean_square_of_each_image_s_gradient(name: str) -> None:
    torch.manual_seed(0)
    others = {"time first": TimeFirst, "flat": Flat}
    model = others[name]() if name in others else make(name).eval()
    data = some(6, classes=10)
    found = weight_sensitivities(model, data, "fisher", images=6, batch=4)
    graph = TracedModule(model)
    squares = [np.zeros(tuple(layer.weight.shape)) for layer in mapped_layers(model)]
    for image, label in zip(data.images, data.labels, strict=True):
        weights = [weight.detach().requires_grad_() for weight in graph.weights]
        scores = graph.forward(torch.from_numpy(image[None]), weights)
        loss = functional.cross_entropy(scores, torch.tensor([label]))
        for total, slope in zip(squares, torch.autograd.grad(loss, weights), strict=True):
            total += slope.numpy().astype(np.float64) ** 2 / len(data)
    for given, wanted in zip(found, squares, strict=True):
        np.testing.assert_allclose(given, wanted, rtol=1e-3, atol=1e-6 * wanted.max())


def test_the_second_derivative_is_fisher_s_mean_over_labels_drawn_from_the_network() -> None:
    model, data = tiny(1), some(1)
    with torch.no_grad():
        chances = functional.softmax(model(torch.from_numpy(data.images).double()), 1)[0].numpy()
    by_label = [
        weight_sensitivities(model, LabelledImages(data.images, np.array([label])), "fisher")
        for label in range(len(chances))
    ]
    for k, given in enumerate(weight_sensitivities(model, data)):
        mean = sum(chance * by_label[c][k] for c, chance in enumerate(chances))
        np.testing.assert_allclose(given, mean, rtol=1e-9, atol=1e-15)


def test_the_model_stays_as_it_is_and_the_seed_says_which_images() -> None:
    model, data = digits_net(), some(20, classes=10)
    model.train()
    before = [p.detach().clone() for p in model.parameters()]
    few = [weight_sensitivities(model, data, images=5, seed=seed)[0] for seed in (0, 0, 1)]
    assert model.training
    assert all(p.requires_grad and p.grad is None for p in model.parameters())
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    np.testing.assert_array_equal(few[0], few[1])
    assert not np.allclose(few[0], few[2])


@pytest.mark.parametrize("changes", [{"images": 0}, {"batch": 0}])
def test_numbers_below_one_are_refused(changes: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match="at least 1"):
        weight_sensitivities(digits_net(), some(2), **changes)
