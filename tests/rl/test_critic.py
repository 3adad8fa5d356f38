"""An ensemble as one module is its members one by one, in value, gradient, start and size."""

import math
from functools import partial

import pytest
import torch

from nets.reference import build, compiled_agrees, count, layer_norm, mapped_gradients_agree, mish, normal
from ornstein.rl.critic import BatchedLayerNorm, BatchedLinear, Critics, StateValues

OBS, ACTION = normal(7, 5), normal(7, 2, seed=2)
SMALL = {"width": 16, "depth": 2}


@pytest.fixture(autouse=True)
def _constructors_may_draw():
    with torch.random.fork_rng():
        yield


def member(net, i, x, activation=mish):
    """One network of the ensemble, layer by layer."""
    layers = list(net.body.hidden)
    while layers:
        linear = layers.pop(0)
        x = x @ linear.weight[i] + linear.bias[i]
        if isinstance(layers[0], BatchedLayerNorm):
            norm = layers.pop(0)
            x = layer_norm(x) * norm.weight[i] + norm.bias[i]
        x = activation(x)
        layers.pop(0)
    return (x @ net.body.head.weight[i] + net.body.head.bias[i])[:, 0]


def test_published_parameter_counts():
    """Two of 23 -> 256 -> 256 -> 256 -> 1."""
    assert count(Critics(17, 6)) == 275_970
    assert count(StateValues(17)) == 17 * 256 + 256 + 256 * 256 + 256 + 256 + 1
    assert count(Critics(17, 6, n=1)) * 2 == 275_970
    assert count(Critics(17, 6, layer_norm=True)) == 275_970 + 2 * 3 * 2 * 256


@pytest.mark.parametrize("layer_norm", [False, True])
@pytest.mark.parametrize("n", [1, 2, 5])
def test_critics_are_separate_networks(n, layer_norm):
    net = build(Critics, 5, 2, n=n, **SMALL, layer_norm=layer_norm).double()
    obs, action = OBS.double(), ACTION.double()
    values = net(obs, action)
    assert values.shape == (n, 7)
    alone = torch.stack([member(net, i, torch.cat((obs, action), 1)) for i in range(n)])
    torch.testing.assert_close(values, alone)
    params = list(net.parameters())
    for a, b in zip(
        torch.autograd.grad(values.square().sum(), params),
        torch.autograd.grad(alone.square().sum(), params),
        strict=True,
    ):
        torch.testing.assert_close(a, b)


def test_the_gradient_for_an_action_is_that_of_separate_networks():
    net = build(Critics, 5, 2, **SMALL).double()
    obs, action = OBS.double(), ACTION.double().requires_grad_()
    (ours,) = torch.autograd.grad(net(obs, action)[0].sum(), action)
    (alone,) = torch.autograd.grad(member(net, 0, torch.cat((obs, action), 1)).sum(), action)
    torch.testing.assert_close(ours, alone)
    assert torch.autograd.gradcheck(lambda a: net(obs, a), action)


def test_members_do_not_share_anything():
    net = build(Critics, 5, 2, n=3, **SMALL)
    grads = torch.autograd.grad(net(OBS, ACTION)[1].sum(), list(net.parameters()))
    for g in grads:
        assert g[1].abs().max() > 0
        assert not g[0].any()
        assert not g[2].any()
    start = Critics(5, 2)
    assert not torch.equal(start.body.head.weight[0], start.body.head.weight[1])


def test_state_values_are_separate_networks():
    net = build(StateValues, 5, n=2, **SMALL).double()
    values = net(OBS.double())
    alone = torch.stack([member(net, i, OBS.double(), lambda x: x.clamp(min=0)) for i in range(2)])
    torch.testing.assert_close(values, alone)
    assert build(StateValues, 5)(OBS).shape == (1, 7)


@pytest.mark.parametrize("inside", [3, 100])
def test_weights_start_with_the_law_of_linear_layers(inside):
    """Uniform within 1 / sqrt(in), which is also what torch.nn.Linear draws."""
    layer, linear = BatchedLinear(4, inside, 2000), torch.nn.Linear(inside, 8000)
    bound = 1 / math.sqrt(inside)
    for ours, theirs in ((layer.weight, linear.weight), (layer.bias, linear.bias)):
        assert 0.99 * bound < ours.abs().max() <= bound
        for moment in (1, 2, 4):
            a, b = ((p.detach() / bound).pow(moment).mean().item() for p in (ours, theirs))
            assert a == pytest.approx(b, abs=0.03)


def test_leading_axes_of_the_batch_are_kept():
    net = build(Critics, 5, 2, **SMALL)
    obs, action = normal(3, 7, 5), normal(3, 7, 2, seed=4)
    values = net(obs, action)
    assert values.shape == (2, 3, 7)
    for i in range(3):
        torch.testing.assert_close(values[:, i], net(obs[i], action[i]))
    torch.testing.assert_close(net(obs[0, 0], action[0, 0]), values[:, 0, 0])
    shared = net(OBS[:, None].expand(-1, 4, -1), normal(7, 4, 2))
    assert shared.shape == (2, 7, 4)


def test_rows_are_independent():
    net = build(Critics, 5, 2, **SMALL, layer_norm=True)
    base = net(OBS, ACTION)
    order = torch.randperm(7, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(net(OBS[order], ACTION[order]), base[:, order])
    torch.testing.assert_close(net(OBS[:1], ACTION[:1]), base[:, :1])


def test_impossible_sizes_are_refused():
    for sizes in ({"n": 0}, {"depth": 0}):
        with pytest.raises(ValueError, match="give at least one member and one hidden layer"):
            Critics(5, 2, **sizes)


@pytest.mark.parametrize("layer_norm", [False, True])
def test_gradients_over_a_seed_axis_are_those_of_each_network(layer_norm):
    assert mapped_gradients_agree(partial(Critics, 5, 2, **SMALL, layer_norm=layer_norm), (OBS, ACTION))


@pytest.mark.graph
def test_one_graph():
    assert compiled_agrees(build(Critics, 5, 2, **SMALL, layer_norm=True), (OBS, ACTION))
