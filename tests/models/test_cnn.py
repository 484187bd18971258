"""The small networks against forward passes written out in numpy, and Caffe's LRN and pooling against loops."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from repro import models
from repro.config import Model
from repro.config.errors import ReproError
from repro.models import cnn, layers


def convolve(x, layer):
    """A convolution with padding and stride, over numpy (N, C, H, W), in float64."""
    weight = layer.weight.detach().double().numpy()
    size, pad, stride = weight.shape[2], layer.padding[0], layer.stride[0]
    x = np.pad(x, ((0, 0), (0, 0), (pad, pad), (pad, pad)))
    windows = np.lib.stride_tricks.sliding_window_view(x, (size, size), axis=(2, 3))[:, :, ::stride, ::stride]
    y = np.einsum("ncijkl,ockl->noij", windows, weight)
    return y if layer.bias is None else y + layer.bias.detach().double().numpy()[:, None, None]


def pool(x, size, stride, reduce):
    """Caffe's pooling without padding: the size rounded up, windows cut off at the edge."""
    out = [math.ceil((side - size) / stride) + 1 for side in x.shape[2:]]
    y = np.empty((*x.shape[:2], *out))
    for i in range(out[0]):
        for j in range(out[1]):
            rows, columns = (slice(stride * k, stride * k + size) for k in (i, j))
            y[:, :, i, j] = reduce(x[:, :, rows, columns], axis=(2, 3))
    return y


def lrn(x, size=3, alpha=5e-5, beta=0.75):
    """LRN within channel, pixel by pixel; pixels beyond the edge are zeros, and count."""
    y = np.empty_like(x)
    for i, j in np.ndindex(x.shape[2:]):
        rows, columns = (slice(max(k - size // 2, 0), k + size // 2 + 1) for k in (i, j))
        mean_square = (x[:, :, rows, columns] ** 2).sum((2, 3)) / size**2
        y[:, :, i, j] = x[:, :, i, j] / (1 + alpha * mean_square) ** beta
    return y


def classify(x, layer):
    return x.reshape(len(x), -1) @ layer.weight.detach().double().numpy().T + layer.bias.detach().double().numpy()


def forward_cnn3(network, x):
    x = lrn(np.maximum(pool(convolve(x, network.conv1), 3, 2, np.max), 0))
    x = lrn(pool(np.maximum(convolve(x, network.conv2), 0), 3, 2, np.mean))
    x = pool(np.maximum(convolve(x, network.conv3), 0), 3, 2, np.mean)
    return classify(x, network.classifier)


@pytest.mark.parametrize(("resolution", "channels"), [(32, 3), (8, 1), (13, 3)])
def test_cnn3_is_its_forward_pass_written_out(resolution, channels):
    network = models.build("cnn3", 10, channels=channels, resolution=resolution, init="msra", seed=1)
    network = network.to(memory_format=torch.channels_last)
    images = np.random.default_rng(0).uniform(-128, 128, (4, channels, resolution, resolution))
    with torch.no_grad():
        for layer in network.children():
            layer.bias.uniform_(-10, 10)
        logits = network(torch.from_numpy(images).float())
    np.testing.assert_allclose(logits.numpy(), forward_cnn3(network, images), rtol=2e-4, atol=1e-3)


def test_cnn3_has_the_authors_parameters():
    network = models.build("cnn3", 10, init="own")
    assert sum(p.numel() for p in network.parameters()) == 89_578
    assert network(torch.zeros(2, 3, 32, 32)).shape == (2, 10)


def test_cnn3_begins_gaussian_and_from_its_seed():
    network = models.build("cnn3", 100, init="own", seed=3)
    stds = [layer.weight.std().item() for layer in network.children()]
    assert stds == pytest.approx([1e-4, 0.01, 0.01, 0.01], rel=0.05)
    assert all((layer.bias == 0).all() for layer in network.children())
    again, other = (models.build("cnn3", 100, init="own", seed=seed).conv1.weight for seed in (3, 4))
    assert torch.equal(network.conv1.weight, again)
    assert not torch.equal(network.conv1.weight, other)


def test_cnn3_has_the_authors_multiples(resolved):
    model = resolved("experiment=table1-cnn3/constant_0.90").model
    network = models.from_config(model, 10, (32, 32, 3), 0)
    rules = {k: v for k, v in vars(model).items() if k.startswith(("conv_bias", "classifier_bias"))}
    names = {parameter: name for name, parameter in network.named_parameters()}
    groups = models.parameter_groups(network, **rules)
    found = {names[parameter]: multiples for multiples, group in groups.items() for parameter in group}
    assert found == {
        "conv1.weight": (1, 1), "conv1.bias": (2, 1), "conv2.weight": (1, 1), "conv2.bias": (2, 1),
        "conv3.weight": (1, 1), "conv3.bias": (1, 1), "classifier.weight": (1, 250), "classifier.bias": (2, 0),
    }  # fmt: skip


def test_multiples_of_no_parameter_are_named():
    network = nn.Sequential(nn.Linear(2, 2))
    network.multiples = {"0.weight": (1.0, 2.0)}
    assert models.parameter_groups(network)[1.0, 2.0] == [network[0].weight]
    network.multiples = {"1.weight": (1.0, 2.0)}
    with pytest.raises(ReproError, match=r"Sequential.multiples: the network has no parameter 1\.weight"):
        models.parameter_groups(network)


@pytest.mark.parametrize("pair", [1.0, (1.0,), (1.0, -1.0), (float("nan"), 1.0), ("1", 1.0), None, (True, 1.0)])
def test_multiples_are_two_finite_numbers(pair):
    network = nn.Linear(2, 2)
    network.multiples = {"weight": pair}
    with pytest.raises(ReproError, match="Linear.multiples: weight has .*; give it two finite numbers from 0 on"):
        models.parameter_groups(network)
    network.multiples = [("weight", (1.0, 1.0))]
    with pytest.raises(ReproError, match="Linear.multiples: it is a list, not a dictionary"):
        models.parameter_groups(network)


def test_a_shared_parameter_is_in_one_group_and_a_frozen_one_in_none():
    network = nn.Sequential(nn.Linear(2, 2), nn.Conv2d(2, 2, 1), nn.Linear(2, 2))
    network[2].weight = network[0].weight
    network[1].requires_grad_(False)
    weight, biases = network[0].weight, [network[0].bias, network[2].bias]
    assert models.parameter_groups(network) == {(1.0, 1.0): [weight], (2.0, 0.0): biases}
    with pytest.raises(ReproError, match="it has no parameter to train"):
        models.parameter_groups(network.requires_grad_(False))


def forward_lenet(network, x):
    for layer in (network.conv1, network.conv2):
        x = pool(convolve(x, layer), 2, 2, np.max)
    return classify(np.maximum(classify(x, network.hidden), 0), network.classifier)


@pytest.mark.parametrize(("resolution", "channels"), [(28, 1), (16, 1), (13, 3)])
def test_lenet_is_its_forward_pass_written_out(resolution, channels):
    network = models.build("lenet", 10, channels=channels, resolution=resolution, init="xavier", seed=1)
    network = network.to(memory_format=torch.channels_last)
    images = np.random.default_rng(0).uniform(0, 1, (4, channels, resolution, resolution))
    with torch.no_grad():
        for layer in network.children():
            layer.bias.uniform_(-1, 1)
        logits = network(torch.from_numpy(images).float())
    np.testing.assert_allclose(logits.numpy(), forward_lenet(network, images), rtol=1e-4, atol=1e-5)


def test_lenet_has_caffes_parameters_and_xavier_weights():
    network = models.build("lenet", 10, channels=1, resolution=28, init="xavier")
    assert sum(p.numel() for p in network.parameters()) == 431_080
    for layer, fan_in in zip(network.children(), (25, 500, 800, 500), strict=True):
        assert layer.weight.abs().max().item() == pytest.approx(math.sqrt(3 / fan_in), rel=0.02)
        assert (layer.bias == 0).all()


def test_lenet_has_caffes_multiples(resolved):
    model = resolved("experiment=table2-lenet/inv_85ep").model
    network = models.from_config(model, 10, (28, 28, 1), 0)
    rules = {k: v for k, v in vars(model).items() if k.startswith(("conv_bias", "classifier_bias"))}
    sizes = {m: sum(p.numel() for p in group) for m, group in models.parameter_groups(network, **rules).items()}
    assert sizes == {(1, 1): 431_080 - 580, (2, 1): 580}


@pytest.mark.parametrize(("name", "pixels"), [("cnn3", 8), ("lenet", 13)])
def test_images_too_small_for_a_network_are_one_line(name, pixels):
    model = Model(name=name)
    assert models.from_config(model, 10, (pixels, pixels, 1), 0)(torch.zeros(1, 1, pixels, pixels)).shape == (
        1,
        10,
    )
    with pytest.raises(ReproError, match=f"model.name={name}: .* needs images of at least {pixels} pixels a side"):
        models.from_config(model, 10, (pixels - 1, pixels - 1, 1), 0)


@pytest.mark.parametrize("norm", [layers.local_response_norm, layers.lrn_by_pooling])
@pytest.mark.parametrize("memory", [torch.contiguous_format, torch.channels_last])
def test_lrn_is_caffes(norm, memory):
    x = torch.randn(2, 3, 5, 7) * 200
    y = norm(x.to(memory_format=memory))
    np.testing.assert_allclose(y.numpy(), lrn(x.double().numpy()), rtol=1e-5)


def test_the_gradient_of_lrn():
    x = (torch.randn(2, 2, 4, 3, dtype=torch.float64) * 200).requires_grad_()
    assert torch.autograd.gradcheck(layers.local_response_norm, x)
    weights = torch.randn_like(x)
    gradients = [torch.autograd.grad((norm(x) * weights).sum(), x)[0]
                 for norm in (layers.local_response_norm, layers.lrn_by_pooling)]  # fmt: skip
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize("side", [2, 8, 15, 32])
def test_average_pooling_rounds_up_and_divides_by_the_pixels_inside(side):
    x = torch.rand(1, 2, side, side)
    np.testing.assert_allclose(cnn._average_pool(x).numpy(), pool(x.numpy(), 3, 2, np.mean), rtol=1e-5)
