"""Diffuser's locomotion planner (Janner et al. 2022, 2205.09991) as its released code writes a guided plan."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from benchmarks.usual.diffusion import Chain, Normal, cosine_betas, extract, time_network


class Norm(nn.GroupNorm):
    """Group normalisation on four axes, as the released code has it."""

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input[:, :, None, :])[:, :, 0, :]


class ConvBlock(nn.Module):
    """Convolution, GroupNorm, Mish."""

    def __init__(self, inside: int, outside: int) -> None:
        super().__init__()
        self.block = nn.Sequential(nn.Conv1d(inside, outside, 5, padding=2), Norm(8, outside), nn.Mish())

    def forward(self, x: Tensor) -> Tensor:
        return self.block(x)


class ResidualBlock(nn.Module):
    """Two convolution blocks with the step between them."""

    def __init__(self, inside: int, outside: int, time: int) -> None:
        super().__init__()
        self.first, self.second = ConvBlock(inside, outside), ConvBlock(outside, outside)
        self.time = nn.Sequential(nn.Mish(), nn.Linear(time, outside))
        self.skip = nn.Conv1d(inside, outside, 1) if inside != outside else nn.Identity()

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        return self.second(self.first(x) + self.time(time)[:, :, None]) + self.skip(x)


class UNet(nn.Module):
    """The denoiser: trajectories (b, horizon, channels)."""

    def __init__(self, channels: int, width: int = 32, multipliers: Sequence[int] = (1, 2, 4, 8)) -> None:
        super().__init__()
        sizes = [width * m for m in multipliers]
        self.time = time_network(width, 4 * width)
        self.down = nn.ModuleList()
        for i, (a, b) in enumerate(pairwise([channels, *sizes])):
            shrink = nn.Conv1d(b, b, 3, 2, 1) if i < len(sizes) - 1 else nn.Identity()
            self.down.append(nn.ModuleList([ResidualBlock(a, b, width), ResidualBlock(b, b, width), shrink]))
        self.middle = nn.ModuleList(ResidualBlock(sizes[-1], sizes[-1], width) for _ in range(2))
        self.up = nn.ModuleList()
        for a, b in reversed(list(pairwise(sizes))):
            grow = nn.ConvTranspose1d(a, a, 4, 2, 1)
            self.up.append(nn.ModuleList([ResidualBlock(2 * b, a, width), ResidualBlock(a, a, width), grow]))
        self.last = nn.Sequential(ConvBlock(width, width), nn.Conv1d(width, channels, 1))

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        x, time, skips = x.permute(0, 2, 1), self.time(t), []
        for first, second, shrink in self.down:  # pyright: ignore[reportGeneralTypeIssues]
            x = second(first(x, time), time)
            skips.append(x)
            x = shrink(x)
        for block in self.middle:
            x = block(x, time)
        for first, second, grow in self.up:  # pyright: ignore[reportGeneralTypeIssues]
            x = torch.cat((x, skips.pop()), dim=1)
            x = grow(second(first(x, time), time))
        return self.last(x).permute(0, 2, 1)


class Value(nn.Module):
    """The value of a noisy trajectory, by the contracting half of such a network."""

    def __init__(self, channels: int, horizon: int, width: int = 32, multipliers: Sequence[int] = (1, 2, 4, 8)) -> None:
        super().__init__()
        sizes = [width * m for m in multipliers]
        self.time = time_network(width, 4 * width)
        self.down = nn.ModuleList(
            nn.ModuleList([ResidualBlock(a, b, width), ResidualBlock(b, b, width), nn.Conv1d(b, b, 3, 2, 1)])
            for a, b in pairwise([channels, *sizes])
        )
        tail = [sizes[-1], sizes[-1] // 2, sizes[-1] // 4]
        self.middle = nn.ModuleList(
            nn.ModuleList([ResidualBlock(a, b, width), nn.Conv1d(b, b, 3, 2, 1)]) for a, b in pairwise(tail)
        )
        for _ in range(len(sizes) + 2):
            horizon = (horizon + 1) // 2
        flat = tail[-1] * horizon
        self.last = nn.Sequential(nn.Linear(flat + width, flat // 2), nn.Mish(), nn.Linear(flat // 2, 1))

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        x, time = x.permute(0, 2, 1), self.time(t)
        for first, second, shrink in self.down:  # pyright: ignore[reportGeneralTypeIssues]
            x = shrink(second(first(x, time), time))
        for block, shrink in self.middle:  # pyright: ignore[reportGeneralTypeIssues]
            x = shrink(block(x, time))
        return self.last(torch.cat([x.view(len(x), -1), time], dim=-1)).squeeze(-1)

    def gradients(self, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """The values, and their gradient at the trajectories."""
        x.requires_grad_()
        value = self(x, t)
        gradient = torch.autograd.grad([value.sum()], [x])[0]
        x.detach()
        return value.detach(), gradient


class Planner:
    """Guided sampling of trajectories from the present state; actions come first in a row."""

    def __init__(
        self, obs: int, act: int, *, horizon: int = 32, steps: int = 20, width: int = 32, scale: float = 0.1
    ) -> None:
        self.act, self.horizon, self.scale = act, horizon, scale
        self.network, self.value = UNet(act + obs, width), Value(act + obs, horizon, width)
        self.chain = Chain(cosine_betas(steps))

    def plan(self, obs: Tensor, candidates: int = 64, normal: Normal = torch.randn_like) -> Tensor:
        """The candidates from one state (obs,), the best first."""
        x, values = self.sample(obs, candidates, normal)
        return x[torch.argsort(values, descending=True)]

    def sample(self, obs: Tensor, candidates: int, normal: Normal = torch.randn_like) -> tuple[Tensor, Tensor]:
        """The candidates, and their values before the last reverse step."""
        x = normal(torch.empty(candidates, self.horizon, self.act + len(obs)))
        x = self.hold(x, obs)
        values = torch.zeros(candidates)
        for i in reversed(range(self.chain.steps)):
            t = torch.full((candidates,), i, dtype=torch.long)
            x, values = self.step(x, t, obs, normal)
            x = self.hold(x, obs)
        return x, values

    def step(self, x: Tensor, t: Tensor, obs: Tensor, normal: Normal) -> tuple[Tensor, Tensor]:
        """Two moves up the value, then one reverse step."""
        variance = torch.exp(extract(self.chain.log_variance, t, x.shape))
        value = torch.zeros(len(x))
        for _ in range(2):
            with torch.enable_grad():
                value, gradient = self.value.gradients(x, t)
            gradient = variance * gradient
            gradient[t < 2] = 0
            x = x.detach() + self.scale * gradient
            x = self.hold(x, obs)
        with torch.no_grad():
            return self.chain.back(x, self.network(x, t), t, normal), value

    def hold(self, x: Tensor, obs: Tensor) -> Tensor:
        """The first state overwritten by the present one."""
        x[:, 0, self.act :] = obs.clone()
        return x
