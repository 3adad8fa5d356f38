"""Denoising networks for vectors of scores, one per choice, with a bounded output."""

from collections.abc import Callable
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ornstein.nets.embed import Sinusoid
from ornstein.nets.mlp import ConditionalMLP

Head = Literal["tanh", "softmax", "none"]


class ScoreMLP(nn.Module):
    """`ConditionalMLP` on [scores, time features, condition] whose output is bounded by `head`.

    Bounded, because the last steps of a chain multiply what the network says, and unbounded scores saturate the softmax
    that is taken of them. `embed=False` uses the sinusoids of the time as they are.
    Source: Du et al. 2023 (2303.13052), D2SAC, by default: 92,228 parameters for 20 choices and 42 observations; Xu et
    al. 2025, FDEdge, with a softmax, 2 x 128 ReLU and bare sinusoids: 22,794 for 10 choices and 12 observations.
    """

    def __init__(
        self, size: int, cond: int, *, width: int = 256, depth: int = 2, activation: str = "mish", time: int = 16,
        embed: bool = True, head: Head = "tanh",
    ) -> None:  # fmt: skip
        super().__init__()
        self.body = ConditionalMLP(size, cond, width=width, depth=depth, activation=activation, time=time)
        if not embed:
            self.body.time = Sinusoid(time)  # pyright: ignore[reportAttributeAccessIssue]
        self.head = head

    def forward(
        self, x: Float[Tensor, " b size"], t: Float[Tensor, " b"], cond: Float[Tensor, " b cond"]
    ) -> Float[Tensor, " b size"]:
        """The network's value at scores x, time label t and condition."""
        return self._bounded(self.body(x, t, cond))

    def at(
        self, t: Float[Tensor, " n"], cond: Float[Tensor, " b cond"]
    ) -> list[Callable[[Float[Tensor, " b size"]], Float[Tensor, " b size"]]]:
        """The network at each of these times and one condition, as functions of x: the rest is computed once, here."""
        return [lambda x, inner=inner: self._bounded(inner(x)) for inner in self.body.at(t, cond)]

    def _bounded(self, x: Float[Tensor, " b size"]) -> Float[Tensor, " b size"]:
        return torch.tanh(x) if self.head == "tanh" else x.softmax(-1) if self.head == "softmax" else x
