"""Denoising networks for vectors: an action or a whole transition, with a condition beside it."""

from collections.abc import Callable
from functools import partial
from itertools import islice, pairwise
from typing import NamedTuple, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from ornstein.activation import activation as layer
from ornstein.nets.embed import LearnedFourier, RandomFourier, checked, time_mlp


class ConditionalMLP(nn.Module):
    """A plain network on [x, time features, condition]: `depth` layers of `width` and a linear head.

    `width` may also name the width of every layer, and `depth` is then their number.
    `time` is the width of the time features: sinusoid -> Linear 2 time -> activation -> Linear time.
    Source: Wang et al. 2023 (2208.06193), Diffusion-QL; 144,438 parameters for 17 observations and 6 actions.
    """

    def __init__(
        self, size: int, cond: int = 0, *, width: int | tuple[int, ...] = 256, depth: int = 3,
        activation: str = "mish", time: int = 16,
    ) -> None:  # fmt: skip
        super().__init__()
        widths = (width,) * depth if isinstance(width, int) else width
        if not widths:
            raise ValueError(f"a network of depth {len(widths)}: give at least one hidden layer")
        self.cond = cond
        self.time = time_mlp(time, 2 * time, activation=activation)
        layers: list[nn.Module] = []
        for inside, outside in pairwise((size + time + cond, *widths)):
            layers += [nn.Linear(inside, outside), layer(activation)]
        self.body = nn.Sequential(*layers, nn.Linear(widths[-1], size))

    def forward(
        self, x: Float[Tensor, " b size"], t: Float[Tensor, " b"], cond: Float[Tensor, " b cond"] | None = None
    ) -> Float[Tensor, " b size"]:
        """The network's value at noisy x, time label t and condition, in the parameterisation it is trained for."""
        return self.body(self.inputs(x, t, cond))

    def inputs(
        self, x: Float[Tensor, " b size"], t: Float[Tensor, " b"], cond: Float[Tensor, " b cond"] | None = None
    ) -> Float[Tensor, " b width"]:
        """What enters the first layer: x, time features and condition side by side."""
        return _join(x, self.time(t), checked(cond, self.cond))

    def at(
        self, t: Float[Tensor, " n"], cond: Float[Tensor, " b cond"] | None = None
    ) -> list[Callable[[Float[Tensor, " b size"]], Float[Tensor, " b size"]]]:
        """The network at each of these times and one condition, as functions of x: the rest is computed once, here."""
        first = cast("nn.Linear", self.body[0])
        size = cast("nn.Linear", self.body[-1]).out_features
        inward, timed, conditioned = first.weight.split((size, first.in_features - size - self.cond, self.cond), dim=1)
        fixed = functional.linear(self.time(t), timed, first.bias)
        if (known := checked(cond, self.cond)) is not None:
            fixed = fixed.unsqueeze(1) + functional.linear(known, conditioned)
        return [partial(self._from, base, inward.t()) for base in fixed.unbind()]

    def _from(self, base: Tensor, inward: Tensor, x: Tensor) -> Tensor:
        h = torch.addmm(base, x, inward)
        for part in islice(self.body, 1, None):
            h = part(h)
        return h


class ResidualMLP(nn.Module):
    """A wide residual network: [x, condition] -> `time` + time features -> `width`, blocks h + Linear(ReLU(h)), head.

    Source: Lu et al. 2023 (2303.06614), SynthER: width 2048, 6 blocks (25.5 M parameters), 8 random frequencies.
    """

    def __init__(
        self, size: int, cond: int = 0, *, width: int = 2048, blocks: int = 6, time: int = 128, frequencies: int = 8
    ) -> None:
        super().__init__()
        self.cond = cond
        self.project = nn.Linear(size + cond, time)
        self.time = nn.Sequential(
            RandomFourier(2 * frequencies), nn.Linear(2 * frequencies + 1, time), nn.SiLU(), nn.Linear(time, time)
        )
        self.first = nn.Linear(time, width)
        self.blocks = nn.ModuleList(nn.Linear(width, width) for _ in range(blocks))
        self.head = nn.Linear(width, size)

    def forward(
        self, x: Float[Tensor, " b size"], t: Float[Tensor, " b"], cond: Float[Tensor, " b cond"] | None = None
    ) -> Float[Tensor, " b size"]:
        """The network's value at noisy x, time label t and condition."""
        h = self.first(self.project(_join(x, checked(cond, self.cond))) + self.time(t))
        for block in self.blocks:
            h = h + block(functional.relu(h))
        return self.head(functional.relu(h))


class LayerNormResidualMLP(nn.Module):
    """A residual network with LayerNorm on [x, time features, condition].

    Linear `width`, blocks h + Linear(act(Linear(LayerNorm(dropout(h))))) with 4 `width` inside, activation, head.
    Dropout happens where the condition comes as `dropped`.
    Source: Hansen-Estruch et al. 2023 (2304.10573), IDQL: width 256, 3 blocks, dropout 0.1, 64 learned features.
    """

    def __init__(
        self, size: int, cond: int = 0, *, width: int = 256, blocks: int = 3, activation: str = "mish", time: int = 128,
        fourier: int = 64,
    ) -> None:  # fmt: skip
        super().__init__()
        self.cond = cond
        self.time = nn.Sequential(
            LearnedFourier(fourier), nn.Linear(fourier, time), layer(activation), nn.Linear(time, time)
        )
        self.first = nn.Linear(size + cond + time, width)
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.LayerNorm(width), nn.Linear(width, 4 * width), layer(activation), nn.Linear(4 * width, width)
            )
            for _ in range(blocks)
        )
        self.act = layer(activation)
        self.head = nn.Linear(width, size)
        for end in (self.first, self.head):
            nn.init.xavier_uniform_(end.weight)
            nn.init.zeros_(end.bias)

    def forward(
        self,
        x: Float[Tensor, " b size"],
        t: Float[Tensor, " b"],
        cond: "Float[Tensor, ' b cond'] | Dropped | None" = None,
    ) -> Float[Tensor, " b size"]:
        """The network's value at noisy x, time label t and condition."""
        known, factors = (cond.cond, cond.factor.unbind(1)) if isinstance(cond, Dropped) else (cond, None)
        h = self.first(_join(x, self.time(t), checked(known, self.cond)))
        for i, block in enumerate(self.blocks):
            h = h + block(h if factors is None else h * factors[i])
        return self.head(self.act(h))


class Dropped(NamedTuple):
    """A condition, and what dropout multiplies the input of each block by. Made by `dropped`."""

    cond: Float[Tensor, " b cond"] | None
    factor: Float[Tensor, " b blocks width"]


def dropped(cond: Float[Tensor, " b cond"] | None, uniform: Float[Tensor, " b blocks width"], rate: float) -> Dropped:
    """The condition with the draws of dropout: entries vanish where their number in [0, 1) is below `rate`, the others
    grow by 1 / (1 - rate).
    """
    if not 0 <= rate < 1:
        raise ValueError(f"a dropout rate of {rate}: give a share in [0, 1)")
    return Dropped(cond, (uniform >= rate).to(uniform.dtype) / (1 - rate))


def _join(*parts: Tensor | None) -> Tensor:
    return torch.cat([part for part in parts if part is not None], dim=-1)
