"""The price of a constraint, learned: a Lagrange multiplier on a cost that must not exceed a limit."""

import torch
from jaxtyping import Float
from torch import Tensor, nn


class Multiplier(nn.Module):
    """The dual variable of `cost <= limit`: its own gradient step raises it while the cost is above the limit.

    It stays in [least, largest] to within a few steps of the optimiser: at an end, what would push it further out has
    no gradient. `start` lies between them.
    """

    def __init__(self, start: float, limit: float, *, least: float = 0.0, largest: float = 100.0) -> None:
        super().__init__()
        if not least <= start <= largest:
            raise ValueError(
                f"a multiplier that starts at {start} must lie in [{least}, {largest}]: change one of them"
            )
        self.value = nn.Parameter(torch.tensor([float(start)]))
        self.limit, self.least, self.largest = limit, least, largest

    def forward(self) -> Float[Tensor, ""]:
        """The multiplier, in its range and detached: what the cost is multiplied by."""
        return self.value.detach().clamp(self.least, self.largest)[0]

    def loss(self, cost: Float[Tensor, ""]) -> Float[Tensor, ""]:
        """(limit - cost) multiplier, the cost detached: descending it is the ascent of the dual problem."""
        slack, value = (self.limit - cost).detach(), self.value.detach()[0]
        outward = ((slack > 0) & (value <= self.least)) | ((slack < 0) & (value >= self.largest))
        return slack.masked_fill(outward, 0.0) * self.value[0]
