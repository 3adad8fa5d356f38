"""Plain second writings of the networks, on the weights of the first, and what several tests of networks share."""

import math

import torch
from torch import Tensor


def build(make, *args, seed=0, **kwargs):
    """A network with weights from a seed, every one of them away from zero, and torch's global generator as before."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        net = make(*args, **kwargs)
        for p in net.parameters():
            p.data += 0.05 * torch.randn_like(p)
    return net


def normal(*shape, seed=1, dtype=torch.float32):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def count(net):
    return sum(p.numel() for p in net.parameters())


def sinusoid(t: Tensor, size: int) -> Tensor:
    rows = []
    for value in t.tolist():
        angles = [value * 10000.0 ** (-i / (size // 2 - 1)) for i in range(size // 2)]
        rows.append([math.sin(a) for a in angles] + [math.cos(a) for a in angles])
    return torch.tensor(rows, dtype=t.dtype)


def linear(x, layer):
    return x @ layer.weight.T + layer.bias


def mish(x):
    return x * torch.tanh(torch.log1p(torch.exp(-x.abs())) + x.clamp(min=0))


def time_features(t, network):
    _, first, _, last = network
    return linear(mish(linear(sinusoid(t, first.in_features), first)), last)


def convolution(x, layer):
    """A convolution with padding by half the kernel, as sums over shifted copies; x is (b, channels, time)."""
    kernel, stride = layer.kernel_size[0], layer.stride[0]
    half, length = kernel // 2, x.shape[2]
    padded = torch.zeros(x.shape[0], x.shape[1], length + 2 * half, dtype=x.dtype)
    padded[:, :, half : half + length] = x
    out = torch.zeros(x.shape[0], layer.out_channels, (length + stride - 1) // stride, dtype=x.dtype)
    for i in range(out.shape[2]):
        window = padded[:, :, i * stride : i * stride + kernel]
        out[:, :, i] = torch.einsum("bck,ock->bo", window, layer.weight) + layer.bias
    return out


def transposed(x, layer):
    """A transposed convolution of kernel 4, stride 2, padding 1: every input row spreads over four output rows."""
    length = x.shape[2]
    out = torch.zeros(x.shape[0], layer.out_channels, 2 * length + 2, dtype=x.dtype)
    for i in range(length):
        out[:, :, 2 * i : 2 * i + 4] += torch.einsum("bc,cok->bok", x[:, :, i], layer.weight)
    return out[:, :, 1:-1] + layer.bias[:, None]


def group_norm(x, layer):
    b, channels, length = x.shape
    grouped = x.reshape(b, layer.num_groups, -1)
    mean = grouped.mean(-1, keepdim=True)
    variance = ((grouped - mean) ** 2).mean(-1, keepdim=True)
    normal = ((grouped - mean) / (variance + 1e-5).sqrt()).reshape(b, channels, length)
    return normal * layer.weight[:, None] + layer.bias[:, None]


def layer_norm(x, layer=None):
    mean = x.mean(-1, keepdim=True)
    normal = (x - mean) / (((x - mean) ** 2).mean(-1, keepdim=True) + 1e-5).sqrt()
    return normal if layer is None else normal * layer.weight + layer.bias


def conv_block(x, block):
    return mish(group_norm(convolution(x, block[0]), block[1]))


def residual_block(x, features, block, film=False):
    move = linear(mish(features), block.mark)[:, :, None]
    inner = conv_block(x, block.first)
    if film:
        half = move.shape[1] // 2
        inner = inner * move[:, :half] + move[:, half:]
    else:
        inner = inner + move
    skip = x if block.first[0].in_channels == block.first[0].out_channels else convolution(x, block.skip)
    return conv_block(inner, block.second) + skip


def attention(x, layer):
    """Residual linear attention, head by head."""
    rows = layer_norm(x.transpose(1, 2), layer.norm)
    parts = rows @ layer.inward.weight[:, :, 0].T
    read = []
    for head in range(4):
        query, key, value = (parts[:, :, 128 * i + 32 * head : 128 * i + 32 * head + 32] for i in range(3))
        weight = key.exp() / key.exp().sum(1, keepdim=True)
        read.append(query / math.sqrt(32.0) @ (weight.transpose(1, 2) @ value))
    return x + (torch.cat(read, -1) @ layer.outward.weight[:, :, 0].T + layer.outward.bias).transpose(1, 2)


def unet(net, x, t, cond=None, attend=False):
    features = time_features(t, net.time)
    film = cond is not None
    features = torch.cat((features, cond), -1) if film else features
    h, skips = x.transpose(1, 2), []
    for i, level in enumerate(net.down):
        for block in level.blocks:
            h = residual_block(h, features, block, film)
        h = attention(h, level.attention) if attend else h
        skips.append(h)
        h = convolution(h, net.shrink[i]) if i < len(net.down) - 1 else h
    h = residual_block(h, features, net.middle.blocks[0], film)
    h = attention(h, net.middle.attention) if attend else h
    h = residual_block(h, features, net.middle.blocks[1], film)
    for level, grow in zip(net.up, net.grow, strict=True):
        h = torch.cat((h, skips.pop()), 1)
        for block in level.blocks:
            h = residual_block(h, features, block, film)
        h = attention(h, level.attention) if attend else h
        h = transposed(h, grow)
    return convolution(conv_block(h, net.head[0]), net.head[1]).transpose(1, 2)


def encoder(net, x, t):
    features = time_features(t, net.time)
    h = x.transpose(1, 2)
    for level, shrink in zip(net.levels, net.shrink, strict=True):
        for block in level.blocks:
            h = residual_block(h, features, block)
        h = convolution(h, shrink)
    h = torch.cat((h.reshape(len(h), -1), features), 1)
    return linear(mish(linear(h, net.head[0])), net.head[2])[:, 0]


def mapped_gradients_agree(make, args, atol=1e-9):
    """Whether gradients over a leading seed axis on parameters are those of each network on its own."""
    nets, args = [build(make, seed=s).double() for s in range(3)], tuple(a.double() for a in args)
    params, buffers = torch.func.stack_module_state(nets)

    def loss(params, buffers, args):
        return torch.func.functional_call(nets[0], (params, buffers), args).square().mean()

    mapped = torch.func.vmap(torch.func.grad(loss), in_dims=(0, 0, None))(params, buffers, args)
    outer = torch.func.vmap(loss, in_dims=(0, 0, None))(params, buffers, args).sum()
    outer = dict(zip(params, torch.autograd.grad(outer, list(params.values()), allow_unused=True), strict=True))
    for i, net in enumerate(nets):
        alone = torch.autograd.grad(net(*args).square().mean(), list(net.parameters()), allow_unused=True)
        for (name, p), grad in zip(net.named_parameters(), alone, strict=True):
            g = torch.zeros_like(p) if grad is None else grad
            scale = g.abs().max() + 1e-3
            torch.testing.assert_close(mapped[name][i] / scale, g / scale, atol=atol, rtol=0)
            theirs = torch.zeros_like(p) if outer[name] is None else outer[name][i]
            torch.testing.assert_close(theirs / scale, g / scale, atol=atol, rtol=0)
    return True


def compiled_agrees(net, args, atol=1e-4):
    """Whether the network is one graph, forwards and backwards, with the value and gradient of the eager one.

    The graph is run by torch, not by generated kernels: what is tested is that it exists and means the same.
    """
    torch.compiler.reset()
    compiled = torch.compile(net, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(*args), net(*args), atol=atol, rtol=atol)
    ours = torch.autograd.grad(compiled(*args).square().mean(), list(net.parameters()), allow_unused=True)
    plain = torch.autograd.grad(net(*args).square().mean(), list(net.parameters()), allow_unused=True)
    for a, b in zip(ours, plain, strict=True):
        if b is not None:
            torch.testing.assert_close(a, b, atol=atol, rtol=1e-3)
    return True
