"""Every fast path against its plain reference: the same step and changing schedule, stated tolerances."""

import copy
import itertools
import logging
import shutil
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch._dynamo.testing import CompileCounter
from torch.nn import functional as F

from repro import models
from repro.config import Model, Precision, Update, fingerprint, from_dict, to_dict
from repro.config.errors import ReproError
from repro.data.batches import load
from repro.models import layers, resnet
from repro.training import loop, precision, steps
from repro.training.fast import CaptureError, Fast, find_blocks, take_reference_steps, verify
from repro.training.plain import ByGroup, Plain
from repro.training.precision import autocast, tf32
from repro.training.sgd import SGD
from repro.training.state import State

needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs g++ on a CPU")
GENTLE = ("schedule.lr.base_lr=0.001", "schedule.lr.max_lr=0.01")  # rounding is not blown up
SCHEDULE = [(0.01 + 0.01 * i, 0.95 - 0.02 * i) for i in range(5)]


def make_network(name="resnet56_superconv", seed=0, groups=2, dtype=torch.float32, memory=torch.channels_last):
    options = {"dropout": 0.0} if name == "densenet40" else None  # each engine would draw its own
    model = Model(name=name, blocks=1, width=4, bn_groups=groups, options=options)
    return models.from_config(model, 10, (16, 16, 1), seed).to(dtype=dtype, memory_format=memory)


def make_optimizer(network, nesterov=True, decay=1e-2):
    return SGD(models.parameter_groups(network, conv_bias_lr=2.0), weight_decay=decay, nesterov=nesterov)


def make_batches(count=5, dtype=torch.float32):
    rng = torch.Generator().manual_seed(3)
    return [
        (torch.randn(12, 1, 16, 16, generator=rng).to(dtype), torch.randint(0, 10, (12,), generator=rng))
        for _ in range(count)
    ]


def train(step, schedule=SCHEDULE, dtype=torch.float32):
    """The losses of a step while learning rate and momentum change."""
    return [
        step(*batch, *lr_and_momentum).item()
        for batch, lr_and_momentum in zip(make_batches(dtype=dtype), schedule, strict=True)
    ]


def copy_values(network):
    return [p.detach().clone() for p in [*network.parameters(), *network.buffers()]]


@pytest.mark.parametrize("memory", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("name", models.networks())
def test_parameters_in_a_flat_buffer_are_the_same_parameters(name, memory):
    plain, flat = make_network(name, memory=memory), make_network(name, memory=memory)
    optimizer = make_optimizer(flat)
    for a, b in zip(plain.parameters(), flat.parameters(), strict=True):
        assert torch.equal(a, b)
        assert a.stride() == b.stride()
    assert sum(w.numel() for w in optimizer.weights) == sum(p.numel() for p in flat.parameters())
    optimizer.weights[0].zero_()
    assert all((p == 0).all() for p in optimizer.groups[1.0, 1.0])


@pytest.mark.parametrize("nesterov", [False, True])
def test_a_flat_update_has_the_bits_of_one_tensor_at_a_time(nesterov):
    flat, plain = make_network(), make_network()
    optimizer = make_optimizer(flat, nesterov)
    groups = models.parameter_groups(plain, conv_bias_lr=2.0)
    optimizers = [
        SGD({multiples: [p]}, weight_decay=1e-2, nesterov=nesterov)
        for multiples, group in groups.items()
        for p in group
    ]
    for (images, labels), (lr, momentum) in zip(make_batches(), SCHEDULE, strict=True):
        for network, its_optimizers in ((flat, [optimizer]), (plain, optimizers)):
            F.cross_entropy(network(images), labels).backward()
            for each in its_optimizers:
                each.step(lr, momentum)
    assert all(torch.equal(a, b) for a, b in zip(copy_values(flat), copy_values(plain), strict=True))


@pytest.mark.parametrize("groups", [1, 3])
@pytest.mark.parametrize("memory", [torch.contiguous_format, torch.channels_last])
def test_normalisation_by_view_is_normalisation_by_parts(groups, memory):
    torch.manual_seed(0)
    x = (torch.randn(12, 5, 4, 4, dtype=torch.float64) * 3 + 7).to(memory_format=memory)
    weight, bias, out = torch.rand(5).double(), torch.rand(5).double(), torch.randn(12, 5, 4, 4).double()

    def computed(norm):
        leaves = [t.clone().requires_grad_() for t in (x, weight, bias)]
        y, mean, variance = norm(*leaves, groups, 1e-5)
        y.backward(out)
        return [y, mean, variance, *(leaf.grad for leaf in leaves)]

    for a, b in zip(computed(layers.norm_by_parts), computed(layers.norm_by_view), strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("name", resnet.NETWORKS)
def test_normalisation_folded_into_convolutions_tests_the_same(name, monkeypatch):
    network = make_network(name, dtype=torch.float64)
    network(make_batches(1, torch.float64)[0][0])  # fills the averages
    network.eval()
    images = make_batches(1, torch.float64)[0][0]
    folded = network(images)
    monkeypatch.setattr(resnet, "convolve_and_normalise", lambda x, convolution, norm: norm(convolution(x)))
    torch.testing.assert_close(folded, network(images))


@pytest.mark.parametrize("name", resnet.NETWORKS)
def test_a_bias_that_normalisation_takes_off_is_left_out(name, monkeypatch):
    def run():
        network = make_network(name, dtype=torch.float64)
        optimizer = make_optimizer(network)
        losses = train(Plain(network, optimizer), dtype=torch.float64)
        return losses, {k: v.clone() for k, v in network.state_dict().items()}

    losses, state = run()
    monkeypatch.setattr(resnet, "convolve_and_normalise", lambda x, convolution, norm: norm(convolution(x)))
    plain, expected = run()
    assert losses == pytest.approx(plain, rel=1e-9)
    for key, value in expected.items():
        torch.testing.assert_close(state[key], value, rtol=1e-7, atol=1e-9)
    assert (state["stem.bias"] == 0).all()
    assert (expected["stem.bias"] != 0).any()  # the rounding that the plain way trains


def test_a_bias_that_is_there_reaches_the_running_mean():
    convolution, norm = nn.Conv2d(1, 3, 3, padding=1), layers.BatchNorm(3, 1, 0.9, 1e-5)
    x = torch.randn(8, 1, 5, 5)
    layers.convolve_and_normalise(x, convolution, norm)
    mean, _ = norm.running_averages()
    torch.testing.assert_close(mean, convolution(x).mean((0, 2, 3)).detach())


@pytest.mark.parametrize("name", models.networks())
def test_one_group_after_the_other_is_the_plain_step(name):
    results = []
    for make_step in (
        lambda network, optimizer: Plain(network, optimizer),
        lambda network, optimizer: ByGroup(network, optimizer, Precision.float32, 3),
    ):
        network = make_network(name, groups=3, dtype=torch.float64)
        optimizer = make_optimizer(network)
        results.append(
            (train(make_step(network, optimizer), dtype=torch.float64), copy_values(network), optimizer.velocity)
        )
    (losses, state, velocity), (expected, *others) = results
    assert losses == pytest.approx(expected, rel=1e-9)
    for a, b in zip([*state, *velocity], itertools.chain(*others), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-7, atol=1e-9)


def test_the_running_averages_follow_the_first_group_alone():
    network, (images, _) = make_network(groups=3, dtype=torch.float64), make_batches(1, torch.float64)[0]
    for group_index, group_images in enumerate(images.chunk(3)):
        with models.one_group(network, group_index):
            network(group_images)
    reference = make_network(groups=1, dtype=torch.float64)
    reference(images[:4])
    assert all(torch.equal(a, b) for a, b in zip(network.buffers(), reference.buffers(), strict=True))
    network(images)  # and afterwards it sees whole batches again
    assert network.bn.groups == 3
    assert network.bn.weight_sum == pytest.approx(1 + network.bn.fraction)


def test_a_cpu_takes_one_group_after_the_other(resolved):
    config, network = resolved("experiment=fig8b/tbs512", "scale=smoke"), make_network()
    config.model.bn_groups = 2
    step, name, _ = steps.build(config, network, make_optimizer(network), *make_batches(1)[0])
    assert isinstance(step, ByGroup)
    assert name == "plain, by group"


@pytest.mark.parametrize(
    ("bf16", "float32", "expected"), [(37.0, 1.0, True), (0.5, 1.0, False), (2.0, 1.0, False)]
)
def test_bf16_that_a_cpu_only_emulates_is_found_out(bf16, float32, expected, monkeypatch):
    clock = itertools.chain(*([0.0, took] * 3 for took in (bf16, float32)))
    monkeypatch.setattr(precision, "time", SimpleNamespace(process_time=lambda: next(clock)))
    assert precision.emulated(Precision.bf16, "cpu") is expected
    assert not precision.emulated(Precision.float32, "cpu")


@pytest.mark.parametrize("update", ["caffe", "torch"])
def test_static_buffers_have_the_bits_of_the_plain_step(update):
    results = []
    for fast in (False, True):
        network = make_network()
        groups = models.parameter_groups(network)
        optimizer = SGD(groups, weight_decay=1e-2, update=Update(update), nesterov=True)
        step = Fast(network, optimizer, *make_batches(1)[0]) if fast else Plain(network, optimizer)
        if fast:
            step.adopt(network, optimizer)
        results.append((train(step), copy_values(network)))
    assert results[0][0] == results[1][0]
    assert all(torch.equal(a, b) for a, b in zip(results[0][1], results[1][1], strict=True))


@pytest.mark.parametrize("fast", [False, True])
def test_a_frozen_parameter_keeps_its_value_as_in_torch_optim(fast):
    """One without a gradient in this iteration still decays: its loss has the gradient zero."""
    network = make_network()
    network.stem.requires_grad_(False)
    network.unused = nn.Parameter(torch.ones(3))
    before = network.stem.weight.clone()
    optimizer = make_optimizer(network)
    step = Fast(network, optimizer, *make_batches(1)[0]) if fast else Plain(network, optimizer)
    if fast:
        step.adopt(network, optimizer)
    train(step)
    assert torch.equal(network.stem.weight, before)
    assert network.unused.max() < 1
    assert not torch.equal(network.classifier.weight, make_network().classifier.weight)


def test_auxiliary_outputs_in_training_are_one_line():
    class Pair(nn.Linear):
        def forward(self, images):
            return (super().forward(images),) * 2

    network = Pair(16, 10)
    with pytest.raises(ReproError, match=r"Pair: in training it returns tuple, not logits \(aux_logits=False\?\)"):
        train(Plain(network, make_optimizer(network)))


@needs_compiler
def test_a_compiled_step_follows_a_moving_schedule():
    def run(schedule, compiled=False):  # in float64: what differs would be the rule, not its rounding
        torch.manual_seed(0)
        norm = layers.BatchNorm(4, groups=2, fraction=0.9, eps=1e-5)
        network = nn.Sequential(
            nn.Conv2d(1, 4, 3), norm, nn.ReLU(), nn.Flatten(), nn.Linear(4 * 14**2, 10)
        ).double()
        optimizer = make_optimizer(network)
        step = Plain(network, optimizer)
        if compiled:
            step = Fast(network, optimizer, *make_batches(1, torch.float64)[0], compiled=True)
            step.adopt(network, optimizer)
        torch._dynamo.utils.counters.clear()
        losses = train(step, schedule, torch.float64)
        assert not torch._dynamo.utils.counters["stats"], "compiled again while LR and momentum moved"
        return losses, copy_values(network)

    (expected, plain), (losses, fast) = run(SCHEDULE), run(SCHEDULE, compiled=True)
    assert losses == pytest.approx(expected, rel=1e-9)
    for a, b in zip(fast, plain, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-7, atol=1e-9)
    assert run([SCHEDULE[0]] * len(SCHEDULE))[0] != pytest.approx(expected, rel=1e-3)  # it does move


@needs_compiler
def test_a_compiled_step_drops_what_the_plain_step_drops():
    def make():
        torch.manual_seed(0)
        network = nn.Sequential(nn.Flatten(), nn.Linear(256, 64), nn.ReLU(), nn.Dropout(0.5), nn.Linear(64, 10))
        return network, make_optimizer(network)

    plain, fast = Plain(*make()), Fast(*make(), *make_batches(1)[0], compiled=True)
    verify(fast, take_reference_steps(*make(), *make_batches(1)[0], Precision.float32))
    network, optimizer = make()
    fast.adopt(network, optimizer)
    for iteration, batch in enumerate(make_batches(3)):
        losses = []
        for step in (plain, fast):
            loop.seed_draws(torch.device("cpu"), 7, iteration)
            losses.append(step(*batch, 0.01, 0.9).item())
        assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    loop.seed_draws(torch.device("cpu"), 7, 3)
    assert plain(*batch, 0.01, 0.9).item() != pytest.approx(losses[0], rel=1e-2)


def test_the_largest_seed_draws_numbers_of_its_own():
    """Seed and iteration together must fit torch's 64 bits."""
    seed, draws = int(9e18), set()
    for iteration in range(3):
        loop.seed_draws(torch.device("cpu"), seed, iteration)
        draws.add(torch.rand(1).item())
    assert len(draws) == 3
    loop.seed_draws(torch.device("cpu"), 7, 3)
    assert torch.initial_seed() == 7 * 1_000_003 + 3  # as in every record so far


def test_a_step_that_computes_something_else_is_not_taken(resolved, monkeypatch, caplog):
    """In float64, torch 2.11 silently left the weight of the running averages at zero."""

    class Losing(Fast):
        def _iterate(self):
            loss = super()._iterate()
            self.tensors[-1].data.zero_()
            return loss

    monkeypatch.setattr(steps, "_FAST", {})
    monkeypatch.setattr(torch, "compile", lambda function, **settings: function)
    monkeypatch.setattr(steps, "choose_engine", lambda *_: (True, False))
    config = resolved("experiment=fig5b/wd_1e-3", "scale=smoke")
    network = make_network()
    optimizer = make_optimizer(network)
    _, name, _ = steps.build(config, network, optimizer, *make_batches(1)[0])
    assert name == "compiled"
    monkeypatch.setattr(steps, "_FAST", {})
    monkeypatch.setattr(steps, "Fast", Losing)
    _, name, _ = steps.build(config, network, optimizer, *make_batches(1)[0])
    assert name == "plain"
    assert (
        "engine.compile does not work here (ArithmeticError: its update differs from the plain step's); the run"
        in caplog.text
    )
    config.engine.compile = True
    with pytest.raises(ReproError, match="remove it"):
        steps.build(config, network, optimizer, *make_batches(1)[0])


@needs_compiler
def test_runs_of_the_same_shapes_share_one_compilation(resolved, monkeypatch):
    monkeypatch.setattr(steps, "_FAST", {})
    fast_steps = []
    monkeypatch.setattr(steps, "Fast", lambda *a, **k: fast_steps.append(Fast(*a, **k)) or fast_steps[-1])

    def run(*overrides):
        config = resolved(
            "experiment=table2-lenet/1cycle_12ep", "scale=smoke", "scale.tests=2", *GENTLE, *overrides
        )
        loaded = load(config.dataset)
        network = models.from_config(config.model, loaded.classes, loaded.mean.shape, config.seed)
        state = State(config, network, "cpu")
        rows = [row for row in loop.train(config, loaded, state) if row is not None]
        return [row["test_loss"] for row in rows], copy_values(network), network

    plain = [run("seed=1"), run("seed=2"), run("seed=2", "regularization.weight_decay=0.1")]
    assert not fast_steps
    fast = [run(f"seed={k}", "engine.compile=true", *o) for k, o in ((1, []), (2, []))]
    fast.append(run("seed=2", "regularization.weight_decay=0.1", "engine.compile=true"))
    assert len(fast_steps) == 1
    for a, b in zip(plain, fast, strict=True):
        assert b[0] == pytest.approx(a[0], rel=1e-2)
        assert all(torch.equal(x, y) for x, y in zip(b[1], copy_values(b[2]), strict=True)), (
            "a later run changed it"
        )


@pytest.mark.parametrize(
    "other", ["update=torch", "model.nesterov=false", "engine.precision=bf16", "model.bn_eps=0.1"]
)
def test_runs_of_other_rules_do_not_share_a_step(resolved, monkeypatch, other):
    monkeypatch.setattr(steps, "_FAST", {})
    monkeypatch.setattr(torch, "compile", make_compiler())
    monkeypatch.setattr(steps, "choose_engine", lambda *_: (True, False))

    def build(*overrides):
        config, network = resolved("experiment=fig8b/tbs512", "scale=smoke", *overrides), make_network(groups=1)
        groups = models.parameter_groups(network)
        optimizer = SGD(groups, weight_decay=0.0, update=config.update, nesterov=config.model.nesterov)
        return steps.build(config, network, optimizer, *make_batches(1)[0]).step

    first = build()
    assert build("regularization.weight_decay=0.1", "seed=1") is first
    assert build(other) is not first


def make_compiler(change=None):
    """In place of torch.compile: leaves functions as they are, but for what ``change`` does to an update's
    arguments and its optimizer."""

    def compiler(function, **settings):
        if change is None or getattr(function, "__name__", "") != "apply":
            return function

        def changed(gradients, lr, momentum, decay):
            optimizer = function.__self__
            nesterov = optimizer.nesterov
            arguments = change(optimizer, gradients, lr, momentum, decay)
            function(*(arguments or (gradients, lr, momentum, decay)))
            optimizer.nesterov = nesterov

        return changed

    return compiler


def forget_nesterov(optimizer, *arguments):
    optimizer.nesterov = False


def forget_momentum(optimizer, gradients, lr, momentum, decay):
    return gradients, lr, 0 * momentum, decay


def keep_first_lr(optimizer, gradients, lr, momentum, decay):
    optimizer.first_lr = getattr(optimizer, "first_lr", 0.01)
    return gradients, optimizer.first_lr, momentum, decay


def lose_a_gradient(optimizer, gradients, lr, momentum, decay):
    return [[0 * g if i == 3 else g for i, g in enumerate(group)] for group in gradients], lr, momentum, decay


MISTAKES = [
    *itertools.product([forget_nesterov, forget_momentum], Precision),
    (keep_first_lr, Precision.float32),
    (keep_first_lr, Precision.tf32),
    (lose_a_gradient, Precision.float32),
]


@pytest.mark.parametrize("update", ["caffe", "torch"])
@pytest.mark.parametrize(("mistake", "precision"), MISTAKES)
def test_a_compilers_mistake_is_found(mistake, precision, update, resolved, monkeypatch, caplog):
    config = resolved("experiment=fig8b/tbs512", "scale=smoke", f"update={update}")
    config.engine.precision = precision
    monkeypatch.setattr(steps, "choose_engine", lambda *_: (True, False))

    def build(change):
        monkeypatch.setattr(steps, "_FAST", {})
        monkeypatch.setattr(torch, "compile", make_compiler(change))
        network = make_network("resnet56_hyperparam")
        optimizer = SGD(models.parameter_groups(network), weight_decay=1e-4, update=Update(update), nesterov=True)
        return steps.build(config, network, optimizer, *make_batches(1)[0]).name

    assert build(None) == "compiled"
    assert build(mistake) == "plain"
    assert "engine.compile does not work here (ArithmeticError: its " in caplog.text


@pytest.mark.parametrize("value", [0.0, 1e-30, float("nan")])
def test_a_step_is_verified_with_fresh_weights_whatever_the_run_has(value, resolved, monkeypatch):
    monkeypatch.setattr(steps, "_FAST", {})
    monkeypatch.setattr(torch, "compile", make_compiler())
    monkeypatch.setattr(steps, "choose_engine", lambda *_: (True, False))
    network = make_network()
    optimizer = make_optimizer(network)
    for weights in optimizer.weights:
        weights.fill_(value)
    before, random = copy_values(network), torch.random.get_rng_state()
    assert (
        steps.build(resolved("experiment=fig5a/clr_3.0"), network, optimizer, *make_batches(1)[0])[1] == "compiled"
    )
    for a, b in zip(copy_values(network), before, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0, equal_nan=True)
    assert all((velocity == 0).all() for velocity in optimizer.velocity)
    assert torch.equal(torch.random.get_rng_state(), random)
    monkeypatch.setattr(torch, "compile", make_compiler(forget_momentum))
    monkeypatch.setattr(steps, "_FAST", {})
    assert (
        steps.build(resolved("experiment=fig5a/clr_3.0"), network, optimizer, *make_batches(1)[0])[1]
        == "plain, by group"
    )


@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("update", list(Update))
def test_the_weights_move_as_the_velocity_says(update, nesterov):
    network = make_network(dtype=torch.float64)
    optimizer = SGD(models.parameter_groups(network), weight_decay=1e-2, update=update, nesterov=nesterov)
    step = Plain(network, optimizer)
    for batch, (lr, momentum) in zip(make_batches(dtype=torch.float64), SCHEDULE, strict=True):
        weights, velocity = ([t.clone() for t in ts] for ts in (optimizer.weights, optimizer.velocity))
        step(*batch, lr, momentum)
        for before, move, after in zip(
            weights, optimizer.moves(velocity, lr, momentum), optimizer.weights, strict=True
        ):
            torch.testing.assert_close(before - move, after)


@pytest.mark.parametrize("name", ["resnet56_hyperparam", "wide_resnet32"])
def test_blocks_of_one_shape_are_compiled_once(name, monkeypatch):
    def regions(blocks):
        torch._dynamo.reset()
        counter = CompileCounter()
        compiler = lambda function: torch.compile(function, backend=counter, dynamic=False)  # noqa: E731
        monkeypatch.setattr("repro.training.fast.compile_function", compiler)
        network = models.build(name, 10, blocks=blocks, width=4, channels=1)
        Fast(network, make_optimizer(network), *make_batches(1)[0], compiled=True)
        return counter.frame_count

    network = models.build(name, 10, blocks=3, width=4)
    assert list(find_blocks(network)) == list(network.blocks)
    assert regions(3) == regions(2)


def test_a_network_without_repeated_blocks_is_one_region():
    assert list(find_blocks(nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Conv2d(2, 2, 3)))) == []


def test_what_is_asked_for_and_does_not_work_is_one_line(resolved, monkeypatch):
    config = resolved("experiment=fig5a/clr_3.0", "scale=smoke", "engine.compile=true")
    network = make_network(groups=1)

    def broken(*args, **kwargs):
        raise RuntimeError("no compiler\nand much more")

    monkeypatch.setattr(steps, "Fast", broken)
    monkeypatch.setattr(steps, "_FAST", {})
    with pytest.raises(ReproError, match=r"engine.compile=true does not work here \(RuntimeError: no compiler\)"):
        steps.build(config, network, make_optimizer(network), *make_batches(1)[0])
    config.engine.compile, config.engine.cuda_graph = None, True
    with pytest.raises(ReproError, match="engine.cuda_graph=true: device=cpu has no CUDA graphs"):
        steps.build(config, network, make_optimizer(network), *make_batches(1)[0])


def test_a_failed_capture_costs_the_graph_alone_and_names_its_cause(resolved, monkeypatch, caplog):
    tried = []

    class Uncapturable(Fast):
        def __init__(self, *args, graph, **kwargs):
            tried.append((kwargs["compiled"], graph))
            if graph:
                raise CaptureError("ValueError: a number is needed\nand more")
            super().__init__(*args, graph=graph, **kwargs)

    monkeypatch.setattr(steps, "Fast", Uncapturable)
    monkeypatch.setattr(steps, "_FAST", {})
    monkeypatch.setattr(torch, "compile", make_compiler())
    monkeypatch.setattr(steps, "choose_engine", lambda *_: (True, True))
    config, network = resolved("experiment=fig5a/clr_3.0", "scale=smoke"), make_network(groups=1)
    built = steps.build(config, network, make_optimizer(network), *make_batches(1)[0])
    assert tried == [(True, True), (True, False)]
    assert built[1:] == ("compiled", "engine.cuda_graph does not work here (ValueError: a number is needed)")
    config.engine.cuda_graph = True
    with pytest.raises(ReproError, match=r"engine.cuda_graph=true does not work here \(ValueError: a number"):
        steps.build(config, network, make_optimizer(network), *make_batches(1)[0])


def test_what_is_fast_by_default_and_does_not_work_is_a_warning(resolved, monkeypatch, caplog):
    config = resolved("experiment=fig5a/clr_3.0", "scale=smoke")
    tried = []

    def broken(*args, compiled, graph, **kwargs):
        tried.append((compiled, graph))
        raise RuntimeError("no such thing")

    monkeypatch.setattr(steps, "Fast", broken)
    monkeypatch.setattr(steps, "_FAST", {})
    monkeypatch.setattr(steps, "choose_engine", lambda *_: (True, True))
    network = make_network(groups=1)
    with caplog.at_level(logging.WARNING):
        step, name, fallback = steps.build(config, network, make_optimizer(network), *make_batches(1)[0])
    assert tried == [(True, True), (False, True)]
    assert (type(step), name) == (Plain, "plain")
    reason = "does not work here (RuntimeError: no such thing)"
    assert fallback == f"engine.compile {reason}; engine.cuda_graph {reason}"
    assert caplog.text.count("the run continues without it") == 2


def test_a_cpu_computes_plainly_and_a_gpu_compiles_what_is_worth_it(resolved, monkeypatch):
    monkeypatch.setattr(steps.importlib.util, "find_spec", lambda name: name == "triton")
    cpu, cuda = torch.device("cpu"), torch.device("cuda")

    def chosen(device, pixels, *overrides):
        return steps.choose_engine(resolved("experiment=fig5a/clr_3.0", *overrides), device, pixels)

    assert chosen(cpu, 1000 * 32 * 32) == (False, False)
    assert chosen(cuda, 1000 * 32 * 32) == (True, True)
    for scale in ("smoke", "demo"):
        assert chosen(cuda, 125 * 8 * 8, f"scale={scale}") == (False, True)
        assert chosen(cuda, 125 * 8 * 8, f"scale={scale}", "engine.compile=true") == (True, True)
    monkeypatch.setattr(steps.importlib.util, "find_spec", lambda name: None)
    assert chosen(cuda, 1000 * 32 * 32) == (False, True)


@pytest.fixture
def tf32_flags():
    flags = torch.backends.cudnn, torch.backends.cuda.matmul
    before = [flag.allow_tf32 for flag in flags]
    yield flags
    for flag, value in zip(flags, before, strict=True):
        flag.allow_tf32 = value


STEPS = {
    "plain": lambda network, optimizer, precision: Plain(network, optimizer, precision),
    "by group": lambda network, optimizer, precision: ByGroup(network, optimizer, precision, 2),
    "buffers": lambda network, optimizer, precision: Fast(network, optimizer, *make_batches(1)[0], precision),
    "compiled": lambda network, optimizer, precision: Fast(
        network, optimizer, *make_batches(1)[0], precision, compiled=True
    ),
}


@pytest.mark.parametrize(
    ("kind", "precision"),
    [
        *itertools.product(["plain", "by group", "buffers"], Precision),
        pytest.param("compiled", Precision.float32, marks=needs_compiler),
    ],
)
def test_both_passes_compute_in_the_precision_asked_for(kind, precision, monkeypatch, tf32_flags):
    cudnn, cublas = tf32_flags
    tf32 = precision is Precision.tf32
    cudnn.allow_tf32 = cublas.allow_tf32 = not tf32
    network = nn.Sequential(nn.Conv2d(1, 2, 3, stride=8), nn.Flatten(), nn.Linear(8, 10))
    optimizer = make_optimizer(network)
    step = STEPS[kind](network, optimizer, precision)
    weight = next(p for group in step.optimizer.groups.values() for p in group if p.dim() == 4)
    seen = []
    forward = F.cross_entropy

    def watched(*args, **kwargs):
        seen.append((cudnn.allow_tf32, cublas.allow_tf32, torch.is_autocast_enabled("cpu")))
        return forward(*args, **kwargs)

    def hook(gradient):
        seen.append((cudnn.allow_tf32, cublas.allow_tf32, torch.is_autocast_enabled("cpu")))

    if kind != "compiled":  # its forward pass is traced already
        monkeypatch.setattr(F, "cross_entropy", watched)
    handle = weight.register_hook(hook)
    step(*make_batches(1)[0], 0.1, 0.9)
    handle.remove()
    passes = [(tf32, tf32, precision is Precision.bf16), (tf32, tf32, False)]  # forward, backward
    assert seen == {"by group": 2 * passes, "compiled": passes[1:]}.get(kind, passes)
    assert (cudnn.allow_tf32, cublas.allow_tf32) == (not tf32, not tf32)


def compute_gradients(network, loss):
    loss.backward()
    return torch.cat([p.grad.double().flatten() for p in network.parameters() if p.grad is not None])


# Relative error of one step's gradients against float64, as ``repro.bench --fidelity`` measures at full size.
@pytest.mark.parametrize(
    ("precision", "memory", "tolerance"),
    [
        (Precision.float32, torch.contiguous_format, 1e-5),
        (Precision.float32, torch.channels_last, 1e-5),
        (Precision.bf16, torch.channels_last, 0.1),
    ],
)
@pytest.mark.parametrize("name", models.networks())
def test_one_steps_gradients_against_float64(name, precision, memory, tolerance):
    (images, labels), exact = make_batches(1)[0], make_network(name, dtype=torch.float64)
    network = make_network(name, memory=memory)
    exact_loss = F.cross_entropy(exact(images.double()), labels)
    expected = compute_gradients(exact, exact_loss)
    with tf32(precision):
        with autocast(precision, "cpu"):
            loss = F.cross_entropy(network(images).float(), labels)
        actual = compute_gradients(network, loss)
    assert loss.item() == pytest.approx(exact_loss.item(), rel=tolerance)
    assert (actual - expected).norm() / expected.norm() < tolerance


def test_precision_is_part_of_the_run_and_float32_is_what_runs_always_were(resolved):
    run = resolved("experiment=fig5a/clr_3.0", "scale=smoke")
    other = resolved("experiment=fig5a/clr_3.0", "scale=smoke", "engine.precision=bf16")
    same = resolved("experiment=fig5a/clr_3.0", "scale=smoke", "engine.compile=true", "engine.cuda_graph=false")
    assert fingerprint(other) != fingerprint(run) == fingerprint(same)
    earlier = to_dict(run)
    del earlier["engine"]
    assert fingerprint(from_dict(earlier)) == fingerprint(run)


def test_a_copy_of_a_network_is_free_of_its_optimizer():
    network = make_network()
    optimizer = make_optimizer(network)
    other = copy.deepcopy(network)
    optimizer.weights[0].zero_()
    assert any((p != 0).any() for p in other.parameters() if isinstance(p, nn.Parameter))
