"""How many threads training uses."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import nn

from rram_hil.errors import ConfigError
from rram_hil.learning import LabelledImages, digits_net, lenet5, train_teacher
from rram_hil.learning.networks import channels_last, folded
from rram_hil.learning.threads import multiply_accumulates, threads_for


@pytest.fixture
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def test_the_work_of_an_image_is_counted() -> None:
    assert multiply_accumulates(lenet5(), (1, 28, 28)) == (
        784 * 6 * 25 + 100 * 16 * 150 + 400 * 120 + 120 * 84 + 84 * 10
    )


@pytest.mark.usefixtures("two_threads")
def test_a_small_network_gets_one_thread_and_the_caller_gets_his_back() -> None:
    with threads_for(lenet5(), (1, 28, 28), 128):
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == 2
    wide = nn.Sequential(nn.Conv2d(1, 512, 5, padding=2))
    with threads_for(wide, (1, 28, 28), 512):
        assert torch.get_num_threads() == 2
    with threads_for(wide, (1, 28, 28), 512, 1):
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == 2
    with pytest.raises(ConfigError, match="at least 1"), threads_for(wide, (1, 28, 28), 1, 0):
        pass


@pytest.mark.long
@pytest.mark.usefixtures("two_threads")
def test_training_uses_the_threads_asked_for(
    data: tuple[LabelledImages, LabelledImages],
) -> None:
    used: list[int] = []
    for count in (None, 2):
        train_teacher(
            digits_net(),
            data[0],
            epochs=1,
            threads=count,
            progress=lambda done, text: used.append(torch.get_num_threads()),
        )
    assert used == [1, 2]
    assert torch.get_num_threads() == 2


def test_folding_keeps_the_outputs_and_a_layout_keeps_the_values() -> None:
    net = lenet5(batch_norm=True)
    images = torch.rand((32, 1, 28, 28), generator=torch.Generator().manual_seed(0))
    net(images)
    net.eval()
    plain = folded(net)
    assert not any(isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d) for layer in plain)
    torch.testing.assert_close(plain(channels_last(images)), net(images), rtol=1e-4, atol=1e-5)
    assert torch.equal(channels_last(images), images)
