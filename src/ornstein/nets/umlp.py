"""Networks of behaviour models in continuous time: a residual one that narrows and widens, and a scalar beside it."""

from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from ornstein.nets.embed import RandomFourier, checked


class UShapedMLP(nn.Module):
    """Residual blocks of `width`, width / 2, width / 4, then back with skips, each told of time and condition.

    Time becomes `time` random sines and cosines of scale 30, the condition a layer of `time`; both give an embedding of
    4 `time` that enters every block. A block is h = SiLU(A x) + B SiLU(e), then SiLU(C h) + D x.
    Source: Chen et al. 2023 (2209.14548), SfBC, official code; Lu et al. 2023 (2304.12824), QGPO, has the same.
    """

    def __init__(self, size: int, cond: int = 0, *, width: int = 512, time: int = 32) -> None:
        super().__init__()
        if width % 4:
            raise ValueError(f"width = {width} is halved twice: give a multiple of 4")
        self.cond = cond
        self.time = _time(time)
        self.known = nn.Sequential(nn.Linear(cond, time), nn.SiLU()) if cond else None
        inside, wide, middle, narrow = 4 * time, width, width // 2, width // 4
        self.embed = nn.Sequential(nn.Linear(2 * time if cond else time, inside), nn.SiLU(), nn.Linear(inside, inside))
        self.down = nn.ModuleList(
            (_Block(size, wide, inside), _Block(wide, middle, inside), _Block(middle, narrow, inside))
        )
        self.bottom = _Block(narrow, narrow, inside)
        self.up = nn.ModuleList((_Block(2 * narrow, middle, inside), _Block(2 * middle, wide, inside)))
        self.head = nn.Linear(2 * wide, size)

    def forward(
        self, x: Float[Tensor, " b size"], t: Float[Tensor, " b"], cond: Float[Tensor, " b cond"] | None = None
    ) -> Float[Tensor, " b size"]:
        """The network's value at noisy x, time and condition."""
        given, features = checked(cond, self.cond), self.time(t)
        if given is not None:
            features = torch.cat((features, cast("nn.Module", self.known)(given)), dim=-1)
        told = functional.silu(self.embed(features))
        passed: list[Tensor] = []
        for block in self.down:
            x = block(x, told)
            passed.append(x)
        x = self.bottom(x, told)
        for block in self.up:
            x = block(torch.cat((x, passed.pop()), dim=-1), told)
        return self.head(torch.cat((x, passed.pop()), dim=-1))


class ScalarMLP(nn.Module):
    """One number for noisy x, a time and a condition: `depth` layers of `width` with SiLU on [x, time features, cond].

    Source: Lu et al. 2023 (2304.12824), QGPO, official code: 4 layers of 256 and 32 time features of scale 30.
    """

    def __init__(self, size: int, cond: int = 0, *, width: int = 256, depth: int = 4, time: int = 32) -> None:
        super().__init__()
        self.cond = cond
        self.time = _time(time)
        layers: list[nn.Module] = []
        for inside in [size + time + cond] + [width] * (depth - 1):
            layers += [nn.Linear(inside, width), nn.SiLU()]
        self.body = nn.Sequential(*layers, nn.Linear(width, 1))

    def forward(
        self, x: Float[Tensor, " b size"], t: Float[Tensor, " b"], cond: Float[Tensor, " b cond"] | None = None
    ) -> Float[Tensor, " b"]:
        """The number of each row."""
        given = checked(cond, self.cond)
        parts = (x, self.time(t)) if given is None else (x, self.time(t), given)
        return self.body(torch.cat(parts, dim=-1))[:, 0]


class _Block(nn.Module):
    def __init__(self, inside: int, outside: int, told: int) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(inside, outside), nn.Linear(outside, outside)
        self.told = nn.Linear(told, outside)
        self.short = nn.Identity() if inside == outside else nn.Linear(inside, outside)

    def forward(self, x: Tensor, told: Tensor) -> Tensor:
        h = functional.silu(self.first(x)) + self.told(told)
        return functional.silu(self.second(h)) + self.short(x)


def _time(size: int) -> nn.Sequential:
    return nn.Sequential(RandomFourier(size, scale=30.0, linear=False), nn.Linear(size, size))
