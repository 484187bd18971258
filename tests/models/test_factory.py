"""A network of one's own, ``model=custom model.factory=package.module:function``."""

import random
import sys
import types

import numpy as np
import pytest
import torch
from torch import nn

from repro import models
from repro.config import Filler, Model, fingerprint
from repro.config.errors import ReproError
from repro.training.plain import Plain
from repro.training.sgd import SGD


@pytest.fixture
def mine(monkeypatch):
    module = types.ModuleType("mine_for_test")
    module.plain = lambda num_classes, channels: nn.Sequential(nn.Flatten(), nn.Linear(16 * channels, num_classes))
    module.named = lambda *, weights=None, **kwargs: nn.Sequential(
        nn.Flatten(), nn.Linear(48, kwargs["num_classes"])
    )
    module.fixed = lambda num_classes, channels: nn.Sequential(nn.Flatten(), nn.Linear(48, 1000))
    module.tuple = lambda num_classes, channels: Pair(1, 1)
    module.broken = lambda num_classes, channels: nn.Linear(1, -1)
    module.nothing = lambda num_classes, channels: None
    module.empty = lambda num_classes, channels: nn.Flatten()
    module.frozen = lambda num_classes, channels: nn.Linear(1, 1).requires_grad_(False)
    module.text = "network"
    module.ready = nn.Linear(1, 1)
    module.exits = lambda num_classes, channels: sys.exit(3)
    module.grey = lambda num_classes, channels: sized(num_classes, 1, 4)
    module.large = lambda num_classes, channels: sized(num_classes, channels, 24)
    module.double = lambda num_classes, channels: sized(num_classes, channels, 4).double()
    module.faulty = lambda num_classes, channels: Faulty(channels, num_classes)
    module.auxiliary = lambda num_classes, channels: Auxiliary(num_classes)
    module.lazy = lambda num_classes, channels: nn.Sequential(nn.Flatten(), nn.LazyLinear(num_classes))
    module.unused = lambda num_classes, channels: Unused(num_classes)
    module.options = options
    module.dropped = dropped
    monkeypatch.setitem(sys.modules, "mine_for_test", module)


class Pair(nn.Linear):
    def forward(self, images):
        return images, images


class Faulty(nn.Linear):
    def forward(self, images):
        return {"features": images}["feature"]


class Auxiliary(nn.Linear):
    """Logits in evaluation, a named pair in training, as torchvision's googlenet."""

    def __init__(self, classes):
        super().__init__(48, classes)

    def forward(self, images):
        logits = super().forward(images.flatten(1))
        return (logits, logits) if self.training else logits


class Unused(nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.used, self.unused = nn.LazyLinear(classes), nn.LazyLinear(classes)

    def forward(self, images):
        return self.used(images.flatten(1))


def sized(classes, channels, side):
    convolution = nn.Conv2d(channels, 2, 3, padding=1)
    return nn.Sequential(convolution, nn.Flatten(), nn.Linear(2 * side * side, classes))


def options(num_classes, channels, *, width=5, blocks=2, bn_eps=0.1, nesterov=False, gpus=7, seed=3, init="mine"):
    network = nn.Sequential(nn.Flatten(), nn.Linear(16 * channels, num_classes))
    network.received = {"width": width, "blocks": blocks, "bn_eps": bn_eps, "nesterov": nesterov, "gpus": gpus,
                        "seed": seed, "init": init}  # fmt: skip
    return network


def dropped(num_classes=1000, dropout=0.5):
    return nn.Sequential(nn.Flatten(), nn.Dropout(dropout), nn.Linear(48, num_classes))


def built(function, classes=3, shape=(4, 4, 3), **model):
    name = f"mine_for_test:{function}"
    network = models.from_config(Model(name=name, init=Filler.own, **model), classes, shape, 0)
    models.require_size(network, name, shape, classes)
    return network


@pytest.mark.parametrize("function", ["plain", "named", "lazy", "dropped"])
def test_a_function_of_either_signature_is_a_network(mine, function):
    assert built(function)(torch.zeros(2, 3, 4, 4)).shape == (2, 3)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("fixed", r"for one image it returns shape \(1, 1000\), not logits of shape \(1, 3\)"),
        ("tuple", r"for one image it returns tuple, not logits of shape \(1, 3\)"),
        ("broken", r"model.name=mine_for_test:broken: it fails with 3 classes: RuntimeError"),
        ("nothing", r"model.name=mine_for_test:nothing: it returns a NoneType, not a torch.nn.Module"),
        ("missing", r"model.name=mine_for_test:missing: no network 'mine_for_test:missing'"),
        ("empty", "it has no parameter to train"),
        ("frozen", "it has no parameter to train"),
        ("text", "model.name=mine_for_test:text: it is a str, not a function that returns a network"),
        ("ready", "it is a Linear, not a function that returns a network"),
        ("exits", "it fails with 3 classes: it calls sys.exit .*test_factory.py, line"),
        ("grey", r"to have 1 channels, but got 3 channels instead\), in a batch of shape \(1, 3, 4, 4\)$"),
        ("double", r"\), in a batch of shape \(1, 3, 4, 4\)$"),
        ("large", r"\(1, 3, 4, 4\); dataset.resolution=24 resizes them to a size that it does$"),
        (
            "faulty",
            r"for a batch .* \(1, 3, 4, 4\): KeyError: 'feature' \(.*tests/models/test_factory.py, line \d+\)",
        ),
        (
            "auxiliary",
            r"in training it returns tuple for two images, not logits of shape \(2, 3\) .*aux_logits=false",
        ),
        ("unused", "it has a lazy layer that its forward pass does not use"),
    ],
)
def test_a_wrong_network_is_one_line(mine, function, message):
    with pytest.raises(ReproError, match=message):
        built(function)


def test_the_factory_is_the_name_of_the_run(resolved):
    run = resolved("model=custom", "model.factory=mine:network")
    assert (run.model.name, run.model.factory) == ("mine:network", None)
    assert fingerprint(run) == fingerprint(resolved("model=custom", "model.name=mine:network"))
    with pytest.raises(
        ReproError, match="model.factory=null: name your function, model.factory=package.module:function"
    ):
        resolved("model=custom")


def test_a_network_of_ones_own_receives_what_is_configured_and_keeps_its_other_defaults(mine):
    received = {"width": 5, "blocks": 2, "bn_eps": 0.1, "nesterov": False, "gpus": 7, "seed": 3, "init": "mine"}
    assert built("options", nesterov=True).received == received
    assert built("options", width=32).received == {**received, "width": 32}
    chosen = {"seed": 4, "init": "yours", "gpus": 2, "blocks": 9}
    assert built("options", options=chosen).received == {**received, **chosen}
    for option in ("num_classes", "channels"):
        with pytest.raises(ReproError, match=f"model.options.{option}: the image set determines it"):
            built("options", options={option: 3})


def test_lazy_layers_begin_by_the_seed_and_take_caffes_fillers(mine):
    def weight(seed, init):
        model = Model(name="mine_for_test:lazy", init=init)
        return models.from_config(model, 3, (4, 4, 3), seed)[1].weight

    assert torch.equal(weight(1, Filler.own), weight(1, Filler.own))
    assert not torch.equal(weight(1, Filler.own), weight(2, Filler.own))
    assert weight(1, Filler.msra).shape == (3, 48)


class Sliced(nn.Linear):
    """A part of a larger, pretrained layer."""

    def __init__(self, classes):
        super().__init__(48, classes)
        self.weight = nn.Parameter(nn.Linear(96, classes).weight[:, :48])

    def forward(self, images):
        return super().forward(images.flatten(1))


def test_a_weight_that_is_a_part_of_a_larger_tensor_is_kept():
    network = Sliced(3)
    images, before = torch.randn(2, 3, 4, 4), network.weight.detach().clone()
    logits = network(images)
    optimizer = SGD({(1.0, 1.0): list(network.parameters())}, weight_decay=0.0)
    assert torch.equal(network.weight, before)
    assert torch.equal(network(images), logits)
    network(images).sum().backward()
    optimizer.step(0.1, 0.0)
    assert not torch.equal(network.weight, before)


def test_a_network_that_draws_from_numpy_is_the_same_for_the_same_seed(mine):
    def network(num_classes, channels):
        made = sized(num_classes, channels, 4)
        made[0].bias.data.fill_(np.random.rand() + random.random())
        return made

    sys.modules["mine_for_test"].drawn = network
    state = np.random.get_state()[1].tolist()
    model = Model(name="mine_for_test:drawn", init=Filler.own)
    biases = {models.from_config(model, 3, (4, 4, 1), seed)[0].bias[0].item() for seed in (0, 0, 1)}
    assert len(biases) == 2
    assert np.random.get_state()[1].tolist() == state


def test_parameters_of_five_dimensions_and_of_two_types(mine):
    sys.modules["mine_for_test"].deep = lambda num_classes, channels: nn.Sequential(
        nn.Unflatten(1, (1, channels)), nn.Conv3d(1, 2, 3, padding=1), nn.Flatten(), nn.LazyLinear(num_classes)
    )
    model = Model(name="mine_for_test:deep")
    assert models.from_config(model, 3, (4, 4, 1), 0)(torch.zeros(2, 1, 4, 4)).shape == (2, 3)
    sys.modules["mine_for_test"].mixed = lambda num_classes, channels: nn.Sequential(
        nn.Flatten(), nn.Linear(16, 4), nn.Linear(4, num_classes).double()
    )
    with pytest.raises(ReproError, match="its parameters have the types float32 and float64; give all the same"):
        models.from_config(Model(name="mine_for_test:mixed"), 3, (4, 4, 1), 0)


def test_a_network_that_fails_in_training_says_where():
    class Reshaping(nn.Linear):
        def forward(self, images):
            return super().forward(images.reshape(32, -1))

    network = Reshaping(48, 3)
    step = Plain(network, SGD({(1.0, 1.0): list(network.parameters())}, weight_decay=0.0))
    message = r"^Reshaping: in training it fails for images of shape \(16, 3, 4, 4\): RuntimeError: .*test_factory.py, line"
    with pytest.raises(ReproError, match=message):
        step(torch.zeros(16, 3, 4, 4), torch.zeros(16, dtype=torch.long), 0.1, 0.9)


def test_one_resolution_is_no_size_of_an_oblong_image(mine):
    message = (
        "model.name=cnn3: its parameter resolution is for square images, and these have 32x16 pixels; dataset.r"
    )
    with pytest.raises(ReproError, match=message):
        models.from_config(Model(name="cnn3"), 3, (16, 32, 3), 0)


def test_a_module_that_fails_says_where(tmp_path, monkeypatch):
    (tmp_path / "fails_for_test.py").write_text("import math\nTABLE = {}\nTABLE['x']\n")
    (tmp_path / "exits_for_test.py").write_text("import sys\nsys.exit(1)\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    for name, reason in (("fails", "KeyError: 'x'"), ("exits", "it calls sys.exit")):
        with pytest.raises(
            ReproError, match=rf"importing {name}_for_test fails: {reason} \(.*{name}_for_test.py, line"
        ):
            models.from_config(Model(name=f"{name}_for_test:network"), 3, (4, 4, 3), 0)
