"""Normalisers as modules: their statistics are buffers, so they travel with the weights of the learner that holds them.

Each acts on the last axis. A dimension whose spread is no more than the rounding noise of its size (`flat`, 1e-5 of
max(1, |centre|)) is centred but not stretched, so that 1.5 +- 1e-8 becomes 0 +- 1e-8 and not +- 1.
"""

from typing import Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from ornstein.data.check import DataError, check_finite

FLAT = 1e-5
"""Spread, relative to max(1, |centre|), up to which a dimension counts as constant."""

Kind = Literal["gaussian", "min_max", "quantile", "identity"]


@runtime_checkable
class Normalizer(Protocol):
    """An invertible map of the last axis; `fit` takes its statistics from data and returns the module itself."""

    def fit(self, data: Float[Tensor, " rows d"], *, skip: Bool[Tensor, " d"] | None = None) -> "Normalizer": ...

    def __call__(self, x: Float[Tensor, " *b d"]) -> Float[Tensor, " *b d"]: ...

    def inverse(self, y: Float[Tensor, " *b d"]) -> Float[Tensor, " *b d"]: ...


class Identity(nn.Module):
    """Leaves everything as it is; takes the place of a normaliser."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size

    def fit(self, data: Float[Tensor, " rows d"], *, skip: Bool[Tensor, " d"] | None = None) -> "Identity":
        """The module itself; there is nothing to learn."""
        _check(data, self.size, skip)
        return self

    def forward(self, x: Float[Tensor, " *b d"]) -> Float[Tensor, " *b d"]:
        """The input."""
        return x

    def inverse(self, y: Float[Tensor, " *b d"]) -> Float[Tensor, " *b d"]:
        """The input."""
        return y


class Gaussian(nn.Module):
    """Mean 0 and standard deviation 1 (of the population, not n - 1) in each dimension. Unfitted: the identity."""

    mean: Tensor
    std: Tensor

    def __init__(self, size: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("std", torch.ones(size))

    def fit(self, data: Float[Tensor, " rows d"], *, skip: Bool[Tensor, " d"] | None = None) -> "Gaussian":
        """The module itself with the mean and spread of the data; dimensions in `skip` stay as they are."""
        skip = _check(data, len(self.mean), skip)
        std, mean = torch.std_mean(data.double(), dim=0, correction=0)
        self.mean.copy_(torch.where(skip, 0.0, mean))
        self.std.copy_(torch.where(skip | _flat(std, mean), 1.0, std))
        return self

    def forward(self, x: Float[Tensor, " *b d"]) -> Float[Tensor, " *b d"]:
        """(x - mean) / std."""
        return (x - self.mean) / self.std

    def inverse(self, y: Float[Tensor, " *b d"]) -> Float[Tensor, " *b d"]:
        """Values in the data's units."""
        return y * self.std + self.mean


class MinMax(nn.Module):
    """The range of the data onto [-1, 1] in each dimension, values beyond it not clipped. Unfitted: the identity."""

    centre: Tensor
    scale: Tensor

    def __init__(self, size: int) -> None:
        super().__init__()
        self.register_buffer("centre", torch.zeros(size))
        self.register_buffer("scale", torch.ones(size))

    def fit(self, data: Float[Tensor, " rows d"], *, skip: Bool[Tensor, " d"] | None = None) -> "MinMax":
        """The module itself with the range of the data; dimensions in `skip` stay as they are."""
        skip = _check(data, len(self.centre), skip)
        low, high = data.amin(0).double(), data.amax(0).double()
        centre, half = (low + high) / 2, (high - low) / 2
        self.centre.copy_(torch.where(skip, 0.0, centre))
        self.scale.copy_(torch.where(skip | _flat(half, centre), 1.0, half))
        return self

    def forward(self, x: Float[Tensor, " *b d"]) -> Float[Tensor, " *b d"]:
        """(x - centre) / half the range."""
        return (x - self.centre) / self.scale

    def inverse(self, y: Float[Tensor, " *b d"]) -> Float[Tensor, " *b d"]:
        """Values in the data's units."""
        return y * self.scale + self.centre


class Quantile(nn.Module):
    """Each dimension through its own empirical distribution function, onto an even spread over [-1, 1].

    The function is piecewise linear between `knots` quantiles. A value that many rows share takes the middle of its
    jump (the least and the largest keep -1 and 1). Beyond the data the line of an even spread over the same range goes
    on, so the map stays invertible. Unfitted: the identity.
    """

    quantiles: Tensor
    centre: Tensor
    straight: Tensor

    def __init__(self, size: int, *, knots: int = 256) -> None:
        super().__init__()
        if knots < 2:
            raise DataError(f"knots = {knots}, but 2 at least are expected: one for each end of the range")
        self.register_buffer("quantiles", torch.linspace(-1.0, 1.0, knots).repeat(size, 1))
        self.register_buffer("centre", torch.zeros(size))
        self.register_buffer("straight", torch.zeros(size, dtype=torch.bool))  # skipped or constant: y = x - centre

    def fit(self, data: Float[Tensor, " rows d"], *, skip: Bool[Tensor, " d"] | None = None) -> "Quantile":
        """The module itself with the quantiles of the data; dimensions in `skip` stay as they are."""
        size, knots = self.quantiles.shape
        skip = _check(data, size, skip)
        ordered = data.double().sort(0).values
        place = torch.linspace(0, len(data) - 1, knots, dtype=torch.float64, device=data.device)
        below, above = ordered[place.floor().long()], ordered[place.ceil().long()]
        quantiles = below + (above - below) * (place - place.floor())[:, None]
        low, high = quantiles[0], quantiles[-1]
        straight = skip | _flat((high - low) / 2, (high + low) / 2)
        unit = torch.linspace(-1.0, 1.0, knots, device=data.device).expand(size, -1)
        self.quantiles.copy_(torch.where(straight[:, None], unit, quantiles.T))
        self.centre.copy_(torch.where(straight & ~skip, (high + low) / 2, 0.0))
        self.straight.copy_(straight)
        return self

    def forward(self, x: Float[Tensor, " *b d"]) -> Float[Tensor, " *b d"]:
        """2 F(x) - 1, with F the distribution function of the data."""
        low, high = self.quantiles[:, 0], self.quantiles[:, -1]
        inside = torch.minimum(torch.maximum(x, low), high)
        columns = inside.reshape(-1, len(self.quantiles)).T
        first = _below(self.quantiles, columns)  # the first knot that is >= x
        last = self.quantiles.shape[1] - 1 - _below(-self.quantiles.flip(1), -columns)  # the last knot that is <= x
        from_value, to_value = self.quantiles.gather(1, last), self.quantiles.gather(1, first)
        gap = to_value - from_value
        share = torch.where(gap > 0, (columns - from_value) / torch.where(gap > 0, gap, 1.0), 0.5)
        level = (last + share * (first - last)) / (self.quantiles.shape[1] - 1)
        level = torch.where(columns <= low[:, None], 0.0, torch.where(columns >= high[:, None], 1.0, level))
        y = (2 * level - 1).T.reshape(x.shape) + 2 * (x - inside) / (high - low)
        return torch.where(self.straight, x - self.centre, y)

    def inverse(self, y: Float[Tensor, " *b d"]) -> Float[Tensor, " *b d"]:
        """Values in the data's units."""
        inside = y.clamp(-1.0, 1.0)
        steps = self.quantiles.shape[1] - 1
        place = ((inside + 1) / 2 * steps).reshape(-1, len(self.quantiles)).T
        knot = place.detach().floor().long().clamp(0, steps - 1)
        from_value, to_value = self.quantiles.gather(1, knot), self.quantiles.gather(1, knot + 1)
        x = (from_value + (to_value - from_value) * (place - knot)).T.reshape(y.shape)
        beyond = (y - inside) * (self.quantiles[:, -1] - self.quantiles[:, 0]) / 2
        return torch.where(self.straight, y + self.centre, x + beyond)


def normalizer(kind: Kind, size: int) -> Gaussian | MinMax | Quantile | Identity:
    """An unfitted normaliser of the named kind, as a configuration asks for it."""
    kinds = {"gaussian": Gaussian, "min_max": MinMax, "quantile": Quantile, "identity": Identity}
    if kind not in kinds:
        raise DataError(f"normaliser '{kind}' is unknown: use one of {', '.join(kinds)}")
    return kinds[kind](size)


def _check(data: Tensor, size: int, skip: Tensor | None) -> Tensor:
    if data.ndim != 2 or data.shape[1] != size or not len(data):
        raise DataError(f"'data' has shape {tuple(data.shape)}, but (rows, {size}) with a row at least is expected")
    check_finite("data", data)
    if skip is None:
        return torch.zeros(size, dtype=torch.bool, device=data.device)
    if skip.shape != (size,):
        raise DataError(f"'skip' has shape {tuple(skip.shape)}, but ({size},) is expected: one flag per dimension")
    return skip.to(data.device)


def _below(ordered: Tensor, columns: Tensor) -> Tensor:
    """How many entries of each ordered row (d, knots) are below each value (d, n), at most knots - 1, by bisection.

    `torch.searchsorted` would do, but complains under `vmap`, where its input is never contiguous.
    """
    most = ordered.shape[1] - 1
    count = torch.zeros_like(columns, dtype=torch.int64)
    for half in (1 << bit for bit in reversed(range(most.bit_length()))):
        further = (count + half).clamp(max=most)
        count = torch.where(ordered.gather(1, further - 1) < columns, further, count)
    return count


def _flat(spread: Tensor, centre: Tensor) -> Tensor:
    return spread <= FLAT * centre.abs().clamp(min=1.0)
