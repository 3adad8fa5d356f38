"""Deterministic policies."""

from jaxtyping import Float
from torch import Tensor, nn

from ornstein.activation import activation as layer


class Actor(nn.Module):
    """A network obs -> `bound` tanh(.), an action in [-bound, bound], with `depth` hidden layers of `width`.

    Source: Fujimoto, Gu 2021 (2106.06860), TD3+BC: 256-256 ReLU.
    """

    def __init__(
        self, obs: int, act: int, *, width: int = 256, depth: int = 2, activation: str = "relu", bound: float = 1.0
    ) -> None:
        super().__init__()
        if depth < 1:
            raise ValueError(f"a network of depth {depth}: give at least one hidden layer")
        layers: list[nn.Module] = []
        for inside in [obs] + [width] * (depth - 1):
            layers += [nn.Linear(inside, width), layer(activation)]
        self.body = nn.Sequential(*layers, nn.Linear(width, act), nn.Tanh())
        self.bound = bound

    def forward(self, obs: Float[Tensor, " *b obs"]) -> Float[Tensor, " *b act"]:
        """The action for each observation."""
        return self.bound * self.body(obs)
