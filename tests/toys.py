"""A small learner with two networks, a target and noise: enough to exercise every part of the training loop."""

from collections.abc import Mapping
from copy import deepcopy
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from ornstein.noise import draw, generator
from ornstein.types import Adam, Average, Descend, Draw, Metrics, Noise, Phase, Transitions


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


FAST = Adam(1e-2, clip=1.0, schedule="cosine", warmup=3)


class Two(nn.Module):
    """A regressor, a follower of it trained through it, and an averaged copy that feeds the follower's target."""

    def __init__(self, *, adam: Adam = FAST, every: int = 2, width: int = 8) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Linear(3, width), nn.SiLU(), nn.Linear(width, 1))
        self.second = nn.Linear(3, 1)
        self.average = deepcopy(self.first).requires_grad_(False)
        self.adam, self.every = adam, every

    def phases(self) -> tuple[Phase, ...]:
        coin = {"coin": Draw("uniform", per="update")}
        return (
            Descend("first", self.first, self.first_loss, self.adam, {"eps": Draw("normal", (3,))}),
            Descend("second", self.second, self.second_loss, Adam(3e-3), coin, every=self.every),
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


class Line(nn.Module):
    """y = w x + b with one phase whose settings a test chooses, and an average of it if asked for."""

    def __init__(self, adam: Adam, *, average: Mapping[str, Any] | None = None) -> None:
        super().__init__()
        self.line = nn.Linear(3, 1)
        self.mean = deepcopy(self.line).requires_grad_(False)
        self.adam, self.average = adam, average

    def phases(self) -> tuple[Phase, ...]:
        descend = Descend("line", self.line, self.loss, self.adam, {})
        return (descend,) if self.average is None else (descend, Average(self.mean, self.line, **self.average))

    def loss(self, batch: Rows, noise: Noise) -> tuple[Tensor, Metrics]:
        return (self.line(batch.x).squeeze(-1) - batch.y).square().mean(), {}


def learners(count: int, *, dtype: torch.dtype = torch.float32, **options: Any) -> list[Two]:
    """Learners with first weights of their own."""
    found = []
    for seed in range(count):
        torch.manual_seed(seed)
        found.append(Two(**options).to(dtype))
    return found


def batch_and_noise(seeds: int | None, rows: int = 16, *, step: int = 0, dtype: torch.dtype = torch.float32) -> Any:
    """A batch and the noise of both phases of `Two`, with a leading seed axis if `seeds` is given."""
    source = torch.Generator().manual_seed(step)
    lead = () if seeds is None else (seeds,)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*lead, *shape, generator=source, dtype=dtype)

    x = normal(rows, 3)
    noises = {"first": {"eps": normal(rows, 3)}, "second": {"coin": torch.rand(lead, generator=source, dtype=dtype)}}
    return Rows(x, x.sum(-1) + 0.1 * normal(rows)), noises


def row(batch: Any, noises: Any, i: int) -> Any:
    """The batch and noise of one seed."""
    return type(batch)(*(field[i] for field in batch)), {p: {n: d[i] for n, d in e.items()} for p, e in noises.items()}


def weights(learner: nn.Module) -> dict[str, Tensor]:
    """A copy of the learner's weights."""
    return {name: tensor.detach().clone() for name, tensor in learner.state_dict().items()}


def distance(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> float:
    """The largest difference of two sets of weights."""
    assert a.keys() == b.keys()
    return max(float((a[name] - b[name]).abs().max()) for name in a)


def steps_of(rows: int, *, obs: int = 3, act: int = 2) -> Transitions:
    """Random transitions without ends, actions in [-1, 1]."""
    g = generator("batch")
    normal = lambda *shape: torch.randn(*shape, generator=g)  # noqa: E731
    return Transitions(
        normal(rows, obs), normal(rows, act).clamp(-1, 1), normal(rows), normal(rows, obs), torch.zeros(rows),
        torch.full((rows,), 0.99),
    )  # fmt: skip


def phase_noise(learner: Any, name: str, rows: int) -> dict[str, Tensor]:
    """A draw of what the phase of this name declares."""
    (phase,) = [p for p in learner.phases() if isinstance(p, Descend) and p.name == name]
    return dict(draw(phase.noise, rows, generator("noise", name)))
