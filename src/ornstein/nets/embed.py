"""What enters a network beside x: features of diffusion time, and conditions of the right width."""

import math

import torch
from jaxtyping import Float
from torch import Generator, Tensor, nn

from ornstein.activation import activation as layer


class Sinusoid(nn.Module):
    """Sines, then cosines, of t at `size / 2` frequencies that fall geometrically from 1 to 1 / 10000.

    Source: the released code of Janner et al. 2022 (2205.09991) and Wang et al. 2023 (2208.06193), which divides the
    exponent by size / 2 - 1, not by size / 2 as Vaswani et al. 2017; so `size` must be at least 4.
    """

    frequency: Tensor

    def __init__(self, size: int) -> None:
        super().__init__()
        if size < 4 or size % 2:
            raise ValueError(f"a sinusoid of size {size}: give an even size of at least 4")
        half = size // 2
        powers = torch.arange(half, dtype=torch.float32) / (half - 1)
        self.register_buffer("frequency", torch.exp(-math.log(10000.0) * powers), persistent=False)

    def forward(self, t: Float[Tensor, " b"]) -> Float[Tensor, " b z"]:
        """The features of each time."""
        angle = t[:, None] * self.frequency
        return torch.cat((angle.sin(), angle.cos()), dim=-1)


class RandomFourier(nn.Module):
    """The time itself, then `size` sines and cosines of 2 pi w t at fixed frequencies w drawn from N(0, scale^2).

    Without `linear` the time itself is left out. The draw takes `generator`, or torch's own as parameters do; the
    frequencies are a buffer, saved with the weights.
    Source: the released code of Lu et al. 2023 (2303.06614), SynthER.
    """

    frequency: Tensor

    def __init__(
        self, size: int, *, scale: float = 1.0, linear: bool = True, generator: Generator | None = None
    ) -> None:
        super().__init__()
        if size < 2 or size % 2:
            raise ValueError(f"random Fourier features of size {size}: give an even size of at least 2")
        self.linear = linear
        self.register_buffer("frequency", scale * torch.randn(size // 2, generator=generator))

    def forward(self, t: Float[Tensor, " b"]) -> Float[Tensor, " b z"]:
        """The features of each time."""
        angle = t[:, None] * (2 * math.pi * self.frequency)
        waves = angle.sin(), angle.cos()
        return torch.cat((t[:, None], *waves) if self.linear else waves, dim=-1)


class LearnedFourier(nn.Module):
    """Cosines, then sines, of 2 pi w t at learned frequencies w, which start at N(0, 0.2^2).

    Source: the released code of Hansen-Estruch et al. 2023 (2304.10573), IDQL.
    """

    def __init__(self, size: int, *, scale: float = 0.2) -> None:
        super().__init__()
        if size < 2 or size % 2:
            raise ValueError(f"learned Fourier features of size {size}: give an even size of at least 2")
        self.frequency = nn.Parameter(scale * torch.randn(size // 2))

    def forward(self, t: Float[Tensor, " b"]) -> Float[Tensor, " b z"]:
        """The features of each time."""
        angle = t[:, None] * (2 * math.pi * self.frequency)
        return torch.cat((angle.cos(), angle.sin()), dim=-1)


def time_mlp(size: int, hidden: int, *, activation: str = "mish") -> nn.Sequential:
    """The usual network from times (b,) to features (b, size): sinusoids, Linear `hidden`, activation, Linear."""
    return nn.Sequential(Sinusoid(size), nn.Linear(size, hidden), layer(activation), nn.Linear(hidden, size))


def checked(cond: Float[Tensor, " b cond"] | None, width: int) -> Float[Tensor, " b cond"] | None:
    """The condition itself, if it has the width that the network was built for (0: none)."""
    if (0 if cond is None else cond.shape[-1]) == width:
        return cond
    got = "no condition" if cond is None else f"a condition of width {cond.shape[-1]}"
    raise ValueError(f"got {got}, but the network was built with cond={width}: give (b, {width}), or None for cond=0")
