"""Inverse dynamics: the action that leads from one observation to the next."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ornstein.activation import activation as layer


class InverseDynamics(nn.Module):
    """A network (obs, next_obs) -> action with `depth` hidden layers of `width`.

    Source: Ajay et al. 2023 (2211.15657), Decision Diffuser: 256-256 ReLU in the released code (512 in the paper).
    """

    def __init__(self, obs: int, act: int, *, width: int = 256, depth: int = 2, activation: str = "relu") -> None:
        super().__init__()
        if depth < 1:
            raise ValueError(f"a network of depth {depth}: give at least one hidden layer")
        layers: list[nn.Module] = []
        for inside in [2 * obs] + [width] * (depth - 1):
            layers += [nn.Linear(inside, width), layer(activation)]
        self.body = nn.Sequential(*layers, nn.Linear(width, act))

    def forward(self, obs: Float[Tensor, " *b obs"], next_obs: Float[Tensor, " *b obs"]) -> Float[Tensor, " *b act"]:
        """The action between each observation and its successor."""
        return self.body(torch.cat((obs, next_obs), dim=-1))
