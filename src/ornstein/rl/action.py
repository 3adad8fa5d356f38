"""Between the environment's action box and the unit box [-1, 1] in which policies work."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ornstein.types import Spaces


class ActionBox(nn.Module):
    """The affine map between an environment's action bounds and [-1, 1]; the identity where they are the same."""

    middle: Tensor
    reach: Tensor

    def __init__(self, spaces: Spaces) -> None:
        super().__init__()
        low, high = torch.tensor(spaces.action_low), torch.tensor(spaces.action_high)
        if not bool((low < high).all()):
            raise ValueError(
                f"action bounds {spaces.action_low} and {spaces.action_high}: each low must be below its high"
            )
        self.register_buffer("middle", (low + high) / 2)
        self.register_buffer("reach", (high - low) / 2)

    def to_unit(self, action: Float[Tensor, " *b act"]) -> Float[Tensor, " *b act"]:
        """An action of the environment in [-1, 1]."""
        return (action - self.middle) / self.reach

    def to_env(self, action: Float[Tensor, " *b act"]) -> Float[Tensor, " *b act"]:
        """An action of [-1, 1] in the environment's units, clipped to its box."""
        return self.middle + self.reach * action.clamp(-1.0, 1.0)
