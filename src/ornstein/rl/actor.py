"""Deterministic, Gaussian and mixture policies."""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ornstein.activation import activation as layer
from ornstein.rl.select import draw_by_value


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


class MixtureActor(nn.Module):
    """The law sum_k w_k N(m_k, s_k^2) of an action, all of it by one network of the observation; s_k in [e^-5, e^2].

    Source: Bishop 1994, Mixture Density Networks; Mandlekar et al. 2021 (2108.03298) for the means inside tanh.
    """

    def __init__(
        self, obs: int, act: int, *, components: int = 5, width: int = 256, depth: int = 2, activation: str = "relu"
    ) -> None:
        super().__init__()
        if components < 1:
            raise ValueError(f"a mixture of {components} components: give at least one")
        self.components, self.act = components, act
        self.body = Actor(
            obs, components * (1 + 2 * act), width=width, depth=depth, activation=activation, squash=False
        )

    def forward(
        self, obs: Float[Tensor, " *b obs"]
    ) -> tuple[Float[Tensor, " *b k"], Float[Tensor, " *b k act"], Float[Tensor, " *b k act"]]:
        """Log-weights, means in [-1, 1] and log standard deviations of the components."""
        k, act = self.components, self.act
        weight, mean, log_std = self.body(obs).split((k, k * act, k * act), dim=-1)
        return weight.log_softmax(-1), mean.unflatten(-1, (k, act)).tanh(), log_std.unflatten(-1, (k, act)).clamp(-5, 2)

    def log_prob(self, obs: Float[Tensor, " *b obs"], action: Float[Tensor, " *b act"]) -> Float[Tensor, " *b"]:
        """The log-density of each action."""
        weight, mean, log_std = self(obs)
        z = (action.unsqueeze(-2) - mean) * torch.exp(-log_std)
        inside = -(0.5 * z.square() + log_std + 0.5 * math.log(2 * math.pi)).sum(-1)
        return torch.logsumexp(weight + inside, dim=-1)

    def sample(
        self, obs: Float[Tensor, " b obs"], uniform: Float[Tensor, " b k"], normal: Float[Tensor, " b act"]
    ) -> Float[Tensor, " b act"]:
        """One action a row: a component drawn by its weight with the uniform numbers, and a normal draw of it; zeros
        for `normal` give the component's mean.
        """
        weight, mean, log_std = self(obs)
        return draw_by_value(mean + log_std.exp() * normal.unsqueeze(-2), weight, uniform)


class SquashedGaussianActor(nn.Module):
    """The law tanh(N(m, s^2)) of an action, mean and std by one network of the observation; s in [e^-5, e^2].

    Source: Haarnoja et al. 2018 (1812.05905), SAC, appendix C.
    """

    def __init__(self, obs: int, act: int, *, width: int = 256, depth: int = 2, activation: str = "relu") -> None:
        super().__init__()
        self.body = Actor(obs, 2 * act, width=width, depth=depth, activation=activation, squash=False)

    def forward(self, obs: Float[Tensor, " *b obs"]) -> Float[Tensor, " *b act"]:
        """The action of the mean before the tanh."""
        return self.body(obs).chunk(2, dim=-1)[0].tanh()

    def sample(
        self, obs: Float[Tensor, " *b obs"], normal: Float[Tensor, " *b act"]
    ) -> tuple[Float[Tensor, " *b act"], Float[Tensor, " *b"]]:
        """An action from each row of unit noise, differentiable, and its log-density.

        log(1 - tanh(u)^2) is 2 (log 2 - u - softplus(-2 u)), which does not lose the digits of large u.
        """
        mean, log_std = self.body(obs).chunk(2, dim=-1)
        log_std = log_std.clamp(-5.0, 2.0)
        u = mean + log_std.exp() * normal
        log_prob = -(0.5 * normal.square() + log_std + 0.5 * math.log(2 * math.pi))
        slope = 2 * (math.log(2) - u - nn.functional.softplus(-2 * u))
        return u.tanh(), (log_prob - slope).sum(-1)
