"""Convolutional networks over the time of trajectories (b, horizon, channels): a U-Net and its contracting half."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from ornstein.activation import Mish, eager, mish
from ornstein.nets.embed import checked, time_mlp


class TemporalUNet(nn.Module):
    """A U-Net along the time axis; the horizon is free but must be divisible by 2^(levels - 1).

    Each level has two residual blocks [Conv1d, GroupNorm, Mish] x 2, between whose halves the time features are added,
    and a strided convolution (none after the last level); the way up mirrors it. `attention` adds linear attention.
    With `cond` > 0 the condition joins the time features, and both scale and shift (FiLM) instead of being added.
    Source: Janner et al. 2022 (2205.09991), Diffuser; FiLM as in Chi et al. 2023 (2303.04137), Diffusion Policy.
    """

    def __init__(
        self,
        channels: int,
        *,
        width: int = 32,
        multipliers: Sequence[int] = (1, 2, 4, 8),
        kernel: int = 5,
        groups: int = 8,
        attention: bool = False,
        cond: int = 0,
    ) -> None:
        super().__init__()
        style = Style(width + cond, kernel=kernel, groups=groups, attention=attention, film=cond > 0)
        sizes = _sizes(width, multipliers, style)
        self.cond, self.stride = cond, 2 ** (len(sizes) - 1)
        self.time = time_mlp(width, 4 * width)
        self.down = nn.ModuleList(Level(a, b, style) for a, b in zip([channels, *sizes[:-1]], sizes, strict=True))
        self.shrink = nn.ModuleList(Conv(size, size, 3, stride=2) for size in sizes[:-1])
        self.middle = Level(sizes[-1], sizes[-1], style, attend_between=True)
        self.up = nn.ModuleList(Level(2 * b, a, style) for a, b in reversed(list(pairwise(sizes))))
        self.grow = nn.ModuleList(
            nn.ConvTranspose1d(size, size, 4, stride=2, padding=1) for size in reversed(sizes[:-1])
        )
        self.head = nn.Sequential(ConvBlock(sizes[0], sizes[0], style), nn.Conv1d(sizes[0], channels, 1))

    def forward(
        self,
        x: Float[Tensor, " b horizon channels"],
        t: Float[Tensor, " b"],
        cond: Float[Tensor, " b cond"] | None = None,
    ) -> Float[Tensor, " b horizon channels"]:
        """The network's value at noisy x, time label t and condition."""
        if x.shape[1] % self.stride:
            raise ValueError(
                f"horizon {x.shape[1]} is not divisible by {self.stride}: "
                "each level but the last halves it, so pad the horizon or give fewer multipliers"
            )
        mark = mish(_features(self.time(t), checked(cond, self.cond)))
        h = x.transpose(1, 2)
        skips: list[Tensor] = []
        for level, shrink in zip(self.down, [*self.shrink, None], strict=True):
            h = level(h, mark)
            skips.append(h)
            h = h if shrink is None else shrink(h)
        h = self.middle(h, mark)
        for level, grow in zip(self.up, self.grow, strict=True):
            h = grow(level(torch.cat((h, skips.pop()), dim=1), mark))
        return self.head(h).transpose(1, 2)


class TemporalEncoder(nn.Module):
    """The contracting half of the U-Net with one number per trajectory at its end: a value of noisy trajectories.

    It halves the horizon after every level, and twice more while its channels fall to a quarter; flattens, joins the
    time features, and ends in Linear - Mish - Linear. Those fix the horizon.
    Source: Janner et al. 2022 (2205.09991), Diffuser's value function.
    """

    def __init__(
        self,
        channels: int,
        horizon: int,
        *,
        width: int = 32,
        multipliers: Sequence[int] = (1, 2, 4, 8),
        kernel: int = 5,
        groups: int = 8,
        attention: bool = False,
        cond: int = 0,
    ) -> None:
        super().__init__()
        style = Style(width + cond, kernel=kernel, groups=groups, attention=attention, film=cond > 0)
        sizes = _sizes(width, multipliers, style, tail=2)
        tail = len(sizes) - 2
        self.cond, self.horizon = cond, horizon
        self.time = time_mlp(width, 4 * width)
        self.levels = nn.ModuleList(
            Level(a, b, style, depth=2 if i < tail else 1)
            for i, (a, b) in enumerate(zip([channels, *sizes[:-1]], sizes, strict=True))
        )
        self.shrink = nn.ModuleList(Conv(size, size, 3, stride=2) for size in sizes)
        for _ in sizes:
            horizon = (horizon + 1) // 2
        flat = sizes[-1] * horizon
        self.head = nn.Sequential(nn.Linear(flat + width + cond, flat // 2), Mish(), nn.Linear(flat // 2, 1))

    def forward(
        self,
        x: Float[Tensor, " b horizon channels"],
        t: Float[Tensor, " b"],
        cond: Float[Tensor, " b cond"] | None = None,
    ) -> Float[Tensor, " b"]:
        """The value of each noisy trajectory at its time label."""
        if x.shape[1] != self.horizon:
            raise ValueError(f"horizon {x.shape[1]}, but the network was built for {self.horizon}: build another one")
        features = _features(self.time(t), checked(cond, self.cond))
        mark = mish(features)
        h = x.transpose(1, 2)
        for level, shrink in zip(self.levels, self.shrink, strict=True):
            h = shrink(level(h, mark))
        return self.head(torch.cat((h.flatten(1), features), dim=1))[:, 0]


@dataclass(frozen=True)
class Style:
    """What all blocks of a network share; `mark` is the width of the time features and the condition together."""

    mark: int
    kernel: int = 5
    groups: int = 8
    attention: bool = False
    film: bool = False


class Level(nn.Module):
    """Residual blocks at one resolution, with attention after the first or the last where the style asks for it."""

    def __init__(
        self, inside: int, outside: int, style: Style, *, depth: int = 2, attend_between: bool = False
    ) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(ResidualBlock(outside if i else inside, outside, style) for i in range(depth))
        self.attention = LinearAttention(outside) if style.attention else None
        self.attend_after = 0 if attend_between else depth - 1

    def forward(
        self, h: Float[Tensor, " b inside time"], mark: Float[Tensor, " b mark"]
    ) -> Float[Tensor, " b outside time"]:
        """The features after all blocks."""
        for i, block in enumerate(self.blocks):
            h = block(h, mark)
            if self.attention is not None and i == self.attend_after:
                h = self.attention(h)
        return h


class ResidualBlock(nn.Module):
    """Two conv blocks with the mark (Mish of the time features and condition) between them, and a skip past both.

    The skip is a 1x1 convolution where the channels change.
    """

    def __init__(self, inside: int, outside: int, style: Style) -> None:
        super().__init__()
        self.first = ConvBlock(inside, outside, style)
        self.second = ConvBlock(outside, outside, style)
        self.mark = nn.Linear(style.mark, 2 * outside if style.film else outside)
        self.skip = nn.Conv1d(inside, outside, 1) if inside != outside else nn.Identity()
        self.film = style.film

    def forward(
        self, h: Float[Tensor, " b inside time"], mark: Float[Tensor, " b mark"]
    ) -> Float[Tensor, " b outside time"]:
        """skip(h) + second(first(h) + linear(mark)), or scale first(h) + shift within, with FiLM."""
        move = self.mark(mark)[:, :, None]
        if self.film:
            scale, shift = move.chunk(2, dim=1)
            inner = torch.addcmul(shift, scale, self.first(h))
        else:
            inner = self.first(h) + move
        return self.second(inner) + self.skip(h)


class ConvBlock(nn.Sequential):
    """Conv1d that keeps the length, GroupNorm, Mish."""

    def __init__(self, inside: int, outside: int, style: Style) -> None:
        super().__init__(Conv(inside, outside, style.kernel), GroupNorm(style.groups, outside), Mish())


class Conv(nn.Conv1d):
    """Conv1d with padding by half its kernel, without the work that a short or single trajectory would waste.

    Taps that only ever meet the padding are left out. For a few wide trajectories on a CPU, where torch falls back to a
    slow convolution (one of them) or lays out all weights anew on each call, it is a matrix product.
    """

    def __init__(self, inside: int, outside: int, kernel: int, *, stride: int = 1) -> None:
        super().__init__(inside, outside, kernel, stride=stride, padding=kernel // 2)

    def forward(self, input: Float[Tensor, " b inside time"]) -> Float[Tensor, " b outside shorter"]:
        """The convolved features."""
        half, stride = self.kernel_size[0] // 2, self.stride[0]
        reach = min(half, input.shape[2] - 1)
        weight = self.weight if reach == half else self.weight[:, :, half - reach : half + reach + 1]
        if not (input.is_cpu and eager() and self._few(len(input))):
            return functional.conv1d(input, weight, self.bias, stride=stride, padding=reach)
        windows = functional.pad(input, (reach, reach)).unfold(2, 2 * reach + 1, stride).transpose(1, 2)
        return functional.linear(windows.flatten(2), weight.flatten(1), self.bias).transpose(1, 2)

    def _few(self, b: int) -> bool:
        return 1 < b <= 4 or (b == 1 and self.in_channels * self.out_channels >= 8192)


class GroupNorm(nn.GroupNorm):
    """GroupNorm whose gradient stays quick on a CPU for the short trajectories of the deep levels.

    There torch's own is vectorised over time alone; normalising before the scale and shift runs over whole groups.
    """

    def forward(self, input: Float[Tensor, " b channels time"]) -> Float[Tensor, " b channels time"]:
        """The features, normalised within each group of channels over all times."""
        if not (1 < input.shape[2] < 8 and len(input) > 8 and input.is_cpu and eager() and torch.is_grad_enabled()):
            return super().forward(input)
        b, channels, time = input.shape
        normal = functional.group_norm(input.reshape(b, self.num_groups, -1), self.num_groups, eps=self.eps)
        scale, shift = (p[:, None].expand(-1, time).flatten() for p in (self.weight, self.bias))
        return torch.addcmul(shift, normal.view(b, -1), scale).view(b, channels, time)


class LinearAttention(nn.Module):
    """h + attention(LayerNorm over channels of h), at a cost linear in the horizon: keys are softmaxed over time.

    Source: Shen et al. 2021 (1812.01243), as used by Janner et al. 2022 (2205.09991): 4 heads of 32, and no softmax of
    the queries, which are scaled by 1 / sqrt(32).
    """

    def __init__(self, channels: int, *, heads: int = 4, size: int = 32) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)
        self.inward = nn.Conv1d(channels, 3 * heads * size, 1, bias=False)
        self.outward = nn.Conv1d(heads * size, channels, 1)
        self.heads, self.size = heads, size

    def forward(self, h: Float[Tensor, " b channels time"]) -> Float[Tensor, " b channels time"]:
        """The features plus what every time step reads from all of them."""
        normal = self.norm(h.transpose(1, 2)).transpose(1, 2)
        query, key, value = self.inward(normal).unflatten(1, (3, self.heads, self.size)).unbind(dim=1)
        context = torch.einsum("bhdt,bhet->bhde", key.softmax(dim=-1), value)
        read = torch.einsum("bhde,bhdt->bhet", context, query * self.size**-0.5)
        return h + self.outward(read.flatten(1, 2))


def _sizes(width: int, multipliers: Sequence[int], style: Style, *, tail: int = 0) -> list[int]:
    """Channels of the levels, followed by `tail` halvings of the last."""
    sizes = [width * m for m in multipliers]
    for _ in range(tail if sizes else 0):
        sizes.append(sizes[-1] // 2)
    if not sizes or min(sizes) < 1 or any(size % style.groups for size in sizes):
        raise ValueError(
            f"channels {sizes} must be divisible by {style.groups} groups: change width, multipliers or groups"
        )
    if style.kernel % 2 == 0:
        raise ValueError(f"kernel = {style.kernel} would change the length: give an odd one")
    return sizes


def _features(time: Tensor, cond: Tensor | None) -> Tensor:
    return time if cond is None else torch.cat((time, cond), dim=-1)
