"""Adam and its schedules: the same as torch's own optimisers, without what those import."""

from __future__ import annotations

import math
import subprocess
import sys

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.optim.lr_scheduler import CosineAnnealingLR, OneCycleLR

from rram_hil.learning.descent import Adam, falling, one_cycle

TOP = 0.02


def weights() -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    return [torch.randn(n, generator=generator).requires_grad_() for n in (5, 1)]


def loss(given: list[torch.Tensor], step: int) -> torch.Tensor:
    return ((given[0] - step % 3).pow(4).sum() + given[0].sum() * given[1].exp()).sum()


@given(total=st.integers(7, 300))
def test_one_cycle_is_that_of_torch(total: int) -> None:
    theirs = torch.optim.AdamW(weights(), lr=TOP)
    schedule = OneCycleLR(theirs, TOP, total_steps=total, pct_start=0.15)
    for step in range(total):
        group = theirs.param_groups[0]
        rate, momentum = one_cycle(step, total, TOP)
        assert math.isclose(rate, group["lr"], rel_tol=1e-9)
        assert math.isclose(momentum, group["betas"][0], rel_tol=1e-9)
        theirs.step()
        if step < total - 1:
            schedule.step()


@pytest.mark.parametrize("decay", [0.0, 0.01])
def test_steps_are_those_of_torch(decay: float) -> None:
    ours, theirs = weights(), weights()
    adam = Adam(ours, decay)
    optimiser = torch.optim.AdamW(theirs, lr=TOP, weight_decay=decay)
    schedule = CosineAnnealingLR(optimiser, 50)
    for step in range(50):
        adam.step(loss(ours, step), falling(step, 50, TOP))
        optimiser.zero_grad()
        loss(theirs, step).backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        schedule.step()
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, other)


def test_a_gradient_in_another_memory_layout_belongs_to_the_same_weights() -> None:
    start = torch.randn((4, 3, 5, 5), generator=torch.Generator().manual_seed(1))
    plain = start.clone().requires_grad_()
    last = start.to(memory_format=torch.channels_last).clone().requires_grad_()
    slopes = torch.randn(start.shape, generator=torch.Generator().manual_seed(2))
    for weight in (plain, last):
        adam = Adam([weight])
        for _ in range(3):
            adam.step((torch.where(slopes > 0, weight, weight.clone()) * slopes).sum(), TOP)
    torch.testing.assert_close(plain, last)


def test_training_does_not_import_the_compiler_of_torch() -> None:
    program = (
        "import sys; from rram_hil import learning as l\n"
        "data = l.LabelledImages(*(a[:64] for a in vars(l.digits()[0]).values()))\n"
        "net = l.train_teacher(l.digits_net(1), data, epochs=1, batch=32)\n"
        "words = l.choose_words(net, 0.05)\n"
        "weights = [layer.weight.detach().numpy() for layer in l.mapped_layers(net)]\n"
        "l.train_words(net, weights, words, data, steps=1, batch=32)\n"
        "sys.exit('torch._dynamo' in sys.modules)\n"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
