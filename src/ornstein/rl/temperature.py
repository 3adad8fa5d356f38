"""The weight of entropy, learned so that a policy keeps a given amount of it."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ornstein.types import Metrics


class Temperature(nn.Module):
    """exp of one learned number. Source: Haarnoja et al. 2018 (1812.05905), section 5."""

    def __init__(self, first: float) -> None:
        super().__init__()
        self.log = nn.Parameter(torch.tensor([first]).log())

    def forward(self) -> Float[Tensor, ""]:
        """The temperature, detached."""
        return self.log.detach().exp()[0]

    def loss(self, entropy: Float[Tensor, " b"], target: float) -> tuple[Float[Tensor, ""], Metrics]:
        """The temperature times the mean of entropy - target, of which only the temperature has a gradient: it rises
        while the entropy is too low.

        Source: Christodoulou 2019 (1910.07207), eq. 11.
        """
        excess = (entropy - target).mean().detach()
        return self.log.exp()[0] * excess, {"temperature": self(), "entropy": entropy.mean().detach()}
