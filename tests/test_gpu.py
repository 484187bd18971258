"""On a real GPU: every precision and engine against float64, the same bits twice, shared steps, kill and resume.

Skipped without CUDA. One file, so that one process has the GPU to itself.
"""

import json
import os

import pytest
import torch
from test_resume import SMOKE, are_equal, train_until
from torch import nn
from torch.nn import functional as F

from repro import models
from repro.config import Precision
from repro.data.batches import load
from repro.records import read_info
from repro.sweeps import machine
from repro.training import checkpoints, lifecycle, loop, steps
from repro.training.fast import Fast
from repro.training.plain import Plain
from repro.training.sgd import SGD
from repro.training.state import State

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # what a deterministic run sets, before cuBLAS starts

DEVICE = "cuda"
ENGINES = {"plain": (False, False), "graph": (False, True), "compiled": (True, False), "both": (True, True)}
FAST = [name for name in ENGINES if name != "plain"]
NAMES = {"graph": "graph", "compiled": "compiled", "both": "compiled and graph"}
# Relative error of one step's gradients, at least and at most. Of convolution and product alone, where float32 that
# is TF32 would show; and of a network, where normalisation cancels digits (float32 on a CPU: 7e-4).
ERRORS = {Precision.float32: (0.0, 5e-5), Precision.tf32: (5e-5, 0.01), Precision.bf16: (5e-4, 0.1)}
NETWORK_ERRORS = {Precision.float32: 5e-3, Precision.tf32: 0.05, Precision.bf16: 0.3}


def make_network(name="resnet56_hyperparam", width=16, channels=3, **options):
    built = models.build(name, 10, blocks=1, width=width, channels=channels, bn_groups=2, **options)
    return built.to(memory_format=torch.channels_last)


def make_optimizer(network):
    return SGD(models.parameter_groups(network, conv_bias_lr=2.0), weight_decay=1e-2, nesterov=True)


def make_batch(seed=0, images=64, channels=3, size=32, dtype=torch.float32):
    rng = torch.Generator().manual_seed(seed)
    pixels = torch.randn(images, channels, size, size, generator=rng, dtype=torch.float64).to(dtype)
    labels = torch.randint(0, 10, (images,), generator=rng)
    return pixels.to(DEVICE).to(memory_format=torch.channels_last), labels.to(DEVICE)


def make_step(engine, network, optimizer, batch, precision=Precision.float32):
    compiled, graph = ENGINES[engine]
    if engine == "plain":
        return Plain(network, optimizer, precision)
    step = Fast(network, optimizer, *batch, precision, compiled=compiled, graph=graph)
    step.adopt(network, optimizer)
    return step


@pytest.fixture
def built(resolved, monkeypatch):
    """A function: engine, network, optimizer, batch -> what ``steps.build`` chooses when it is free to."""

    def build(engine, network, optimizer, batch, *overrides):
        monkeypatch.setattr(steps, "choose_engine", lambda *_: ENGINES[engine])
        return steps.build(resolved("experiment=fig8b/tbs512", *overrides), network, optimizer, *batch)

    monkeypatch.setattr(steps, "_FAST", {})
    return build


class Small(nn.Module):
    """A convolution and a product."""

    def __init__(self, dropout=0.0):
        super().__init__()
        self.convolution, self.dropout, self.classifier = (
            nn.Conv2d(3, 8, 3, 2),
            nn.Dropout(dropout),
            nn.Linear(8, 10),
        )

    def forward(self, x):
        return self.classifier(self.dropout(F.relu(self.convolution(x))).mean((2, 3)))


def gradient_error(make, engine, precision):
    """Relative error of loss and gradient of one step, against float64 on the CPU."""
    batch = images, labels = make_batch()
    exact = make().double()
    network = make().to(DEVICE)
    network.load_state_dict(exact.state_dict())
    loss = F.cross_entropy(exact(images.double().cpu()), labels.cpu())
    loss.backward()
    expected = torch.cat([p.grad.flatten() for p in exact.parameters() if p.grad is not None])
    used = [p for p, q in zip(network.parameters(), exact.parameters(), strict=True) if q.grad is not None]
    optimizer = SGD({(1.0, 1.0): used}, weight_decay=0.0)
    step_loss = make_step(engine, network, optimizer, batch, precision)(*batch, 1.0, 0.0).item()
    actual = torch.cat([v.flatten() for group in optimizer.velocities() for v in group]).double().cpu()
    return abs(step_loss / loss.item() - 1), ((actual - expected).norm() / expected.norm()).item()


@pytest.mark.parametrize("precision", Precision)
@pytest.mark.parametrize("engine", ENGINES)
def test_products_are_computed_in_the_precision_asked_for(engine, precision):
    _, error = gradient_error(Small, engine, precision)
    least, most = ERRORS[precision]
    if torch.cuda.get_device_capability() >= (8, 0):  # others have no TF32
        assert least < error
    assert error < most


@pytest.mark.parametrize("precision", Precision)
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", ["resnet56_superconv", "resnet56_hyperparam"])
def test_gradients_of_a_network(name, engine, precision):
    loss_error, error = gradient_error(lambda: make_network(name), engine, precision)
    assert loss_error < NETWORK_ERRORS[precision]
    assert error < NETWORK_ERRORS[precision]


@pytest.mark.parametrize("engine", FAST)
def test_a_fast_step_in_float64_follows_a_moving_schedule(engine):
    results = []
    for kind in ("plain", engine):
        network = make_network(width=4).double().to(DEVICE)
        optimizer = make_optimizer(network)
        step = make_step(kind, network, optimizer, make_batch(dtype=torch.float64))
        schedule = [(0.01 + 0.01 * i, 0.95 - 0.02 * i) for i in range(5)]
        losses = [step(*make_batch(i, dtype=torch.float64), *both).item() for i, both in enumerate(schedule)]
        results.append((losses, [p.detach().clone() for p in (*network.parameters(), *network.buffers())]))
    (expected, plain), (losses, fast) = results
    assert losses == pytest.approx(expected, rel=1e-9)
    for a, b in zip(fast, plain, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("precision", Precision)
@pytest.mark.parametrize("engine", FAST)
@pytest.mark.parametrize("make", [make_network, lambda: Small(dropout=0.2)], ids=["resnet", "dropout"])
def test_every_engine_is_verified_and_used(engine, precision, make, built):
    network = make().to(DEVICE)
    chosen = built(engine, network, make_optimizer(network), make_batch(), f"engine.precision={precision.value}")
    assert chosen[1:] == (NAMES[engine], None)


def test_a_graph_takes_no_more_memory_than_an_iteration_needs(built):
    """The plain step that verifies it is gone before it is captured."""
    batch = make_batch(images=1024)
    reserved = []
    for engine in ("plain", "graph"):
        network = make_network().to(DEVICE)
        optimizer = make_optimizer(network)
        torch.cuda.empty_cache()
        before = torch.cuda.memory_reserved()
        step = built(engine, network, optimizer, batch).step
        step(*batch, 0.1, 0.9)
        reserved.append(torch.cuda.memory_reserved() - before)
    assert reserved[1] < 1.3 * reserved[0]


class Asks(nn.Module):
    """Cannot be captured: it needs a number on the CPU."""

    def __init__(self):
        super().__init__()
        self.classifier = nn.Linear(3, 10)

    def forward(self, x):
        return self.classifier(x.mean((2, 3))) * (1 if x.sum().item() else 2)


def test_a_failed_capture_names_its_cause_and_leaves_the_stream_as_it_was(built):
    network, batch = Asks().to(DEVICE), make_batch()
    optimizer = make_optimizer(network)
    step, name, fallback = built("graph", network, optimizer, batch)
    assert torch.cuda.current_stream() == torch.cuda.default_stream()
    assert name == "plain"
    assert fallback.startswith("engine.cuda_graph does not work here (")
    assert "captur" in fallback
    assert torch.isfinite(step(*batch, 0.1, 0.9))


@pytest.mark.parametrize("engine", ["graph", "both"])
def test_two_runs_adopt_one_step(engine, resolved, monkeypatch):
    monkeypatch.setattr(steps, "choose_engine", lambda *_: ENGINES[engine])
    made = []
    monkeypatch.setattr(steps, "Fast", lambda *a, **k: made.append(Fast(*a, **k)) or made[-1])

    def run(seed):
        config = resolved("experiment=fig8b/tbs512", "scale=smoke", "scale.tests=2", f"seed={seed}")
        config.deterministic = True  # in the step's key alone
        data = load(config.dataset, DEVICE)
        state = State(config, models.from_config(config.model, data.classes, 1, seed).to(DEVICE), DEVICE)
        rows = [row for row in loop.train(config, data, state) if row is not None]
        return [row["test_loss"] for row in rows], [p.detach().clone() for p in state.network.parameters()], state

    alone = []
    for seed in (1, 2):
        monkeypatch.setattr(steps, "_FAST", {})
        alone.append(run(seed))
    monkeypatch.setattr(steps, "_FAST", {})
    made.clear()
    shared = [run(seed) for seed in (1, 2)]
    assert len(made) == 1
    for (losses, values, _), (expected_losses, expected, _) in zip(shared, alone, strict=True):
        assert losses == pytest.approx(expected_losses, rel=1e-3)
        for a, b in zip(values, expected, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-2, atol=1e-4)
    for _, values, state in shared:  # a later run changes nothing of an earlier one
        assert all(torch.equal(a, b) for a, b in zip(values, state.network.parameters(), strict=True))


@pytest.fixture
def deterministic(resolved):
    """A function: whether to compile -> a run that gives the same bits every time."""

    def make(compiled):
        engine = (f"device={DEVICE}", "deterministic=true", f"engine.compile={str(compiled).lower()}")
        return resolved(*SMOKE, *engine, "checkpoint_iterations=4")

    yield make
    torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize("compiled", [False, True])
def test_kill_and_resume_end_with_the_bits_of_an_undisturbed_run(deterministic, compiled, tmp_path, monkeypatch):
    run = deterministic(compiled)
    lifecycle.run(run, tmp_path / "whole")
    assert read_info(tmp_path / "whole")["step"] == NAMES["both" if compiled else "graph"]
    monkeypatch.setattr(steps, "_FAST", {})
    train_until(run, tmp_path / "killed", 10, monkeypatch)
    monkeypatch.setattr(steps, "_FAST", {})  # as another process would, it makes its own
    lifecycle.run(run, tmp_path / "killed")
    assert read_info(tmp_path / "killed")["attempt"] == 2
    assert are_equal(tmp_path / "killed", tmp_path / "whole")


def test_a_deterministic_run_has_the_same_bits_in_another_process(run_app, tmp_path):
    arguments = (*SMOKE, f"device={DEVICE}", "deterministic=true", "engine.compile=true")
    for output in ("one", "two"):
        done = run_app("train", *arguments, f"output={output}")
        assert done.returncode == 0, done.stderr
    one, two = (next((tmp_path / output).rglob("run.json")).parent for output in ("one", "two"))
    assert json.loads((one / "run.json").read_text())["step"] == "compiled and graph"
    assert are_equal(one, two)


def test_a_checkpoint_is_copied_on_a_stream_of_its_own(deterministic, tmp_path, monkeypatch):
    streams, save = [], checkpoints.save

    def watched(folder, state):
        streams.append(torch.cuda.current_stream())
        save(folder, state)

    monkeypatch.setattr(checkpoints, "save", watched)
    lifecycle.run(deterministic(False), tmp_path)
    assert streams
    assert torch.cuda.default_stream() not in streams


def test_a_sweep_finds_the_gpus():
    assert len(machine.gpus("cuda")) == torch.cuda.device_count()
