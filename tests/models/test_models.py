"""The networks and their rules, against the author's files and plain references."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from repro import models
from repro.config.errors import ReproError
from repro.models import densenet, layers, resnet
from repro.models.size import size


def test_resnet56_superconv_has_the_authors_parameters():
    network = models.build("resnet56_superconv", 10)
    assert sum(p.numel() for p in network.parameters()) == 808_682
    convolutions = [m for m in network.modules() if isinstance(m, torch.nn.Conv2d)]
    assert len(convolutions) == 55
    assert all(c.bias is not None for c in convolutions)


@pytest.mark.parametrize(("classes", "parameters"), [(10, 860_874), (100, 866_724)])
def test_resnet56_hyperparam_has_the_authors_parameters(classes, parameters):
    network = models.build("resnet56_hyperparam", classes)
    assert sum(p.numel() for p in network.parameters()) == parameters
    widths = [block.conv2.out_channels for block in network.blocks]
    assert widths == [16] * 8 + [32] * 9 + [64] * 9
    assert [block.conv1.stride[0] for block in network.blocks] == [1] * 8 + [2] + [1] * 8 + [2] + [1] * 8


@pytest.mark.parametrize(("classes", "parameters"), [(10, 5_903_626), (100, 5_903_626 + 90 * 257)])
def test_wide_resnet32_has_the_authors_parameters(classes, parameters):
    network = models.build("wide_resnet32", classes)
    assert sum(p.numel() for p in network.parameters()) == parameters
    assert [block.conv2.out_channels for block in network.blocks] == [16] * 5 + [64] * 5 + [256] * 5
    assert [block.conv1.stride[0] for block in network.blocks] == [1] * 5 + [2] + [1] * 4 + [2] + [1] * 4


def test_densenet40_has_the_authors_parameters():
    network = models.build("densenet40", 10)
    assert sum(p.numel() for p in network.parameters()) == 1_019_722
    assert len([m for m in network.modules() if isinstance(m, torch.nn.Conv2d)]) == 39
    assert all(m.bias is None for m in network.modules() if isinstance(m, torch.nn.Conv2d))
    assert [m.conv.out_channels for m in network.layers if isinstance(m, densenet.Transition)] == [160, 304]


def test_the_residual_stream_of_hyperparam_has_no_relu():
    block = resnet.HyperparamBlock(4, 4, {"groups": 1, "fraction": 0.9, "eps": 1e-5})
    x = torch.randn(2, 4, 6, 6)
    with torch.no_grad():
        block.bn2.weight.zero_()
    assert torch.equal(block(x), x)  # negative values pass


def test_a_widening_block_projects_its_shortcut():
    block = resnet.HyperparamBlock(4, 8, {"groups": 1, "fraction": 0.9, "eps": 1e-5})
    convolution, norm = block.shortcut
    assert (convolution.kernel_size, convolution.stride) == ((2, 2), (2, 2))
    with torch.no_grad():
        block.bn2.weight.zero_()
    x = torch.randn(3, 4, 8, 8)
    projected = F.batch_norm(convolution(x), None, None, norm.weight, norm.bias, training=True)
    assert block(x).shape == (3, 8, 4, 4)
    torch.testing.assert_close(block(x), projected)


@pytest.mark.parametrize("name", resnet.NETWORKS)
def test_at_depth_eight_both_networks_have_three_blocks(name):
    network = models.build(name, 10, blocks=1, channels=1)
    assert len(network.blocks) == 3
    assert network(torch.rand(4, 1, 8, 8)).shape == (4, 10)


@pytest.mark.parametrize(("blocks", "width", "channels", "size"), [(1, 16, 1, 8), (3, 16, 3, 16), (1, 4, 1, 12)])
def test_depth_width_and_image_size_are_free(blocks, width, channels, size):
    network = models.build("resnet56_superconv", 7, blocks=blocks, width=width, channels=channels)
    assert len([m for m in network.modules() if isinstance(m, torch.nn.Conv2d)]) == 6 * blocks + 1
    assert network(torch.rand(4, channels, size, size)).shape == (4, 7)


def test_an_unknown_network_is_named():
    with pytest.raises(ValueError, match="no network 'vgg'; choose from cnn3, .*resnet56_superconv"):
        models.build("vgg", 10)


def test_a_downsampling_block_pools_its_shortcut_and_pads_with_zeros():
    block = resnet.SuperconvBlock(4, 2, {"groups": 1, "fraction": 0.9, "eps": 1e-5})
    with torch.no_grad():
        block.bn2.weight.zero_()  # only the shortcut remains
    x = torch.rand(2, 4, 6, 6)
    y = block(x)
    assert y.shape == (2, 8, 3, 3)
    assert (y[:, 4:] == 0).all()
    x = torch.rand(2, 4, 8, 8)
    y = block(x)[:, :4]
    assert y.shape[2:] == (4, 4)  # (8 - 3) / 2 + 1 rounded up, as Caffe does
    torch.testing.assert_close(y[:, :, 0, 0], x[:, :, 0:3, 0:3].mean((2, 3)))
    torch.testing.assert_close(y[:, :, 3, 3], x[:, :, 6:8, 6:8].mean((2, 3)))  # a window cut off at the edge


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_groups_are_normalised_apart(memory_format):
    torch.manual_seed(0)
    x = torch.randn(12, 5, 3, 3).to(memory_format=memory_format) * 3 + 1
    norm = layers.BatchNorm(5, groups=4, fraction=0.9, eps=1e-5)
    with torch.no_grad():
        norm.weight.uniform_(0.5, 2)
        norm.bias.uniform_(-1, 1)
    y = norm(x)
    for group in range(4):
        images = slice(3 * group, 3 * group + 3)
        expected = F.batch_norm(x[images], None, None, norm.weight, norm.bias, training=True)
        torch.testing.assert_close(y[images], expected)


def test_running_averages_are_normalised_by_their_weights():
    torch.manual_seed(0)
    norm = layers.BatchNorm(3, groups=2, fraction=0.9, eps=1e-5)
    batches = [torch.randn(8, 3, 4, 4) * k + k for k in (1, 2, 3)]
    for batch in batches:
        norm(batch)
    first_groups = [b[:4] for b in batches]
    weights = [0.9**2, 0.9, 1.0]
    weighted = list(zip(weights, first_groups, strict=True))
    mean = sum(w * b.mean((0, 2, 3)) for w, b in weighted) / sum(weights)
    variance = sum(w * b.var((0, 2, 3), correction=1) for w, b in weighted) / sum(weights)
    norm.eval()
    x = torch.randn(2, 3, 4, 4)
    expected = (x - mean[:, None, None]) / (variance[:, None, None] + 1e-5).sqrt()
    torch.testing.assert_close(norm(x), expected)


def test_averages_are_unbiased_from_the_first_iteration_and_empty_before():
    norm = layers.BatchNorm(2, groups=1, fraction=0.999, eps=1e-5)
    x = torch.randn(50, 2, 3, 3) + 5
    norm.eval()
    assert norm(x).isnan().all()
    norm.train()
    expected = norm(x)
    norm.eval()
    torch.testing.assert_close(norm(x), expected, rtol=1e-2, atol=1e-2)


def test_initialisation_is_caffes():
    network = models.build("resnet56_superconv", 1000, blocks=1, seed=3)
    deep = network.blocks[2].conv2.weight.detach()
    assert deep.std().item() == pytest.approx(np.sqrt(2 / (32 * 9)), rel=0.03)
    bound = np.sqrt(3 / 64)
    classifier = network.classifier.weight.detach()
    assert classifier.abs().max().item() == pytest.approx(bound, rel=1e-3)
    assert classifier.std().item() == pytest.approx(bound / np.sqrt(3), rel=0.01)
    assert all((p == 0).all() for n, p in network.named_parameters() if n.endswith("bias"))
    xavier = models.build("resnet56_superconv", 10, blocks=1, init="xavier").blocks[2].conv2.weight
    assert xavier.abs().max().item() == pytest.approx(np.sqrt(3 / (32 * 9)), rel=1e-2)
    for init, std in (("msra", np.sqrt(2 / 64)), ("xavier", np.sqrt(1 / 64))):  # as the convolutions
        network = models.build("resnet56_hyperparam", 1000, blocks=1, init=init, classifier_init=None)
        assert network.classifier.weight.std().item() == pytest.approx(std, rel=0.01)


def test_initialisation_is_a_function_of_the_seed():
    torch.manual_seed(1)
    first = models.build("resnet56_superconv", 10, blocks=1, seed=5).state_dict()
    torch.manual_seed(2)
    again = models.build("resnet56_superconv", 10, blocks=1, seed=5).state_dict()
    other = models.build("resnet56_superconv", 10, blocks=1, seed=6).state_dict()
    assert all(torch.equal(first[k], again[k]) for k in first)
    assert not torch.equal(first["stem.weight"], other["stem.weight"])


def test_biases_have_their_own_rules():
    network = models.build("resnet56_superconv", 10)
    groups = models.parameter_groups(network, conv_bias_lr=2, conv_bias_decay=0, classifier_bias_lr=3)
    sizes = {multiples: sum(p.numel() for p in group) for multiples, group in groups.items()}
    biases = sum(m.bias.numel() for m in network.modules() if isinstance(m, torch.nn.Conv2d))
    assert sizes == {(1.0, 1.0): 808_682 - biases - 10, (2, 0): biases, (3, 0.0): 10}


@pytest.mark.parametrize("name", ["resnet56_superconv", "resnet56_hyperparam"])
def test_a_network_says_which_images_it_does_not_take(name):
    network = models.build(name, 10, blocks=1, width=4)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    models.require_size(network, name, (4, 32, 3))
    for height, width in [(30, 32), (32, 31), (3, 3), (2, 2)]:  # at 3 pixels a shortcut of 1 would be broadcast
        problem = (
            f"model.name={name}: it does not accept images of {width}x{height} pixels .height and width must be"
        )
        with pytest.raises(ReproError, match=problem):
            models.require_size(network, name, (height, width, 3))
    assert network.training
    assert all(torch.equal(before[key], value) for key, value in network.state_dict().items())
    with pytest.raises(ReproError, match="it does not accept images of 6x6 pixels"):
        size({"name": name, "blocks": 1}, 10, 3, 6)


@pytest.mark.parametrize("shortage", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory")])
def test_a_network_that_memory_does_not_hold_is_one_line(monkeypatch, shortage):
    def build(*arguments):
        raise shortage

    monkeypatch.setattr("repro.models.size.from_config", build)
    with pytest.raises(ReproError, match=r"^model.name=cnn3: the network does not fit into the memory"):
        size({"name": "cnn3"}, 10, 3, 32)


def test_a_configured_network_is_built_as_it_is_configured(resolved):
    def build(experiment):
        return models.from_config(resolved(f"experiment={experiment}").model, 1000, (32, 32, 3), 0)

    network = build("fig5a/piecewise_0.35")
    norms = [module for module in network.modules() if isinstance(module, layers.BatchNorm)]
    assert {(norm.fraction, norm.groups, norm.eps) for norm in norms} == {(0.999, 8, 1e-5)}
    xavier, msra = np.sqrt(1 / 64), np.sqrt(2 / 64)
    assert network.classifier.weight.std().item() == pytest.approx(xavier, rel=0.01)
    assert build("fig8b/tbs512").classifier.weight.std().item() == pytest.approx(
        msra, rel=0.01
    )  # as its convolutions
    assert build("table1-cnn3/constant_0.90").conv1.weight.std().item() == pytest.approx(1e-4, rel=0.05)
    lenet = models.from_config(resolved("experiment=table2-lenet/inv_85ep").model, 10, (28, 28, 1), 0)
    assert lenet.conv2.weight.std().item() == pytest.approx(np.sqrt(1 / 500), rel=0.02)
