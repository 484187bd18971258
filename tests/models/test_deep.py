"""The wide residual network and the densenet against forward passes written out in numpy."""

import numpy as np
import pytest
import torch
from test_cnn import classify, convolve, pool

from repro import models
from repro.models import densenet


def normalise(x, norm, groups):
    """Each group of images by its own mean and variance."""
    scale, shift = (p.detach().double().numpy()[:, None, None] for p in (norm.weight, norm.bias))
    parts = np.split(x, groups)
    axes = {"axis": (0, 2, 3), "keepdims": True}
    return np.concatenate(
        [(p - p.mean(**axes)) / np.sqrt(p.var(**axes) + norm.eps) * scale + shift for p in parts]
    )


def forward_wide(network, x, groups):
    x = np.maximum(normalise(convolve(x, network.stem), network.bn, groups), 0)
    for block in network.blocks:
        y = np.maximum(normalise(convolve(x, block.conv1), block.bn1, groups), 0)
        y = normalise(convolve(y, block.conv2), block.bn2, groups)
        if block.shortcut is not None:
            x = normalise(convolve(x, block.shortcut[0]), block.shortcut[1], groups)
        x = y + x
    return classify(x.mean((2, 3)), network.classifier)


def forward_densenet(network, x, groups):
    x = convolve(x, network.stem)
    for layer in network.layers:
        y = convolve(np.maximum(normalise(x, layer.bn, groups), 0), layer.conv)
        x = pool(y, 2, 2, np.mean) if isinstance(layer, densenet.Transition) else np.concatenate([x, y], 1)
    return classify(np.maximum(normalise(x, network.bn, groups), 0).mean((2, 3)), network.classifier)


@pytest.mark.parametrize(
    ("name", "forward", "options"),
    [("wide_resnet32", forward_wide, {}), ("densenet40", forward_densenet, {"dropout": 0.0, "growth": 5})],
)
def test_a_deep_network_is_its_forward_pass_written_out(name, forward, options):
    network = models.build(name, 7, channels=1, blocks=2, width=4, bn_groups=2, seed=1, **options).double()
    images = np.random.default_rng(0).normal(size=(6, 1, 8, 8))
    with torch.no_grad():
        for parameter_name, parameter in network.named_parameters():
            if parameter_name.endswith("bias") or ".bn" in parameter_name:
                parameter.uniform_(-1, 1)
        logits = network(torch.from_numpy(images))
    assert logits.shape == (6, 7)
    np.testing.assert_allclose(logits.numpy(), forward(network, images, groups=2), rtol=1e-6, atol=1e-9)


def test_densenet_drops_a_fifth_of_what_its_convolutions_put_out():
    network = models.build("densenet40", 10, blocks=1)
    dense, transition = network.layers[0], network.layers[1]
    x = torch.randn(16, 16, 16, 16)
    kept = dense(x)[:, 16:]
    assert torch.equal(dense(x)[:, :16], x)
    assert (kept == 0).float().mean().item() == pytest.approx(0.2, abs=0.02)
    plain = dense.conv(torch.relu(dense.bn(x)))
    torch.testing.assert_close(kept, torch.where(kept == 0, 0.0, plain / 0.8))
    assert isinstance(transition.dropout, torch.nn.Dropout)
    assert transition.dropout.p == 0.2
    network(x[:, :3])  # fills the averages
    network.eval()
    assert torch.equal(network(x[:, :3]), network(x[:, :3]))
