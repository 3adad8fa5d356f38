"""A small learner with two networks, a target and noise: enough to exercise every part of the training loop."""

from copy import deepcopy
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from ornstein.types import Adam, Average, Descend, Draw, Metrics, Noise, Phase


class Rows(NamedTuple):
    """A regression batch."""

    x: Tensor
    y: Tensor


class Table:
    """A regression data set of `rows` rows: y = sum(x) + noise, some entry NaN if asked for."""

    def __init__(self, rows: int = 256, seed: int = 0, *, nan_at: int | None = None) -> None:
        source = torch.Generator().manual_seed(seed)
        self.x = torch.randn(rows, 3, generator=source)
        self.y = self.x.sum(1) + 0.1 * torch.randn(rows, generator=source)
        if nan_at is not None:
            self.y[nan_at] = torch.nan

    def __len__(self) -> int:
        return len(self.x)

    def gather(self, index: Tensor) -> Rows:
        return Rows(self.x[index], self.y[index])

    def to(self, where: Any) -> "Table":
        self.x, self.y = self.x.to(where), self.y.to(where)
        return self


class Two(nn.Module):
    """A regressor, a follower of it trained through it, and an averaged copy that feeds the follower's target."""

    def __init__(self, *, clip: float = 1.0, every: int = 2, accumulate: int = 1) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Linear(3, 8), nn.SiLU(), nn.Linear(8, 1))
        self.second = nn.Linear(3, 1)
        self.average = deepcopy(self.first).requires_grad_(False)
        self.clip, self.every, self.accumulate = clip, every, accumulate
        self.blow_up_at: float | None = None

    def phases(self) -> tuple[Phase, ...]:
        fast = Adam(1e-2, clip=self.clip, schedule="cosine", warmup=3, accumulate=self.accumulate)
        return (
            Descend("first", self.first, self.first_loss, fast, {"eps": Draw("normal", (3,))}),
            Descend("second", self.second, self.second_loss, Adam(3e-3), {"coin": Draw("uniform", per="update")}, every=self.every),
            Average(self.average, self.first, 0.05, every=2, after=4, before="copy"),
        )

    def first_loss(self, batch: Rows, noise: Noise) -> tuple[Tensor, Metrics]:
        error = self.first(batch.x + 0.1 * noise["eps"]).squeeze(-1) - batch.y
        return error.square().mean(), {"bias": error.mean()}

    def second_loss(self, batch: Rows, noise: Noise) -> tuple[Tensor, Metrics]:
        with torch.no_grad():
            target = self.average(batch.x).squeeze(-1)
        own = self.second(batch.x).squeeze(-1)
        through = self.first(batch.x).squeeze(-1)
        value = torch.where(noise["coin"] < 0.5, functional.mse_loss(own, target), functional.mse_loss(own, through))
        return value, {}
