"""A denoising network that also says what its condition was."""

from collections.abc import Callable

from jaxtyping import Float
from torch import Tensor, nn

from ornstein.activation import activation as layer
from ornstein.nets.mlp import ConditionalMLP


class ReconstructingMLP(nn.Module):
    """A ConditionalMLP with a second head on its trunk, which reconstructs the condition.

    The trunk has the widths of `trunk`; with `head`, each head has a hidden layer of that width of its own. To those
    who sample it is the ConditionalMLP `main`: the second head is used by `both` alone.
    Source: Ada, Oztop, Ugur 2024 (2307.04726), section III.
    """

    def __init__(
        self, size: int, cond: int, *, trunk: tuple[int, ...] = (256, 256, 256), head: int = 0,
        activation: str = "mish", time: int = 16,
    ) -> None:  # fmt: skip
        super().__init__()
        widths = (*trunk, head) if head else trunk
        self.main = ConditionalMLP(size, cond, width=widths, activation=activation, time=time)
        self.tap = 2 * len(trunk)  # layers of the trunk, activations counted
        hidden = [nn.Linear(trunk[-1], head), layer(activation)] if head else []
        self.second = nn.Sequential(*hidden, nn.Linear(widths[-1], cond))

    def forward(
        self, x: Float[Tensor, " b size"], t: Float[Tensor, " b"], cond: Float[Tensor, " b cond"] | None = None
    ) -> Float[Tensor, " b size"]:
        """The main head's value."""
        return self.main(x, t, cond)

    def at(
        self, t: Float[Tensor, " n"], cond: Float[Tensor, " b cond"] | None = None
    ) -> list[Callable[[Float[Tensor, " b size"]], Float[Tensor, " b size"]]]:
        """The main head at each of these times and one condition, as functions of x."""
        return self.main.at(t, cond)

    def both(
        self, x: Float[Tensor, " b size"], t: Float[Tensor, " b"], cond: Float[Tensor, " b cond"]
    ) -> tuple[Float[Tensor, " b size"], Float[Tensor, " b cond"]]:
        """The main head's value and the reconstructed condition, from one pass through the trunk."""
        features = self.main.body[: self.tap](self.main.inputs(x, t, cond))
        return self.main.body[self.tap :](features), self.second(features)
