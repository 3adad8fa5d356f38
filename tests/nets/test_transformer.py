"""The transformer starts as it should (adaLN-zero) and is what a plain writing of it says."""

import math
from functools import partial

import pytest
import torch
from torch.nn import functional

from nets.reference import build, compiled_agrees, count, layer_norm, linear, mapped_gradients_agree, normal, sinusoid
from ornstein.nets.transformer import DiffusionBlock, DiffusionTransformer1d

X, T, COND = normal(5, 6, 3), torch.tensor([0.0, 1.0, 5.0, 7.0, 19.0]), normal(5, 2, seed=4)
SMALL = {"width": 16, "depth": 2, "heads": 2}


@pytest.fixture(autouse=True)
def _constructors_may_draw():
    with torch.random.fork_rng():
        yield


def plain(net, x, t, cond):
    """The network head by head and row by row."""
    _, first, _, last = net.time
    time = linear(sinusoid(t, 16), first)
    mark = linear(time * time.sigmoid(), last) + linear(cond, net.condition)
    mark = mark * mark.sigmoid()
    h = linear(x, net.inward) + sinusoid(torch.arange(x.shape[1], dtype=x.dtype), 16)
    for block in net.blocks:
        parts = linear(mark, block.modulation.linear)[:, None].split(16, -1)
        a = layer_norm(h) * (1 + parts[1]) + parts[0]
        inward, reads = linear(a, block.inward), []
        for head in range(2):
            query, key, value = (inward[:, :, 16 * i + 8 * head : 16 * i + 8 * head + 8] for i in range(3))
            weights = (query @ key.transpose(1, 2) / math.sqrt(8)).exp()
            reads.append(weights / weights.sum(-1, keepdim=True) @ value)
        h = h + parts[2] * linear(torch.cat(reads, -1), block.outward)
        a = layer_norm(h) * (1 + parts[4]) + parts[3]
        h = h + parts[5] * linear(functional.gelu(linear(a, block.each[0]), approximate="tanh"), block.each[2])
    shift, scale = linear(mark, net.last.linear)[:, None].split(16, -1)
    return linear(layer_norm(h) * (1 + scale) + shift, net.head)


def test_it_is_its_plain_writing():
    net = build(DiffusionTransformer1d, 3, **SMALL, cond=2).double()
    for p in net.parameters():
        p.data *= 3
    x, t, cond = X.double(), T.double(), COND.double()
    torch.testing.assert_close(net(x, t, cond), plain(net, x, t, cond), atol=1e-6, rtol=1e-5)


def test_it_starts_as_zero_and_its_blocks_as_the_identity():
    net = DiffusionTransformer1d(3, **SMALL, cond=2)
    assert not net(X, T, COND).any()
    h, mark = 4 + 3 * normal(5, 6, 16), normal(5, 16, seed=2)
    for block in net.blocks:
        assert torch.equal(block(h, mark), h)


def test_gates_alone_let_a_block_add_to_the_stream_itself():
    """With gates of 1 and no shifts and scales the block is h + f(LayerNorm(h)), the published residual stream."""
    block = DiffusionBlock(16, 2, 4)
    block.modulation.linear.bias.data[32:48] = 1.0
    h, mark = 4 + 3 * normal(5, 6, 16), normal(5, 16, seed=2)
    torch.testing.assert_close(block(h, mark), h + block.attend(layer_norm(h)))


def test_every_parameter_learns_once_the_zeros_are_left():
    net = build(DiffusionTransformer1d, 3, **SMALL, cond=2)
    grads = torch.autograd.grad(net(X, T, COND).square().sum(), list(net.parameters()))
    assert all(g.abs().max() > 0 for g in grads)


def test_size():
    """Per block: 6 modulations, 3 + 1 attention maps, and the two layers of the network on each step."""
    width = 16
    block = 6 * (width * width + width) + 4 * (width * width + width) + 8 * width * width + 5 * width
    ends = 3 * width + width + 2 * (width * width + width) + 2 * width + width + 2 * (width * width + width)
    assert count(DiffusionTransformer1d(3, **SMALL, cond=2)) == 2 * block + ends + width * 3 + 3


def test_steps_see_each_other_and_know_their_place():
    net = build(DiffusionTransformer1d, 3, **SMALL)
    base = net(X, T)
    moved = X.clone()
    moved[:, 5] += normal(3, seed=8)
    assert ((net(moved, T) - base).abs().amax((0, 2)) > 1e-6).all()
    order = torch.tensor([1, 0, 2, 3, 4, 5])
    assert not torch.allclose(net(X[:, order], T), base[:, order], atol=1e-4)
    for horizon in (1, 9):
        assert net(normal(5, horizon, 3), T).shape == (5, horizon, 3)


def test_rows_depend_on_their_own_trajectory_time_and_condition_only():
    net = build(DiffusionTransformer1d, 3, **SMALL, cond=2)
    base = net(X, T, COND)
    one = torch.zeros(5, 1, 1)
    one[2] = 1.0
    for changed in (net(X + one, T, COND), net(X, T + one[:, 0, 0], COND), net(X, T, COND + one[:, 0])):
        rows = (changed - base).abs().amax((1, 2)) > 1e-6
        assert rows.tolist() == [False, False, True, False, False]


def test_wrong_sizes_are_refused():
    with pytest.raises(ValueError, match="width = 16 must be even and divisible by heads = 3"):
        DiffusionTransformer1d(3, width=16, heads=3)
    with pytest.raises(ValueError, match="cond=2"):
        build(DiffusionTransformer1d, 3, **SMALL, cond=2)(X, T)
    with pytest.raises(ValueError, match="cond=0"):
        build(DiffusionTransformer1d, 3, **SMALL)(X, T, COND)


def test_it_can_be_differentiated_twice():
    net = build(DiffusionTransformer1d, 1, width=4, depth=1, heads=1).double()
    x, t = normal(1, 3, 1, dtype=torch.float64).requires_grad_(), T[:1].double()
    assert torch.autograd.gradcheck(lambda x: net(x, t), x)
    assert torch.autograd.gradgradcheck(lambda x: net(x, t), x)


def test_gradients_over_a_seed_axis_are_those_of_each_network():
    assert mapped_gradients_agree(partial(DiffusionTransformer1d, 3, **SMALL, cond=2), (X, T, COND))


@pytest.mark.graph
def test_one_graph():
    assert compiled_agrees(build(DiffusionTransformer1d, 3, **SMALL, cond=2), (X, T, COND))
