"""The U-Net and its contracting half have the published sizes and are what a plain writing of them says."""

from functools import partial

import pytest
import torch

from nets.reference import (
    build,
    compiled_agrees,
    convolution,
    count,
    encoder,
    group_norm,
    mapped_gradients_agree,
    normal,
    unet,
)
from ornstein.nets.unet1d import Conv, GroupNorm, LinearAttention, TemporalEncoder, TemporalUNet

X, T = normal(6, 8, 3), torch.tensor([0.0, 1.0, 5.0, 7.0, 19.0, 2.0])
SMALL = {"width": 8, "multipliers": (1, 2, 4), "groups": 4}


@pytest.fixture(autouse=True)
def _constructors_may_draw():
    with torch.random.fork_rng():
        yield


def test_published_parameter_counts():
    """Diffuser's own networks at 17 + 6 channels, and those that another library builds at 11 + 3 and at (1, 4, 8)."""
    with torch.device("meta"):
        assert count(TemporalUNet(23)) == 3_958_327
        assert count(TemporalEncoder(23, 32)) == 2_296_545
        assert count(TemporalUNet(14)) == 3_956_302
        assert count(TemporalUNet(23, multipliers=(1, 4, 8))) == 3_685_943
        assert count(LinearAttention(64)) == 2 * 64 + 64 * 384 + 128 * 64 + 64


def test_unet_is_its_plain_writing():
    net = build(TemporalUNet, 3, **SMALL).double()
    x, t = X.double(), T.double()
    torch.testing.assert_close(net(x, t), unet(net, x, t), atol=1e-6, rtol=1e-5)


def test_unet_with_attention_is_its_plain_writing():
    net = build(TemporalUNet, 3, **SMALL, attention=True).double()
    x, t = X.double(), T.double()
    torch.testing.assert_close(net(x, t), unet(net, x, t, attend=True), atol=1e-6, rtol=1e-5)


def test_unet_scales_and_shifts_by_a_condition():
    net = build(TemporalUNet, 3, **SMALL, cond=2).double()
    x, t, cond = X.double(), T.double(), normal(6, 2, seed=3, dtype=torch.float64)
    torch.testing.assert_close(net(x, t, cond), unet(net, x, t, cond), atol=1e-6, rtol=1e-5)


def test_encoder_is_its_plain_writing():
    net = build(TemporalEncoder, 3, 8, **SMALL).double()
    x, t = X.double(), T.double()
    torch.testing.assert_close(net(x, t), encoder(net, x, t), atol=1e-6, rtol=1e-5)
    assert [len(level.blocks) for level in net.levels] == [2, 2, 2, 1, 1]
    assert [shrink.out_channels for shrink in net.shrink] == [8, 16, 32, 16, 8]


@pytest.mark.parametrize(("horizon", "flat"), [(4, 8), (32, 8), (64, 16), (40, 16)])
def test_encoder_halves_the_horizon_at_every_level(horizon, flat):
    """Five strided convolutions: 32 -> 1, 64 -> 2 and, as convolutions round up, 40 -> 20 -> 10 -> 5 -> 3 -> 2."""
    net = build(TemporalEncoder, 3, horizon, **SMALL)
    assert net.head[0].in_features == flat + 8
    assert net.head[0].out_features == flat // 2
    assert net(normal(2, horizon, 3), T[:2]).shape == (2,)


def test_encoder_takes_a_condition():
    net = build(TemporalEncoder, 3, 8, **SMALL, cond=2)
    cond = normal(6, 2, seed=3)
    assert not torch.allclose(net(X, T, cond), net(X, T, cond + 1))
    with pytest.raises(ValueError, match="cond=2"):
        net(X, T)


def test_attention_adds_to_the_features_themselves():
    """Not to their normalised form: with a zero outward map the layer is the identity."""
    layer = build(LinearAttention, 8)
    layer.outward.weight.data.zero_()
    layer.outward.bias.data.zero_()
    h = 5 + 3 * normal(2, 8, 6)
    assert torch.equal(layer(h), h)


def test_attention_reads_from_every_step_and_does_not_know_their_order():
    layer = build(LinearAttention, 8)
    h = normal(2, 8, 6)
    order = torch.tensor([4, 0, 5, 2, 1, 3])
    torch.testing.assert_close(layer(h[:, :, order]), layer(h)[:, :, order])
    moved = h.clone()
    moved[:, 0, 5] += 1.0
    assert (layer(moved) - layer(h))[:, :, :5].abs().amax() > 1e-4


def test_the_horizon_is_free_but_divisible():
    net = build(TemporalUNet, 3, **SMALL)
    for horizon in (4, 8, 20):
        assert net(normal(2, horizon, 3), T[:2]).shape == (2, horizon, 3)
    with pytest.raises(
        ValueError, match=r"horizon 6 is not divisible by 4: .* pad the horizon or give fewer multipliers"
    ):
        net(normal(2, 6, 3), T[:2])
    with pytest.raises(ValueError, match="horizon 16, but the network was built for 8"):
        build(TemporalEncoder, 3, 8, **SMALL)(normal(2, 16, 3), T[:2])


@pytest.mark.parametrize("kind", [TemporalUNet, partial(TemporalEncoder, horizon=8)])
def test_sizes_that_cannot_be_built_are_refused(kind):
    with pytest.raises(ValueError, match=r"channels \[12, .*must be divisible by 8 groups"):
        kind(3, width=12)
    with pytest.raises(ValueError, match="kernel = 4 would change the length: give an odd one"):
        kind(3, kernel=4)
    with pytest.raises(ValueError, match=r"channels \[\]"):
        kind(3, multipliers=())


def test_without_norms_the_receptive_field_is_local():
    """One level of five convolutions of kernel 5 reaches ten steps to either side, and not an eleventh."""
    net = build(TemporalUNet, 2, width=8, multipliers=(1,))
    for module in net.modules():
        for name, child in module.named_children():
            if isinstance(child, torch.nn.GroupNorm):
                setattr(module, name, torch.nn.Identity())
    x = normal(1, 64, 2).requires_grad_()
    (reach,) = torch.autograd.grad(net(x, T[:1])[0, 32].sum(), x)
    seen = reach[0].abs().amax(1).nonzero().flatten()
    convolutions = 2 * (len(net.down) + 1) * 2 + 1
    assert (seen.min().item(), seen.max().item()) == (32 - 2 * convolutions, 32 + 2 * convolutions)


def test_a_shift_of_the_trajectory_shifts_the_answer():
    """Away from the ends, by whole strides: the network is a convolution and knows no absolute time."""
    net = build(TemporalUNet, 2, width=8, multipliers=(1, 2)).double()
    t, x = T[:1].double(), torch.zeros(1, 512, 2, dtype=torch.float64)
    x[0, 250:260] = normal(10, 2, dtype=torch.float64)
    base, moved, half = (net(x.roll(by, 1), t)[0] for by in (0, 6, 5))
    torch.testing.assert_close(moved[206:306], base[200:300], atol=1e-9, rtol=0)
    assert not torch.allclose(half[205:305], base[200:300], atol=1e-4)


@pytest.mark.parametrize("kind", [TemporalUNet, partial(TemporalEncoder, horizon=8)])
def test_rows_depend_on_their_own_trajectory_and_time_only(kind):
    net = build(kind, 3, **SMALL)
    base = net(X, T)
    one = torch.zeros(6, 1, 1)
    one[2] = 1.0
    for changed in (net(X + one * normal(8, 3, seed=9), T), net(X, T + one[:, 0, 0])):
        rows = (changed - base).abs().flatten(1).amax(1) > 1e-5 if base.ndim > 1 else (changed - base).abs() > 1e-5
        assert rows.tolist() == [i == 2 for i in range(6)]


@pytest.mark.parametrize("time", [1, 2, 3, 9])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("kernel", [3, 5])
@pytest.mark.parametrize("b", [1, 2, 4, 5])
def test_every_form_of_the_convolution_is_the_same(b, kernel, stride, time):
    wide = build(Conv, 96, 96, kernel, stride=stride).double()
    x = normal(b, 96, time, dtype=torch.float64).requires_grad_()
    assert wide._few(b) == (b < 5)
    expected = convolution(x, wide)
    torch.testing.assert_close(wide(x), expected)
    grads, plain = (torch.autograd.grad(y.square().sum(), (x, *wide.parameters())) for y in (wide(x), expected))
    for ours, theirs in zip(grads, plain, strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("time", [1, 2, 4, 7, 8])
@pytest.mark.parametrize("b", [8, 9])
def test_every_form_of_the_group_norm_is_the_same(b, time):
    norm = build(GroupNorm, 4, 16).double()
    x = normal(b, 16, time, dtype=torch.float64).requires_grad_()
    expected = group_norm(x, norm)
    torch.testing.assert_close(norm(x), expected)
    with torch.no_grad():
        torch.testing.assert_close(norm(x), expected)
    grads, plain = (torch.autograd.grad(y.pow(3).sum(), (x, *norm.parameters())) for y in (norm(x), expected))
    for ours, theirs in zip(grads, plain, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_one_narrow_trajectory_stays_with_torchs_convolution():
    assert not build(Conv, 64, 64, 3)._few(1)
    assert build(Conv, 64, 128, 3)._few(1)
    assert build(Conv, 4, 4, 3)._few(2)


def test_guidance_can_differentiate_the_value_twice():
    net = build(TemporalEncoder, 2, 4, width=4, multipliers=(1, 2, 4), groups=1).double()
    x = normal(2, 4, 2, dtype=torch.float64).requires_grad_()
    t = T[:2].double()
    assert torch.autograd.gradcheck(lambda x: net(x, t), x)
    assert torch.autograd.gradgradcheck(lambda x: net(x, t), x, atol=1e-4)


@pytest.mark.parametrize(
    "make",
    [
        partial(TemporalUNet, 3, **SMALL, attention=True),
        partial(TemporalEncoder, 3, 8, **SMALL),
    ],
)
@pytest.mark.parametrize("b", [2, 6])
def test_gradients_over_a_seed_axis_are_those_of_each_network(make, b):
    assert mapped_gradients_agree(make, (X[:b], T[:b]))


@pytest.mark.graph
def test_unet_is_one_graph():
    net = build(TemporalUNet, 3, width=8, multipliers=(1, 2), attention=True)
    assert compiled_agrees(net, (X[:2], T[:2]))


@pytest.mark.graph
def test_encoder_is_one_graph():
    assert compiled_agrees(build(TemporalEncoder, 3, 8, **SMALL), (X, T))
