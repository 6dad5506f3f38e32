"""Learning on any module that can be traced, and what it leaves alone."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from digit_modules import ZOO, Encoder, computed, make
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import prune

from rram_hil import learning
from rram_hil.errors import ConfigError, DataError
from rram_hil.learning import (
    DeviceNoise,
    LabelledImages,
    TracedModule,
    accuracy,
    apply_words,
    choose_words,
    digits_net,
    distil,
    draw_chip,
    forward,
    mapped_layers,
    train_teacher,
    train_words,
)
from rram_hil.learning.threads import multiply_accumulates, threads_for
from rram_hil.networks.network import Network

PERFECT = DeviceNoise(0.0, 0.0, 0.0, levels=2**24, input_bits=None, clip=1e6)
names = pytest.mark.parametrize("name", ZOO)


@pytest.fixture(scope="module")
def few(data: tuple[LabelledImages, LabelledImages]) -> LabelledImages:
    return LabelledImages(data[0].images[:96], data[0].labels[:96])


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def taught(
    model: nn.Module,
    few: LabelledImages,
    noise: DeviceNoise | None,
    student: nn.Module | TracedModule[Any] | None = None,
    **more: Any,
) -> Any:
    student = model if student is None else student
    return distil(
        model, student, few, noise, epochs=1, batch=32, augmentation=None, threads=1, **more
    )


@names
def test_every_weight_is_found_and_runs_with_others(name: str, few: LabelledImages) -> None:
    model = make(name).eval()
    chip = draw_chip(model, DeviceNoise(), seeded())
    layers = mapped_layers(model)
    assert len(chip) == len(layers) == ZOO[name][1]
    assert all(
        weight.shape == layer.weight.shape for weight, layer in zip(chip, layers, strict=True)
    )
    held = sum(p.numel() for p in model.parameters() if p.ndim > 1)
    assert sum(weight.numel() for weight in chip) == held
    images = torch.from_numpy(few.images)
    with torch.no_grad():
        own = forward(model, images, [layer.weight for layer in layers])
        torch.testing.assert_close(own, model(images), rtol=1e-5, atol=1e-5)
        # Every weight counts, and so does every bias.
        for k in range(len(layers)):
            others = [layer.weight * (1 + (j == k)) for j, layer in enumerate(layers)]
            assert float((forward(model, images, others) - own).abs().max()) > 1e-4
        biases = [None if layer.bias is None else layer.bias + 1 for layer in layers]
        shifted = forward(model, images, [layer.weight for layer in layers], biases)
        assert name == "own" or float((shifted - own).abs().max()) > 1e-2


@names
def test_training_on_perfect_devices_is_that_of_torch(name: str, few: LabelledImages) -> None:
    graph, plain = TracedModule(make(name), training=True), make(name).train()
    images = torch.from_numpy(few.images)
    for _ in range(2):
        got, expected = graph.forward(images, graph.weights), plain(images)
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)
        got.square().sum().backward()
        expected.square().sum().backward()
    for (which, mine), theirs in zip(
        graph.module.named_parameters(), plain.parameters(), strict=True
    ):
        torch.testing.assert_close(
            mine.grad, theirs.grad, rtol=1e-3, atol=1e-3, msg=lambda m, w=which: f"{w}: {m}"
        )
    for mine, theirs in zip(graph.module.buffers(), plain.buffers(), strict=True):
        torch.testing.assert_close(mine, theirs)


@names
def test_a_student_of_any_kind_learns_through_its_devices(name: str, few: LabelledImages) -> None:
    model = make(name)
    absurd = DeviceNoise(5.0, 0.4, 0.4)
    quiet, loud = taught(model, few, PERFECT), taught(model, few, absurd)
    before, floating = dict(model.named_parameters()), taught(model, few, None)
    for key, parameter in quiet.named_parameters():
        assert not torch.equal(parameter, before[key]), f"{key} was not trained"
        assert not torch.equal(parameter, dict(loud.named_parameters())[key])
        torch.testing.assert_close(
            parameter, dict(floating.named_parameters())[key], rtol=2e-2, atol=2e-3
        )
    for key, buffer in quiet.named_buffers():
        assert not torch.equal(buffer, dict(model.named_buffers())[key]), f"{key} was not kept"
    for student in (quiet, loud, floating):
        assert type(student) is type(model)
        assert not any(part.training for part in student.modules())
        assert all(parameter.grad is None for parameter in student.parameters())


@names
def test_words_of_any_kind_repair_their_chip(name: str, few: LabelledImages) -> None:
    model = make(name).eval()
    weights = [layer.weight.detach().numpy() for layer in mapped_layers(model)]
    chip = [weight.numpy() for weight in draw_chip(model, DeviceNoise(), seeded())]
    masks = [np.ones(weight.shape, dtype=np.bool_) for weight in weights]
    words = train_words(model, chip, masks, few, steps=0, start="target")
    repaired = apply_words(model, chip, words)
    assert repaired is not model
    images = torch.from_numpy(few.images)
    with torch.no_grad():
        harmed = forward(model, images, [torch.from_numpy(weight) for weight in chip])
        right, now = model(images), repaired(images)
        assert float((now - right).abs().max()) < 0.4 * float((harmed - right).abs().max())
        again = [layer.weight for layer in mapped_layers(repaired)]
        torch.testing.assert_close(forward(repaired, images, again), now, rtol=1e-4, atol=1e-5)


@names
def test_an_array_that_is_its_map_gives_the_same_words(name: str, few: LabelledImages) -> None:
    model = make(name)
    chip = [weight.numpy() for weight in draw_chip(model, DeviceNoise(), seeded())]
    masks, asked = choose_words(model, 0.5), set()

    def array_multiply(index: int, vectors: Any) -> Any:
        matrix = chip[index].reshape(len(chip[index]), -1)
        assert vectors.dtype == np.float32
        assert vectors.shape[1:] == matrix.shape[1:]
        asked.add(index)
        return vectors @ matrix.T

    modelled, real = (
        train_words(model, chip, masks, few, steps=3, batch=16, array_multiply=through)
        for through in (None, array_multiply)
    )
    assert asked == set(range(len(chip)))
    for a, b in zip(modelled.layers, real.layers, strict=True):
        assert np.abs(a.values - b.values).max(initial=0) <= 1
        assert np.abs(a.bias_values - b.bias_values).max(initial=0) <= 1


def test_a_weight_that_is_used_twice_is_one_weight_on_the_chip(few: LabelledImages) -> None:
    model = make("shared").eval()
    chip = draw_chip(model, DeviceNoise(), seeded())
    images, expected = torch.from_numpy(few.images), copy.deepcopy(model)
    with torch.no_grad():
        for layer, weight in zip(mapped_layers(expected), chip, strict=True):
            layer.weight.copy_(weight)
        assert mapped_layers(model) == [model.first, model.middle, model.last]
        torch.testing.assert_close(forward(model, images, chip), expected(images))


def test_a_weight_that_is_stored_transposed_is_written_where_it_is() -> None:
    model = make("own")
    first, second = mapped_layers(model)
    assert second.weight.shape == (10, 16)
    words = learning.Words((), 8, 0)
    with pytest.raises(DataError, match="2 mapped layers, but 1 measured weights"):
        apply_words(model, [np.zeros((16, 64))], words)
    with torch.no_grad():
        second.weight.copy_(torch.ones(10, 16))
    assert torch.equal(model.v, torch.ones(16, 10))
    assert first.bias is None


# What is left alone.


def snapshot(module: nn.Module) -> list[Any]:
    """All that can be seen of a module: modes, values, gradients, layout, hooks, attributes."""
    parts = [
        (name, part.training, sorted(vars(part)), len(part._forward_hooks))
        for name, part in module.named_modules()
    ]
    tensors = [
        (
            name,
            id(tensor),
            tensor.data_ptr(),
            tensor.stride(),
            tensor.dtype,
            tensor.requires_grad,
            tensor.detach().clone().numpy().tobytes(),
            None if tensor.grad is None else tensor.grad.clone().numpy().tobytes(),
        )
        for name, tensor in (*module.named_parameters(), *module.named_buffers())
    ]
    return [parts, tensors]


def untidy(name: str) -> nn.Module:
    """A module in a state that no function would put it in by itself."""
    model = make(name).to(memory_format=torch.channels_last)
    model.train()
    parts = [part for part in model.modules() if not list(part.children())]
    parts[0].eval()
    parameters = list(model.parameters())
    parameters[0].grad = torch.ones_like(parameters[0])
    parameters[-1].requires_grad_(False)
    return model


def functions(few: LabelledImages) -> dict[str, Callable[[nn.Module], object]]:
    images = torch.from_numpy(few.images[:8])
    noise = DeviceNoise()

    def words(model: nn.Module, teacher: nn.Module | None = None) -> learning.Words:
        chip = [weight.numpy() for weight in draw_chip(model, noise, seeded())]
        masks = choose_words(model, 0.5)
        return train_words(model, chip, masks, few, steps=2, batch=16, teacher=teacher)

    def applied(model: nn.Module) -> nn.Module:
        chip = [weight.numpy() for weight in draw_chip(model, noise, seeded())]
        return apply_words(model, chip, words(model))

    def threads(model: nn.Module) -> None:
        with threads_for(model, (1, 8, 8), 8):
            pass

    return {
        "train_teacher": lambda model: train_teacher(
            model, few, epochs=1, batch=32, augmentation=None
        ),
        "distil": lambda model: taught(model, few, noise),
        "distil without devices": lambda model: taught(model, few, None),
        "choose_words": lambda model: choose_words(model, 0.5),
        "mapped_layers": mapped_layers,
        "draw_chip": lambda model: draw_chip(model, noise, seeded()),
        "forward": lambda model: forward(model, images, draw_chip(model, noise, seeded())),
        "accuracy": lambda model: accuracy(model, few),
        "train_words": words,
        "train_words with a teacher": lambda model: words(model, model),
        "apply_words": applied,
        "TracedModule": lambda model: TracedModule(model, training=True),
        "multiply_accumulates": lambda model: multiply_accumulates(model, (1, 8, 8)),
        "threads_for": threads,
    }


@pytest.mark.parametrize("name", ["convolutions", "lstm", "encoder"])
@pytest.mark.parametrize("function", functions(LabelledImages(np.zeros((9, 1)), np.zeros(9))))
def test_modules_given_are_left_as_they_were(name: str, function: str, few: LabelledImages) -> None:
    model = untidy(name)
    before, random = snapshot(model), torch.random.get_rng_state()
    functions(few)[function](model)
    assert snapshot(model) == before
    assert torch.equal(torch.random.get_rng_state(), random)


def test_a_teacher_that_fails_is_left_as_it_was(few: LabelledImages) -> None:
    model = untidy("convolutions")
    before = snapshot(model)
    with pytest.raises(RuntimeError), torch.no_grad():
        accuracy(model, LabelledImages(few.images[:, :, :1, 0], few.labels))
    assert snapshot(model) == before


def test_a_part_that_is_frozen_stays_so(few: LabelledImages) -> None:
    model = make("blocks")
    model.steps[0].requires_grad_(False)
    student = taught(model, few, DeviceNoise())
    assert torch.equal(student.steps[0].weight, model.steps[0].weight)
    assert not torch.equal(student.steps[1].weight, model.steps[1].weight)


def test_dropout_drops_the_same_for_the_same_seed(few: LabelledImages) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model, calm = Encoder(dropout=0.5), Encoder(dropout=0.0)
    calm.load_state_dict(model.state_dict())
    first, again, other = (taught(model, few, DeviceNoise(), seed=seed) for seed in (1, 1, 2))
    still = taught(calm, few, DeviceNoise(), seed=1)
    same = [
        [torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True)]
        for second in (again, other, still)
    ]
    assert all(same[0])
    assert not any(same[1])
    assert not any(same[2])


# Other types.


@names
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_modules_of_other_types_learn_in_theirs(
    name: str, dtype: torch.dtype, few: LabelledImages
) -> None:
    model = make(name).to(dtype)
    student = taught(model, few, DeviceNoise())
    assert {p.dtype for p in student.parameters()} == {dtype}
    assert {p.dtype for p in train_teacher(
        model, few, epochs=1, batch=32, augmentation=None, threads=1
    ).parameters()} == {dtype}  # fmt: skip
    chip = draw_chip(student, DeviceNoise(), seeded())
    assert {weight.dtype for weight in chip} == {dtype}
    measured = [weight.float().numpy() for weight in chip]
    masks = choose_words(student, 0.5)

    def array_multiply(index: int, vectors: Any) -> Any:
        return vectors @ measured[index].reshape(len(measured[index]), -1).T

    for through in (None, array_multiply):
        words = train_words(
            student, measured, masks, few, steps=2, teacher=make(name), array_multiply=through
        )
        adapted = apply_words(student, measured, words)
        assert {p.dtype for p in adapted.parameters()} == {dtype}
        assert 0.0 <= accuracy(adapted, few) <= 1.0
    images = torch.from_numpy(few.images)
    got = forward(adapted, images, [layer.weight for layer in mapped_layers(adapted)])
    with torch.no_grad():
        expected = adapted(images.to(dtype))
    assert got.dtype == dtype
    tolerance = 1e-9 if dtype == torch.float64 else 0.1
    torch.testing.assert_close(got, expected, rtol=tolerance, atol=tolerance)


def test_teacher_and_student_may_differ_in_type(few: LabelledImages) -> None:
    student = distil(
        make("blocks").double(), make("own"), few, DeviceNoise(), epochs=1, augmentation=None
    )
    assert {p.dtype for p in student.parameters()} == {torch.float32}


# What is refused.


@pytest.mark.parametrize("name", ["nested", "lstm", "own"])
def test_what_is_not_finite_is_named(name: str, few: LabelledImages) -> None:
    for which, _ in make(name).named_parameters():
        model = make(name)
        with torch.no_grad():
            model.get_parameter(which).view(-1)[1] = torch.nan
        for learn in (train_teacher, lambda m, d, **kw: distil(make(name), m, d, None, **kw),
                      lambda m, d, **kw: distil(m, make(name), d, None, **kw)):  # fmt: skip
            with pytest.raises(DataError, match=which.replace(".", r"\.")):
                learn(model, few, epochs=1, augmentation=None)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10), nn.BatchNorm1d(10))
    model[2].running_var[3] = torch.inf
    with pytest.raises(DataError, match=r"2\.running_var"):
        train_teacher(model, few)


def test_a_computed_weight_is_read_but_not_trained(few: LabelledImages) -> None:
    model = computed().eval()
    images = torch.from_numpy(few.images)
    weights = [layer.weight for layer in mapped_layers(model)]
    with torch.no_grad():
        torch.testing.assert_close(forward(model, images, weights), model(images))
    chip = [weight.numpy() for weight in draw_chip(model, DeviceNoise(), seeded())]
    words = train_words(model, chip, choose_words(model, 0.5), few, steps=1)
    advice = r"1\..*weight is computed .*remove_parametrizations"
    with pytest.raises(ConfigError, match=advice):
        taught(model, few, DeviceNoise())
    with pytest.raises(ConfigError, match=advice):
        apply_words(model, chip, words)


class Pair(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = self.linear(x.flatten(1))
        return x, x


def test_what_cannot_learn_is_refused_by_name(few: LabelledImages) -> None:
    with pytest.raises(ConfigError, match="str: not a torch module"):
        train_teacher("lenet", few)
    with pytest.raises(ConfigError, match="int: not a torch module"):
        draw_chip(3, DeviceNoise(), seeded())
    with pytest.raises(ConfigError, match="Flatten: no weight"):
        mapped_layers(nn.Flatten())
    for learn in (train_teacher, lambda m, d: taught(m, d, DeviceNoise())):
        with pytest.raises(ConfigError, match=r"Pair: must give scores .* gives tuple"):
            learn(Pair(), few)
        with pytest.raises(ConfigError, match=r"Sequential: must give .* gives shape \(2, 1, 8, 4"):
            learn(nn.Sequential(nn.Linear(8, 4)), few)
        with pytest.raises(ConfigError, match=r"Sequential: cannot take images of shape \(1, 8, 8"):
            learn(nn.Sequential(nn.Flatten(), nn.Linear(63, 10)), few)
        with pytest.raises(ConfigError, match="scores of 9 classes, but the labels are 0 to 9"):
            learn(nn.Sequential(nn.Flatten(), nn.Linear(64, 9)), few)
        with pytest.raises(ConfigError, match="Blocks: none of its parameters can be trained"):
            learn(make("blocks").requires_grad_(False), few)
    with pytest.raises(ConfigError, match="must know the same classes"):
        distil(nn.Sequential(nn.Flatten(), nn.Linear(64, 11)), make("own"), few, None,
               augmentation=None)  # fmt: skip
    with pytest.raises(DataError, match="no images"):
        train_teacher(make("own"), LabelledImages(few.images[:0], few.labels[:0]))
    with pytest.raises(DataError, match="masks of the shapes"):
        taught(make("own"), few, None, words=[np.zeros((16, 64), np.bool_)])


def test_training_that_diverges_says_so(few: LabelledImages) -> None:
    with pytest.raises(DataError, match="teacher: training diverged"):
        train_teacher(make("own"), few, epochs=3, batch=32, augmentation=None, learning_rate=1e38)


def test_sequences_learn_and_cannot_be_shifted_by_pixels(few: LabelledImages) -> None:
    rows = LabelledImages(few.images[:, 0], few.labels)
    model = nn.Sequential(nn.Conv1d(8, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(24, 10))
    student = taught(model, rows, DeviceNoise())
    assert not torch.equal(student[0].weight, model[0].weight)
    with pytest.raises(ConfigError, match="augmentation: moves the pixels"):
        train_teacher(model, rows)


def test_a_traced_module_stands_for_its_module(few: LabelledImages) -> None:
    graph = TracedModule(digits_net())
    model, images = graph.module, torch.from_numpy(few.images)
    chip = draw_chip(graph, DeviceNoise(), seeded())
    expected = draw_chip(model, DeviceNoise(), seeded())
    assert all(torch.equal(a, b) for a, b in zip(chip, expected, strict=True))
    assert torch.equal(forward(graph, images, chip), forward(model, images, chip))
    assert isinstance(taught_by(graph, few), nn.Sequential)
    # It sees what becomes of its module.
    model.double()
    with torch.no_grad():
        model[0].weight.zero_()
    assert not graph.weights[0].any()
    assert graph.weights[0].dtype == torch.float64


def taught_by(student: Any, few: LabelledImages) -> nn.Module:
    return distil(digits_net(), student, few, DeviceNoise(), epochs=1, augmentation=None)


def test_weights_that_may_stay_digital_are_trained_there(few: LabelledImages) -> None:
    model = make("blocks")
    graph = TracedModule(model, allow_digital=["steps.0"])
    assert "steps.0" not in graph.names
    student = distil(model, graph, few, DeviceNoise(), epochs=1, augmentation=None)
    assert not torch.equal(student.steps[0].weight, model.steps[0].weight)


class Frozen(nn.Module):
    """A batch norm that stays in evaluation mode whatever the rest does, beside one that learns."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.fixed = nn.Linear(64, 8), nn.BatchNorm1d(8)
        self.second, self.norm = nn.Linear(8, 10), nn.BatchNorm1d(10)

    def train(self, mode: bool = True) -> Frozen:
        super().train(mode)
        self.fixed.eval()
        return self

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.second(torch.relu(self.fixed(self.first(x.flatten(1))))))


def test_a_batch_norm_that_is_held_in_evaluation_mode_is_not_trained(few: LabelledImages) -> None:
    model = Frozen()
    for noise in (None, DeviceNoise()):
        student = taught(model, few, noise)
        assert torch.equal(student.fixed.running_mean, torch.zeros(8))
        assert student.norm.running_mean.any()
    graph, plain = TracedModule(copy.deepcopy(model).train(), training=True), model.train()
    images = torch.from_numpy(few.images)
    torch.testing.assert_close(graph.forward(images, graph.weights), plain(images))


class Branching(nn.Module):
    """Another head in training than in use."""

    def __init__(self) -> None:
        super().__init__()
        self.learns, self.answers = nn.Linear(64, 10), nn.Linear(64, 10)
        self.both = False

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            return self.learns(x.flatten(1))
        x = x.flatten(1)
        return self.answers(x) + self.learns(x) if self.both else self.answers(x)


class Counting(nn.Module):
    """Another answer every time."""

    def __init__(self) -> None:
        super().__init__()
        self.calls, self.out = 0, nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return self.out(x.flatten(1)) * self.calls


class Typed(nn.Module):
    """Another answer for a tensor than for what stands for one in a trace."""

    def __init__(self) -> None:
        super().__init__()
        self.out = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(x.flatten(1)) * (2 if type(x) is Tensor else 1)


class Gains(nn.Module):
    """A digital tensor that is computed from parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Parameter(torch.ones(64)), nn.Parameter(torch.ones(64))
        self.out = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(x.flatten(1) * (self.a * self.b))


def test_students_that_would_not_be_what_was_trained_are_refused(few: LabelledImages) -> None:
    noise = DeviceNoise()
    with pytest.raises(ConfigError, match=r"Branching: .* learns\.weight"):
        taught(Branching(), few, noise)
    model = Branching()
    model.both = True
    with pytest.raises(ConfigError, match="Branching: multiplies by other weights in training"):
        taught(model, few, noise)
    with pytest.raises(ConfigError, match="Counting: its forward pass is another one the second"):
        taught(Counting(), few, noise)
    with pytest.raises(ConfigError, match="Typed: what was traced of it gives other scores"):
        taught(Typed(), few, noise)
    with pytest.raises(ConfigError, match="Gains: a cannot be trained"):
        taught(Gains(), few, noise)
    gains = Gains()
    gains.a.requires_grad_(False)
    gains.b.requires_grad_(False)
    assert torch.equal(taught(gains, few, noise).a, gains.a)


class Stopping(nn.Module):
    """A gradient that stops half-way."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.out = nn.Linear(64, 16), nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(torch.relu(self.first(x.flatten(1)).detach()))


def test_a_gradient_that_stops_is_not_traced_over(few: LabelledImages) -> None:
    with pytest.raises(ConfigError, match=r"Stopping: (first|.*detach)"):
        taught(Stopping(), few, DeviceNoise())


class Words(nn.Module):
    """A table, one row of which is for padding."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.out = nn.Embedding(17, 8, padding_idx=0), nn.Linear(8, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.table((x.flatten(1) * 16).long()).mean(1))


def test_the_row_of_an_embedding_that_is_for_padding_learns_nothing(few: LabelledImages) -> None:
    model = Words()
    student = taught(
        model, few, DeviceNoise(), student=TracedModule(model, allow_digital=["table"])
    )
    assert not student.table.weight[0].any()
    assert not torch.equal(student.table.weight[1], model.table.weight[1])


class Autoencoder(nn.Module):
    """One parameter as two weights: as it is, and transposed."""

    def __init__(self) -> None:
        super().__init__()
        self.code, self.out = nn.Linear(64, 16), nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        code = torch.tanh(self.code(x.flatten(1)))
        return self.out(functional.linear(code, self.code.weight.t()))


def test_two_weights_of_one_parameter_learn_but_are_not_written(few: LabelledImages) -> None:
    model = Autoencoder()
    student = taught(model, few, DeviceNoise())
    assert not torch.equal(student.code.weight, model.code.weight)
    chip = [weight.numpy() for weight in draw_chip(student, DeviceNoise(), seeded())]
    words = train_words(student, chip, choose_words(student, 0.5), few, steps=1)
    with pytest.raises(ConfigError, match="shares its parameter with another"):
        apply_words(student, chip, words)


def test_modules_that_run_another_are_that_one(few: LabelledImages) -> None:
    model = make("own")
    wrapped = nn.DataParallel(model)
    chip = draw_chip(model, DeviceNoise(), seeded())
    assert all(map(torch.equal, draw_chip(wrapped, DeviceNoise(), seeded()), chip))
    student, plain = taught(wrapped, few, DeviceNoise()), taught(model, few, DeviceNoise())
    assert all(map(torch.equal, student.module.parameters(), plain.parameters()))


def test_modules_that_cannot_be_copied_or_have_no_shape_are_refused(few: LabelledImages) -> None:
    def pruned() -> nn.Module:
        model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
        prune.random_unstructured(model[1], "weight", 0.5)
        return model

    for learn in (train_teacher, lambda m, d: taught(m, d, DeviceNoise())):
        with pytest.raises(ConfigError, match="Sequential: cannot be copied"):
            learn(pruned(), few)
        with pytest.raises(ConfigError, match=r"Sequential: 1\.weight has no shape yet"):
            learn(nn.Sequential(nn.Flatten(), nn.LazyLinear(10)), few)
        with pytest.raises(ConfigError, match="RecursiveScriptModule: scripted"):
            learn(torch.jit.script(make("own")), few)


def test_a_module_that_runs_past_its_own_parameters_is_refused(few: LabelledImages) -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    # A copy of it would run, and train, the layers of the original.
    model.forward = lambda x: model[1](model[0](x))  # type: ignore[method-assign]
    for learn in (train_teacher, lambda m, d: taught(m, d, DeviceNoise())):
        with pytest.raises(ConfigError, match=r"forward pass (takes others|cannot be traced)"):
            learn(model, few)
    assert model[1].weight.grad is None


def test_a_network_without_torch_learns_as_its_module(few: LabelledImages) -> None:
    model = make("encoder").eval()
    network = Network.from_torch(model).to_torch()
    images = torch.from_numpy(few.images)
    with torch.no_grad():
        torch.testing.assert_close(network(images), model(images), rtol=1e-5, atol=1e-5)
    student, expected = (taught(m, few, DeviceNoise()) for m in (network, model))
    with torch.no_grad():
        torch.testing.assert_close(student(images), expected(images), rtol=1e-3, atol=1e-3)
