"""A network of one's own, ``model=custom model.factory=package.module:function``."""

import sys
import types

import pytest
import torch
from torch import nn

from repro import models
from repro.config import Filler, Model, fingerprint
from repro.config.errors import ReproError


@pytest.fixture
def mine(monkeypatch):
    module = types.ModuleType("mine_for_test")
    module.plain = lambda num_classes, channels: nn.Sequential(nn.Flatten(), nn.Linear(16 * channels, num_classes))
    module.named = lambda *, weights=None, **kwargs: nn.Sequential(
        nn.Flatten(), nn.Linear(48, kwargs["num_classes"])
    )
    module.fixed = lambda num_classes, channels: nn.Sequential(nn.Flatten(), nn.Linear(48, 1000))
    module.tuple = lambda num_classes, channels: Pair()
    module.broken = lambda num_classes, channels: nn.Linear(1, -1)
    module.nothing = lambda num_classes, channels: None
    monkeypatch.setitem(sys.modules, "mine_for_test", module)


class Pair(nn.Module):
    def forward(self, images):
        return images, images


def built(function, classes=3):
    shape = (4, 4, 3)
    network = models.from_config(Model(name=f"mine_for_test:{function}", init=Filler.own), classes, shape, 0)
    models.require_size(network, function, shape, classes)
    return network


@pytest.mark.parametrize("function", ["plain", "named"])
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
