"""The deterministic actor and inverse dynamics: sizes, layers, order of inputs, bounds."""

from functools import partial

import pytest
import torch

from nets.reference import build, compiled_agrees, count, linear, mapped_gradients_agree, normal
from ornstein.rl.actor import Actor
from ornstein.rl.inverse import InverseDynamics

OBS, NEXT = normal(7, 5), normal(7, 5, seed=2)


@pytest.fixture(autouse=True)
def _constructors_may_draw():
    with torch.random.fork_rng():
        yield


def test_published_parameter_counts():
    assert count(Actor(17, 6)) == 17 * 256 + 256 + 256 * 256 + 256 + 6 * 256 + 6
    assert count(InverseDynamics(11, 3)) == 22 * 256 + 256 + 256 * 256 + 256 + 3 * 256 + 3


def test_the_actor_is_relu_layers_and_a_bounded_tanh():
    net = build(Actor, 5, 2, width=16, bound=2.0)
    h = linear(OBS, net.body[0]).clamp(min=0)
    h = linear(h, net.body[2]).clamp(min=0)
    torch.testing.assert_close(net(OBS), 2 * torch.tanh(linear(h, net.body[4])))
    assert net(1e4 * OBS).abs().max().item() == pytest.approx(2.0)


def test_inverse_dynamics_are_relu_layers_on_both_observations_in_their_order():
    net = build(InverseDynamics, 5, 2, width=16)
    h = linear(torch.cat((OBS, NEXT), 1), net.body[0]).clamp(min=0)
    h = linear(h, net.body[2]).clamp(min=0)
    torch.testing.assert_close(net(OBS, NEXT), linear(h, net.body[4]))
    assert not torch.allclose(net(OBS, NEXT), net(NEXT, OBS))


def test_leading_axes_are_kept():
    windows = normal(3, 8, 5)
    assert build(InverseDynamics, 5, 2, width=16)(windows[:, :-1], windows[:, 1:]).shape == (3, 7, 2)
    assert build(Actor, 5, 2, width=16)(windows).shape == (3, 8, 2)


@pytest.mark.parametrize("kind", [Actor, InverseDynamics])
def test_networks_without_hidden_layers_are_refused(kind):
    with pytest.raises(ValueError, match="depth 0: give at least one hidden layer"):
        kind(5, 2, depth=0)
    assert len(build(kind, 5, 2, depth=3).body) - len(build(kind, 5, 2, depth=1).body) == 4


@pytest.mark.parametrize(("kind", "args"), [(Actor, (OBS,)), (InverseDynamics, (OBS, NEXT))])
def test_gradients_over_a_seed_axis_are_those_of_each_network(kind, args):
    assert mapped_gradients_agree(partial(kind, 5, 2, width=16), args)


@pytest.mark.graph
@pytest.mark.parametrize(("kind", "args"), [(Actor, (OBS,)), (InverseDynamics, (OBS, NEXT))])
def test_one_graph(kind, args):
    assert compiled_agrees(build(kind, 5, 2, width=16), args)
