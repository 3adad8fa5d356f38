"""Fitted-Q evaluation: the value of a policy that is not to be run, from data that others recorded."""

from copy import deepcopy
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ornstein.rl.critic import Critics
from ornstein.rl.target import td_target
from ornstein.types import Adam, Average, Descend, Metrics, Noise, Phase


class Followed(NamedTuple):
    """A batch of steps, each with k actions that the policy would take at the next observation."""

    obs: Float[Tensor, " b obs"]
    action: Float[Tensor, " b act"]
    reward: Float[Tensor, " b"]
    next_obs: Float[Tensor, " b obs"]
    next_action: Float[Tensor, " b k act"]
    terminal: Float[Tensor, " b"]
    discount: Float[Tensor, " b"]


class FittedQ(nn.Module):
    """Q of one fixed policy, regressed on r + discount (1 - terminal) mean_k Q'(s', a_k).

    Q' follows Q by the share `rate` per update: the time that a reward needs to reach a state n steps before it is
    about n / rate updates. Inputs of unit size and rewards of about 1 - discount suit the learning rate.
    Source: Le et al. 2019 (1903.08738), FQE; Paine et al. 2020 (2007.09055) for ranking policies by it.
    """

    def __init__(
        self, obs: int, act: int, *, width: int = 256, depth: int = 2, lr: float = 1e-3, rate: float = 0.02
    ) -> None:
        super().__init__()
        self.q = Critics(obs, act, n=1, width=width, depth=depth, activation="silu")
        self.q_target = deepcopy(self.q).requires_grad_(False)
        self.lr, self.rate = lr, rate

    def phases(self) -> tuple[Phase, ...]:
        """The regression, then the target."""
        return (
            Descend("q", self.q, self.loss, Adam(self.lr, schedule="cosine"), {}),
            Average(self.q_target, self.q, self.rate),
        )

    def loss(self, batch: Followed, noise: Noise) -> tuple[Float[Tensor, ""], Metrics]:
        """The mean squared error against the target."""
        with torch.no_grad():
            next_obs = batch.next_obs.unsqueeze(1).expand(-1, batch.next_action.shape[1], -1)
            next_value = self.q_target(next_obs, batch.next_action)[0].mean(1)
            target = td_target(batch.reward, batch.terminal, batch.discount, next_value)
        q = self.q(batch.obs, batch.action)[0]
        return (q - target).square().mean(), {"value": q.mean()}

    def value(self, obs: Float[Tensor, " b obs"], action: Float[Tensor, " b k act"]) -> Float[Tensor, " b"]:
        """The mean Q of k actions at each observation."""
        return self.q(obs.unsqueeze(1).expand(-1, action.shape[1], -1), action)[0].mean(1)
