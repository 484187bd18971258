"""The loop and its update rules, against references written out plainly."""

import itertools
import math
import sys
import types
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from repro import models, schedules
from repro.config import Dataset, Precision, Update
from repro.config.errors import ReproError
from repro.data.batches import Batches, load
from repro.training import loop
from repro.training.sgd import SGD
from repro.training.state import State


def reference_update(update, nesterov, weight, gradients, schedule, decay, lr_multiple):
    """The rules as the paper and torch.optim state them, one iteration after the other, in float64."""
    velocity = torch.zeros_like(weight)
    for gradient, (lr, mu) in zip(gradients, schedule, strict=True):
        g, old, rate = gradient + decay * weight, velocity, lr * lr_multiple
        if update is Update.caffe:
            velocity = mu * old + rate * g
            step = (1 + mu) * velocity - mu * old if nesterov else velocity
        else:
            velocity = mu * old + g
            step = rate * (g + mu * velocity) if nesterov else rate * velocity
        weight = weight - step
    return weight


@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("update", list(Update))
@pytest.mark.parametrize(("lr_multiple", "decay_multiple"), [(1.0, 1.0), (2.0, 0.0)])
def test_update_rules_over_a_changing_schedule(update, nesterov, lr_multiple, decay_multiple):
    torch.manual_seed(0)
    start = torch.randn(7, dtype=torch.float64)
    gradients = [torch.randn(7, dtype=torch.float64) for _ in range(12)]
    schedule = [(0.1 + 0.2 * i, 0.95 - 0.01 * i) for i in range(12)]
    parameter = nn.Parameter(start.clone())
    groups = {(lr_multiple, decay_multiple): [parameter]}
    optimizer = SGD(groups, weight_decay=0.01, update=update, nesterov=nesterov)
    for gradient, (lr, momentum) in zip(gradients, schedule, strict=True):
        parameter.grad = gradient.clone()
        optimizer.step(lr, momentum)
        assert parameter.grad is None
    expected = reference_update(update, nesterov, start, gradients, schedule, 0.01 * decay_multiple, lr_multiple)
    torch.testing.assert_close(parameter.detach(), expected)


@pytest.mark.parametrize("nesterov", [False, True])
def test_the_torch_rule_is_torch_optims(nesterov):
    torch.manual_seed(0)
    parameter, reference_parameter = (nn.Parameter(torch.ones(5, dtype=torch.float64)) for _ in range(2))
    optimizer = SGD({(1.0, 1.0): [parameter]}, weight_decay=0.1, update=Update.torch, nesterov=nesterov)
    reference = torch.optim.SGD([reference_parameter], lr=1.0, momentum=0.5, weight_decay=0.1, nesterov=nesterov)
    for i in range(8):
        parameter.grad = torch.randn(5, dtype=torch.float64)
        reference_parameter.grad = parameter.grad.clone()
        reference.param_groups[0].update(lr=0.1 * (i + 1), momentum=0.9 - 0.05 * i)
        optimizer.step(0.1 * (i + 1), 0.9 - 0.05 * i)
        reference.step()
    torch.testing.assert_close(parameter, reference_parameter)


def test_the_rules_agree_at_a_constant_learning_rate_only():
    def train(update, rates):
        parameter = nn.Parameter(torch.ones(3, dtype=torch.float64))
        optimizer = SGD({(1.0, 1.0): [parameter]}, weight_decay=0.0, update=update)
        for lr in rates:
            parameter.grad = parameter.detach().clone()
            optimizer.step(lr, 0.9)
        return parameter.detach()

    torch.testing.assert_close(train(Update.caffe, [0.1] * 6), train(Update.torch, [0.1] * 6))
    rising = [0.1, 0.2, 0.3]
    assert not torch.allclose(train(Update.caffe, rising), train(Update.torch, rising))


@pytest.fixture
def smoke(resolved):
    """A function: overrides -> the rows of a smoke run, and its network."""

    def run(*overrides):
        config = resolved("experiment=fig5a/clr_3.0", "scale=smoke", *overrides)
        loaded = load(config.dataset)
        network = models.from_config(config.model, loaded.classes, loaded.mean.shape, config.seed)
        steps = loop.train(config, loaded, State(config, network, "cpu"))
        return [row for row in steps if row is not None], network

    return run


def test_rows_follow_the_schedule(smoke):
    rows, _ = smoke()
    assert [row["iteration"] for row in rows] == [0, 2, 4, 6, 8, 10]
    assert [row["lr"] for row in rows] == pytest.approx([0.1, 1.26, 2.42, 2.42, 1.26, 0.1])
    assert {row["momentum"] for row in rows} == {0.9}
    assert rows[0]["train_loss"] is None
    assert all(row["train_loss"] > 0 and row["images_per_second"] > 0 for row in rows[1:])


def test_a_schedule_of_ones_own_that_fails_in_training_is_one_line(smoke, monkeypatch):
    own = types.ModuleType("own_for_training")
    own.late = lambda i: 0.001 if i < 3 else 0.001 / own.zero
    own.zero = 1
    monkeypatch.setitem(sys.modules, "own_for_training", own)

    def fail(train, *arguments):
        own.zero = 0
        return train(*arguments)

    monkeypatch.setattr(loop, "train", partial(fail, loop.train))
    message = r"schedule.lr.shape=own_for_training:late: ZeroDivisionError: .*, line \d+\), at iteration 3"
    with pytest.raises(ReproError, match=message):
        smoke("schedule.lr.shape=own_for_training:late")


def test_the_last_iteration_is_always_tested(smoke):
    rows, _ = smoke("scale.tests=3", "iterations=11000")
    assert [row["iteration"] for row in rows] == [0, 4, 8, 11]


def test_before_the_first_update_the_averages_are_empty(smoke):
    first = smoke()[0][0]
    assert first["test_loss"] == pytest.approx(87.3365, abs=1e-3)  # as Caffe prints it, and no divergence
    assert 0.05 < first["test_accuracy"] < 0.15
    rows, _ = smoke("test_at_start=false")
    assert rows[0]["iteration"] == 2


def test_the_train_loss_is_the_mean_since_the_last_test(smoke):
    every, _ = smoke("scale.tests=10")
    pairs, _ = smoke("scale.tests=5")
    losses = [row["train_loss"] for row in every[1:]]
    means = [(a + b) / 2 for a, b in zip(losses[::2], losses[1::2], strict=True)]
    assert [row["train_loss"] for row in pairs[1:]] == pytest.approx(means, rel=1e-5)


def test_the_same_seed_gives_the_same_bits(smoke):
    def numbers(rows):
        return [{k: v for k, v in row.items() if k != "images_per_second"} for row in rows]

    (first, a), (again, b), (other, _) = smoke("seed=3"), smoke("seed=3"), smoke("seed=4")
    assert numbers(first) == numbers(again)
    assert all(torch.equal(x, y) for x, y in zip(a.parameters(), b.parameters(), strict=True))
    assert numbers(first) != numbers(other)


def test_a_run_that_diverges_ends_with_an_honest_row(smoke):
    rows, network = smoke("schedule.lr.max_lr=1e30", "schedule.lr.base_lr=1e30")
    assert not math.isfinite(rows[-1]["train_loss"])
    assert rows[-1]["iteration"] < 10
    assert rows[-1]["test_loss"] == pytest.approx(87.3365, abs=1e-3)
    assert rows[-1]["test_accuracy"] < 0.2
    assert any(not p.isfinite().all() for p in network.parameters())


def test_the_whole_test_set_counts_once(monkeypatch):
    loaded = load(Dataset(name="digits", test_images=103))
    network = models.build("resnet56_superconv", 10, channels=1, blocks=1)
    network(loaded.network_input(loaded.train_images))
    whole = loop.test(network, loaded, Precision.float32)
    monkeypatch.setitem(loop.TEST_PIXELS, "cpu", 10 * 64)
    assert loop.test(network, loaded, Precision.float32) == pytest.approx(whole, rel=1e-5)
    logits = network(loaded.network_input(loaded.test_images))
    assert whole[0] == pytest.approx(nn.functional.cross_entropy(logits, loaded.test_labels).item(), rel=1e-5)
    assert whole[1] == (logits.argmax(1) == loaded.test_labels).double().mean().item()


@pytest.mark.parametrize("update", list(Update))
@pytest.mark.parametrize(
    ("experiment", "mirror", "reshuffle"),
    [
        ("fig8b/tbs512", True, True),  # Nesterov, batch normalization
        ("table1-cnn3/1cycle_cm_0.95-0.85", False, False),  # Nesterov, multiples of its own
        ("table2-lenet/step_85ep", True, False),  # without Nesterov
    ],
)
def test_a_run_is_its_iterations_written_out(resolved, experiment, mirror, reshuffle, update):
    """What the loop joins: the seed's batches, this iteration's LR and momentum, the network's multiples, the rule."""
    config = resolved(
        f"experiment={experiment}", "scale=smoke", "seed=3", f"update={update.value}", f"dataset.mirror={mirror}",
        f"dataset.reshuffle={reshuffle}", "regularization.weight_decay=0.01",
    )  # fmt: skip
    model, data = config.model, load(config.dataset)
    network, plain = (models.from_config(model, data.classes, data.mean.shape, config.seed) for _ in range(2))
    state, count = State(config, network, "cpu"), 5  # of 64 images: into the second epoch
    next(iteration for _ in loop.train(config, data, state) if (iteration := state.iteration) == count)
    batches = Batches(data, config.batch_size, mirror=mirror, reshuffle=reshuffle, seed=3)
    schedule = schedules.build(config.schedule.lr, config.schedule.momentum)
    rules = {"conv_bias_lr": model.conv_bias_lr, "conv_bias_decay": model.conv_bias_decay}
    rules |= {"classifier_bias_lr": model.classifier_bias_lr, "classifier_bias_decay": model.classifier_bias_decay}
    groups = [(pair, p) for pair, group in models.parameter_groups(plain, **rules).items() for p in group]
    velocities = [torch.zeros_like(p) for _, p in groups]
    for i in range(count):
        images, labels = batches(i)
        plain.zero_grad()
        nn.functional.cross_entropy(plain(images), labels).backward()
        lr, mu = schedule(i)
        for k, ((lr_multiple, decay_multiple), p) in enumerate(groups):
            g = (torch.zeros_like(p) if p.grad is None else p.grad) + 0.01 * decay_multiple * p.detach()
            old, rate = velocities[k], lr * lr_multiple
            velocities[k] = new = mu * old + (rate * g if update is Update.caffe else g)
            if update is Update.caffe:
                step = (1 + mu) * new - mu * old if model.nesterov else new
            else:
                step = rate * (g + mu * new if model.nesterov else new)
            p.data -= step
    for (name, p), q in zip(network.named_parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-3, atol=5e-6, msg=lambda text, name=name: f"{name}: {text}")


def test_a_test_loss_that_stays_high_ends_a_run(smoke, monkeypatch):
    losses = itertools.cycle([9.0, 2.0, 0.5, 2.1, 2.2, 0.4])  # the first before the first update
    monkeypatch.setattr(loop, "test", lambda *_: (next(losses), 0.5))
    assert [row["iteration"] for row in smoke()[0]] == [0, 2, 4, 6, 8, 10]
    assert [row["iteration"] for row in smoke("divergence=4")[0]] == [0, 2, 4, 6, 8]


def test_the_speed_is_in_images_and_excludes_tests(smoke, monkeypatch):
    clock = itertools.count()  # a second from each look at it to the next
    monkeypatch.setattr(loop, "time", SimpleNamespace(perf_counter=lambda: next(clock)))
    assert [row["images_per_second"] for row in smoke()[0]] == [None, *[2 * 125.0] * 5]


def test_the_loss_of_one_image_is_at_most_caffes():
    class Sure(nn.Module):
        def forward(self, images):
            return torch.tensor([[1e4, 0.0]]).repeat(len(images), 1)

    loaded = load(Dataset(name="digits", test_images=4))
    labels = torch.tensor([0, 1, 0, 0])
    loss, accuracy = loop.test(Sure(), SimpleNamespace(**{**vars(loaded), "test_labels": labels,
                               "network_input": loaded.network_input}), Precision.float32)  # fmt: skip
    assert (loss, accuracy) == (pytest.approx(loop.LARGEST_LOSS / 4), 0.75)
