"""Values of observations and actions; an ensemble is one module whose weights carry the members in front."""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from ornstein.activation import activation as layer
from ornstein.types import Metrics


class Critics(nn.Module):
    """`n` independent networks Q_i(obs, action) as one batched module: `depth` hidden layers of `width`, a linear head.

    Weights are (n, in, out) and start with the law of nn.Linear. Two of 3 x 256 with Mish are Diffusion-QL's twin
    critic, 275,970 parameters for 17 observations and 6 actions. `layer_norm` normalises before each activation.
    Source: Fujimoto et al. 2018 (1802.09477) for the twins; Wang et al. 2023 (2208.06193) for the sizes.
    """

    def __init__(
        self, obs: int, act: int, *, n: int = 2, width: int = 256, depth: int = 3, activation: str = "mish",
        layer_norm: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        self.body = Ensemble(n, obs + act, width=width, depth=depth, activation=activation, layer_norm=layer_norm)

    def forward(self, obs: Float[Tensor, " *b obs"], action: Float[Tensor, " *b act"]) -> Float[Tensor, " n *b"]:
        """The value that each member gives to each pair."""
        return self.body(torch.cat((obs, action), dim=-1))


def candidate_values(
    critics: Critics, obs: Float[Tensor, " b obs"], action: Float[Tensor, " b k act"]
) -> Float[Tensor, " n b k"]:
    """Every member's value of every one of the `k` actions of a row."""
    return critics(obs.unsqueeze(1).expand(-1, action.shape[1], -1), action)


def regression(
    critics: Critics, obs: Float[Tensor, " b obs"], action: Float[Tensor, " b act"], target: Float[Tensor, " b"]
) -> tuple[Float[Tensor, ""], Metrics]:
    """The sum over members of their mean squared error against one target."""
    q = critics(obs, action)
    return (q - target).square().mean(1).sum(), {"q": q.mean(), "target": target.mean()}


def scaled_value(q: Float[Tensor, " 2 b"], coin: Float[Tensor, ""]) -> Float[Tensor, ""]:
    """The mean of Q_i over that of |Q_j|, detached: (i, j) is (1, 2) for a coin below 1/2, else (2, 1).

    What a policy climbs then has the size 1, whatever the scale of the rewards.
    Source: the official code of Wang et al. 2023 (2208.06193); section 4 of the paper divides by the mean of |Q| over
    the data instead.
    """
    mean, size = q.mean(1), q.detach().abs().mean(1)
    return torch.where(coin < 0.5, mean[0] / size[1], mean[1] / size[0])


class StateValues(nn.Module):
    """`n` independent networks V_i(obs) as one batched module, with values (n, b)."""

    def __init__(
        self, obs: int, *, n: int = 1, width: int = 256, depth: int = 2, activation: str = "relu",
        layer_norm: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        self.body = Ensemble(n, obs, width=width, depth=depth, activation=activation, layer_norm=layer_norm)

    def forward(self, obs: Float[Tensor, " *b obs"]) -> Float[Tensor, " n *b"]:
        """The value that each member gives to each observation."""
        return self.body(obs)


class Ensemble(nn.Module):
    """`n` networks of one size on one input, each ending in a scalar: x (*b, size) -> (n, *b)."""

    def __init__(self, n: int, size: int, *, width: int, depth: int, activation: str, layer_norm: bool = False) -> None:
        super().__init__()
        if n < 1 or depth < 1:
            raise ValueError(f"n = {n} members of depth {depth}: give at least one member and one hidden layer")
        layers: list[nn.Module] = []
        for inside in [size] + [width] * (depth - 1):
            layers += [BatchedLinear(n, inside, width), *([BatchedLayerNorm(n, width)] if layer_norm else [])]
            layers += [layer(activation)]
        self.hidden = nn.Sequential(*layers)
        self.head = BatchedLinear(n, width, 1)
        self.n = n

    def forward(self, x: Float[Tensor, " *b size"]) -> Float[Tensor, " n *b"]:
        """The scalar of each member for each row."""
        rows = x.reshape(-1, x.shape[-1])
        h = self.hidden(rows.expand(self.n, *rows.shape))
        # A product with one column costs several times this sum on a CPU.
        value = (h * self.head.weight.mT).sum(dim=-1) + self.head.bias[..., 0]
        return value.reshape(self.n, *x.shape[:-1])


class BatchedLinear(nn.Module):
    """`n` linear maps at once: x (n, b, in) -> (n, b, out), each started as nn.Linear starts its own."""

    def __init__(self, n: int, inside: int, outside: int) -> None:
        super().__init__()
        bound = 1 / math.sqrt(inside)
        self.weight = nn.Parameter(torch.empty(n, inside, outside).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(n, 1, outside).uniform_(-bound, bound))

    def forward(self, x: Float[Tensor, " n b inside"]) -> Float[Tensor, " n b outside"]:
        """x_i W_i + c_i for each member."""
        return torch.baddbmm(self.bias, x, self.weight)


class BatchedLayerNorm(nn.Module):
    """LayerNorm over the last axis with a scale and a shift for each of `n` members."""

    def __init__(self, n: int, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(n, 1, width))
        self.bias = nn.Parameter(torch.zeros(n, 1, width))

    def forward(self, x: Float[Tensor, " n b width"]) -> Float[Tensor, " n b width"]:
        """The normalised rows, scaled and shifted for each member."""
        return torch.addcmul(self.bias, functional.layer_norm(x, x.shape[-1:]), self.weight)
