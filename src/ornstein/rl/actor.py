"""Deterministic and Gaussian policies."""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ornstein.activation import activation as layer


class Actor(nn.Module):
    """A network obs -> `bound` tanh(.), an action in [-bound, bound], with `depth` hidden layers of `width`.

    Without `squash` it is linear at the end and has no bound.
    Source: Fujimoto, Gu 2021 (2106.06860), TD3+BC: 256-256 ReLU.
    """

    def __init__(
        self, obs: int, act: int, *, width: int = 256, depth: int = 2, activation: str = "relu", bound: float = 1.0,
        squash: bool = True,
    ) -> None:  # fmt: skip
        super().__init__()
        if depth < 1:
            raise ValueError(f"a network of depth {depth}: give at least one hidden layer")
        layers: list[nn.Module] = []
        for inside in [obs] + [width] * (depth - 1):
            layers += [nn.Linear(inside, width), layer(activation)]
        self.body = nn.Sequential(*layers, nn.Linear(width, act), *([nn.Tanh()] if squash else []))
        self.bound = bound

    def forward(self, obs: Float[Tensor, " *b obs"]) -> Float[Tensor, " *b act"]:
        """The action for each observation."""
        return self.bound * self.body(obs)


class GaussianActor(nn.Module):
    """The law N(tanh(.), std^2) of an action, with one std per entry for all observations, held in [e^-5, e^2].

    Source: Kostrikov et al. 2022 (2110.06169), IQL, official code.
    """

    def __init__(self, obs: int, act: int, *, width: int = 256, depth: int = 2, activation: str = "relu") -> None:
        super().__init__()
        self.mean = Actor(obs, act, width=width, depth=depth, activation=activation)
        self.log_std = nn.Parameter(torch.zeros(act))

    def forward(self, obs: Float[Tensor, " *b obs"]) -> Float[Tensor, " *b act"]:
        """The mean."""
        return self.mean(obs)

    def log_prob(self, obs: Float[Tensor, " *b obs"], action: Float[Tensor, " *b act"]) -> Float[Tensor, " *b"]:
        """The log-density of each action."""
        log_std = self.log_std.clamp(-5.0, 2.0)
        z = (action - self.mean(obs)) * torch.exp(-log_std)
        return -(0.5 * z.square() + log_std + 0.5 * math.log(2 * math.pi)).sum(-1)
