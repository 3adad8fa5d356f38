"""The networks of behaviour models: published sizes, and a plain writing of their layers."""

import pytest
import torch

from nets.reference import build, compiled_agrees, count, linear, normal
from ornstein.nets.embed import RandomFourier
from ornstein.nets.umlp import ScalarMLP, UShapedMLP

X, COND, T = normal(5, 3), normal(5, 4, seed=2), torch.rand(5, generator=torch.Generator().manual_seed(0))


def silu(x):
    return x * torch.sigmoid(x)


def waves(t, frequency):
    angle = 2 * torch.pi * t[:, None] * frequency
    return torch.cat((torch.sin(angle), torch.cos(angle)), 1)


def test_published_parameter_counts():
    assert count(build(UShapedMLP, 6, 17)) == 1_634_278  # about 1.63 M
    assert count(build(ScalarMLP, 6, 17)) == (6 + 32 + 17 + 1) * 256 + 3 * 257 * 256 + 257 + 33 * 32


def test_the_u_is_blocks_with_skips_that_are_told_time_and_condition():
    net = build(UShapedMLP, 3, 4, width=16, time=8)
    fourier, mix = net.time
    assert 8.0 < fourier.frequency.std() < 90.0  # scale 30
    features = torch.cat((linear(waves(T, fourier.frequency), mix), silu(linear(COND, net.known[0]))), 1)
    told = silu(linear(silu(linear(features, net.embed[0])), net.embed[2]))

    def block(b, x):
        h = silu(linear(x, b.first)) + linear(told, b.told)
        short = x if isinstance(b.short, torch.nn.Identity) else linear(x, b.short)
        return silu(linear(h, b.second)) + short

    first = block(net.down[0], X)
    second = block(net.down[1], first)
    third = block(net.down[2], second)
    assert [h.shape[1] for h in (first, second, third)] == [16, 8, 4]
    h = block(net.up[0], torch.cat((block(net.bottom, third), third), 1))
    h = block(net.up[1], torch.cat((h, second), 1))
    torch.testing.assert_close(net(X, T, COND), linear(torch.cat((h, first), 1), net.head), atol=1e-5, rtol=1e-4)


def test_the_scalar_is_layers_on_x_time_condition():
    net = build(ScalarMLP, 3, 4, width=16, depth=2, time=8)
    h = torch.cat((X, linear(waves(T, net.time[0].frequency), net.time[1]), COND), 1)
    h = silu(linear(silu(linear(h, net.body[0])), net.body[2]))
    torch.testing.assert_close(net(X, T, COND), linear(h, net.body[4])[:, 0], atol=1e-5, rtol=1e-4)


def test_without_a_condition():
    for kind, shape in ((UShapedMLP, (5, 3)), (ScalarMLP, (5,))):
        net = build(kind, 3, width=16, time=8)
        assert net(X, T).shape == shape
        with pytest.raises(ValueError, match="built with cond=0"):
            net(X, T, COND)


def test_widths_are_halved_twice():
    with pytest.raises(ValueError, match="multiple of 4"):
        UShapedMLP(3, width=18)


def test_features_without_the_time_itself_are_the_waves_alone():
    both = RandomFourier(8, generator=torch.Generator().manual_seed(1))
    alone = RandomFourier(8, linear=False, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(both(T)[:, 1:], alone(T))


@pytest.mark.graph
def test_compiled_networks_agree():
    compiled_agrees(build(UShapedMLP, 3, 4, width=16, time=8), (X, T, COND))
