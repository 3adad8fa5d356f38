"""The networks for vectors have the published sizes and are what a plain writing of them says."""

from functools import partial

import pytest
import torch

from nets.reference import (
    build,
    compiled_agrees,
    count,
    layer_norm,
    linear,
    mapped_gradients_agree,
    mish,
    normal,
    time_features,
)
from ornstein.nets.mlp import ConditionalMLP, LayerNormResidualMLP, ResidualMLP, dropped

SMALL = {
    ConditionalMLP: {"width": 16},
    ResidualMLP: {"width": 24, "blocks": 2, "time": 16},
    LayerNormResidualMLP: {"width": 16, "blocks": 2, "time": 16, "fourier": 8},
}
X, COND, T = normal(5, 3), normal(5, 4, seed=2), torch.tensor([0.0, 1.0, 2.0, 3.0, 4.0])
each = pytest.mark.parametrize("kind", list(SMALL))


def small(kind, cond=4, **kwargs):
    return build(kind, 3, cond, **(SMALL[kind] | kwargs))


def test_published_parameter_counts():
    assert count(ConditionalMLP(6, 17)) == 144_438
    assert count(LayerNormResidualMLP(6, 17)) == 1_643_558  # about 1.6 M
    with torch.device("meta"):
        assert count(ResidualMLP(17 + 6 + 1 + 17)) == 25_550_505  # about 25.6 M
        assert count(ResidualMLP(27, width=1024)) == 6_479_771  # 6.5 M


@pytest.fixture(autouse=True)
def _constructors_may_draw():
    with torch.random.fork_rng():
        yield


def test_conditional_mlp_is_layers_on_x_time_condition():
    net = small(ConditionalMLP)
    h = torch.cat((X, time_features(T, net.time), COND), -1)
    for i in (0, 2, 4):
        h = mish(linear(h, net.body[i]))
    torch.testing.assert_close(net(X, T, COND), linear(h, net.body[6]))
    assert len(net.body) == 7


def test_conditional_mlp_takes_other_activations_and_depths():
    net = small(ConditionalMLP, activation="relu", depth=1)
    _, first, _, last = net.time
    time = linear(linear(net.time[0](T), first).clamp(min=0), last)
    h = linear(torch.cat((X, time, COND), -1), net.body[0]).clamp(min=0)
    torch.testing.assert_close(net(X, T, COND), linear(h, net.body[2]))
    with pytest.raises(ValueError, match="depth 0: give at least one hidden layer"):
        ConditionalMLP(3, depth=0)


def test_residual_mlp_is_the_published_sum_of_blocks():
    net = small(ResidualMLP)
    fourier, first, _, last = net.time
    time = linear(fourier(T), first)
    h = linear(torch.cat((X, COND), -1), net.project) + linear(time * time.sigmoid(), last)
    h = linear(h, net.first)
    for block in net.blocks:
        h = h + linear(h.clamp(min=0), block)
    torch.testing.assert_close(net(X, T, COND), linear(h.clamp(min=0), net.head))
    assert fourier.frequency.shape == (8,)


def test_layer_norm_residual_mlp_is_the_published_sum_of_blocks():
    net = small(LayerNormResidualMLP)
    fourier, first, _, last = net.time
    time = linear(mish(linear(fourier(T), first)), last)
    h = linear(torch.cat((X, time, COND), -1), net.first)
    for block in net.blocks:
        norm, wide, _, narrow = block
        assert wide.out_features == 4 * 16
        h = h + linear(mish(linear(layer_norm(h, norm), wide)), narrow)
    torch.testing.assert_close(net(X, T, COND), linear(mish(h), net.head))


def test_layer_norm_residual_mlp_starts_as_published():
    net = LayerNormResidualMLP(3, 4)
    bound = (6 / (3 + 4 + 128 + 256)) ** 0.5
    assert 0.95 * bound < net.first.weight.abs().max() <= bound
    assert not net.first.bias.any()
    assert not net.head.bias.any()


def test_dropout_multiplies_the_input_of_each_block_but_not_what_passes_it_by():
    net, uniform = small(LayerNormResidualMLP), torch.rand(len(X), 2, 16, generator=torch.Generator().manual_seed(0))
    given = dropped(COND, uniform, 0.25)
    assert given.factor.unique().tolist() == pytest.approx([0.0, 4 / 3])
    assert torch.equal(given.factor > 0, uniform >= 0.25)
    h = net.first(torch.cat((X, net.time(T), COND), -1))
    for i, block in enumerate(net.blocks):
        h = h + block(h * given.factor[:, i])
    torch.testing.assert_close(net(X, T, given), net.head(mish(h)))
    torch.testing.assert_close(net(X, T, dropped(COND, uniform, 0.0)), net(X, T, COND))
    with pytest.raises(ValueError, match="dropout rate of 1"):
        dropped(COND, uniform, 1.0)


@each
def test_without_a_condition(kind):
    net = small(kind, cond=0)
    assert net(X, T).shape == X.shape
    with pytest.raises(ValueError, match="cond=0"):
        net(X, T, COND)
    with pytest.raises(ValueError, match="cond=4"):
        small(kind)(X, T)


@each
def test_rows_depend_on_their_own_x_time_and_condition_only(kind):
    net = small(kind)
    base = net(X, T, COND)
    assert base.shape == X.shape
    one = torch.zeros(5, 1)
    one[2] = 1.0
    for changed in (net(X + one, T, COND), net(X, T + one[:, 0], COND), net(X, T, COND + one)):
        rows = (changed - base).abs().amax(1) > 1e-5
        assert rows.tolist() == [False, False, True, False, False]
    order = torch.tensor([3, 1, 4, 0, 2])
    torch.testing.assert_close(net(X[order], T[order], COND[order]), base[order])
    torch.testing.assert_close(net(X[:1], T[:1], COND[:1]), base[:1])


@each
def test_a_forward_pass_draws_nothing(kind):
    net = small(kind)
    state = torch.random.get_rng_state()
    net(X, T, COND)
    assert torch.equal(state, torch.random.get_rng_state())


@each
def test_gradients_over_a_seed_axis_are_those_of_each_network(kind):
    assert mapped_gradients_agree(partial(kind, 3, 4, **SMALL[kind]), (X, T, COND))


@pytest.mark.graph
@each
def test_one_graph(kind):
    assert compiled_agrees(small(kind), (X, T, COND))


@pytest.mark.parametrize("cond", [0, 4])
def test_prepared_for_several_times_it_is_the_same_function_with_the_same_gradient(cond):
    net, given = small(ConditionalMLP, cond), COND if cond else None
    prepared = torch.stack([function(X) for function in net.at(T, given)])
    plain = torch.stack([net(X, t.expand(5), given) for t in T])
    torch.testing.assert_close(prepared, plain)
    sides = [torch.autograd.grad((side**2).sum(), list(net.parameters())) for side in (prepared, plain)]
    for ours, theirs in zip(*sides, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match="cond"):
        net.at(T, torch.zeros(5, 3))
