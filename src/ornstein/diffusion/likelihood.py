"""The log-likelihood of samples by the probability-flow ODE, and the two integrators that it needs.

The likelihood is that of the data at the level where the integration starts, a little noise and not none: compare it
with the law of x there. It is that of x as it is diffused: for a = g(x) (a normaliser's inverse, a tanh) subtract
log |det g'(x)|, for tanh the sum of log(1 - tanh(x)^2); where a clamp has put mass on a bound there is no density.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, cast, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from ornstein.types import Denoise, Point, Process, Rates, Time, X

State = Float[Tensor, " b n"]
Slope = Callable[[Time, State], State]
"""(t, y) -> dy/dt, each row at a time of its own."""


@runtime_checkable
class Integrator(Protocol):
    """A method for ordinary differential equations, all rows at once."""

    def __call__(self, slope: Slope, y: State, start: float, end: float) -> State:
        """The state y at `end`, from y at `start` < `end`."""
        ...


@dataclass(frozen=True)
class Adaptive:
    """Dormand and Prince's pair of orders 5 and 4, every row with steps of its own, so that no row feels its batch.

    A row's error, as a root of mean squares, is held below atol + rtol |y|. It branches on the state: not for compiled
    graphs. Gradients pass through y, not through the choice of the steps.
    Source: Dormand, Prince 1980; step sizes of Hairer, Norsett, Wanner 1993, section II.4.
    """

    rtol: float = 1e-5
    atol: float = 1e-5
    most: int = 1_000

    def __call__(self, slope: Slope, y: State, start: float, end: float) -> State:
        """The state at `end`; refuses to take more than `most` trials."""
        t = y.new_full((len(y),), start)
        f = slope(t, y)
        h = self._first(slope, t, y, f)
        for _ in range(self.most):
            if not bool((h > 1e-12 * (end - start)).all()):
                break
            h = torch.minimum(h, end - t)
            new, last, error = _pair(slope, t, y, f, h)
            size = self._size(error, torch.maximum(y.abs(), new.abs())).nan_to_num(math.inf)
            done = size <= 1
            y, f = torch.where(done[:, None], new, y), torch.where(done[:, None], last, f)
            t = torch.where(done, torch.where(h < end - t, t + h, end), t)
            if bool((t >= end).all()):
                return y
            h = torch.where(t < end, h * torch.clamp(0.9 * size ** (-1 / 5), min=0.2, max=10.0), end - start)
        raise ValueError(
            f"at t = {float(t.min()):.3g} no step meets rtol = {self.rtol} and atol = {self.atol}: "
            "loosen them, integrate in double precision, or look for NaN in the denoiser"
        )

    def _size(self, error: State, size: State) -> Time:
        """Root mean square of the error in units of what is tolerated, per row."""
        return (error / (self.atol + self.rtol * size)).detach().square().mean(1).sqrt()

    def _first(self, slope: Slope, t: Time, y: State, f: State) -> Time:
        """A first step whose fifth-order error is about a hundredth of what is tolerated."""
        rise = self._size(f, y.abs())
        trial = (0.01 * self._size(y, y.abs()) / rise.clamp(min=1e-10)).clamp(min=1e-6)
        bend = self._size(slope(t + trial, y + trial[:, None] * f) - f, y.abs()) / trial
        return torch.minimum(100 * trial, (0.01 / torch.maximum(rise, bend).clamp(min=1e-10)) ** (1 / 5))


@dataclass(frozen=True)
class Fixed:
    """The classical Runge-Kutta method of order 4 in equal steps: for compiled graphs and stacked seeds."""

    steps: int = 50

    def __call__(self, slope: Slope, y: State, start: float, end: float) -> State:
        """The state at `end`, after 4 calls of `slope` a step."""
        h = (end - start) / self.steps
        for i in range(self.steps):
            t = y.new_full((len(y),), start + i * h)
            first = slope(t, y)
            second = slope(t + h / 2, y + h / 2 * first)
            third = slope(t + h / 2, y + h / 2 * second)
            fourth = slope(t + h, y + h * third)
            y = y + h / 6 * (first + 2 * second + 2 * third + fourth)
        return y


def log_likelihood(
    denoise: Denoise,
    process: Process,
    x: X,
    *,
    probe: Float[Tensor, " probes b *x"] | None = None,
    prior: Callable[[X], Float[Tensor, " b"]] | None = None,
    start: float = 1e-3,
    end: float = 1.0,
    integrator: Integrator = Adaptive(),
) -> Float[Tensor, " b"]:
    """The log density in nats of each sample at level `start`: the prior's where the flow ends, plus the divergence.

    `probe`: see `divergence`; signs from `rademacher`, the same ones along the whole path. `prior` is log p at `end`,
    by default N(0, sigma(end)^2): where the true law there differs, that is an error which no tolerance removes.
    Chains start at 1 / steps
    or later; the kinks between their steps slow `Adaptive` down, so give their continuous twin where there is one.
    Source: Song et al. 2021 (2011.13456), eq. 39-40.
    """
    shape = x.shape

    def slope(t: Time, y: State) -> State:
        here, turn, pull = flow_rates(process, t, x)
        z = y[:, :-1].reshape(shape)
        x0, trace = divergence(lambda each: denoise(each, here), z, probe)
        gain = x[0].numel() * turn.flatten() + pull.flatten() * trace
        return torch.cat(((turn * z + pull * x0).flatten(1), gain[:, None]), 1)

    end_state = integrator(slope, torch.cat((x.flatten(1), x.new_zeros(len(x), 1)), 1), start, end)
    reached, gained = end_state[:, :-1].reshape(shape), end_state[:, -1]
    if prior is not None:
        return prior(reached) + gained
    return _normal(reached, process.rates(x.new_tensor(end)).sigma) + gained


def divergence(
    field: Callable[[X], X], x: X, probe: Float[Tensor, " probes b *x"] | None = None
) -> tuple[X, Float[Tensor, " b"]]:
    """The field at x and its divergence there, sample by sample: exact, or the mean of v . J v over the probes v.

    Exact costs one backward pass per entry of a sample. With Rademacher probes the estimate is unbiased, and without
    error for diagonal Jacobians. Source: Hutchinson 1990; Grathwohl et al. 2019 (1810.01367), eq. 7.
    """
    value, pull = cast("tuple[Tensor, Callable]", torch.func.vjp(field, x))
    if probe is None:
        size = x[0].numel()
        basis = torch.eye(size, dtype=x.dtype, device=x.device).reshape(size, 1, *x.shape[1:]).expand(size, *x.shape)
        return value, torch.func.vmap(lambda v: (pull(v)[0] * v).flatten(1).sum(1))(basis).sum(0)
    return value, torch.func.vmap(lambda v: (pull(v)[0] * v).flatten(1).sum(1))(probe).mean(0)


def flow_rates(
    process: Process, t: Time, like: X
) -> tuple[Point, Float[Tensor, " b *ones"], Float[Tensor, " b *ones"]]:
    """The point at times t, and the weights of x and of x0 in the probability-flow ODE dx/dt of any Gaussian path.

    dx = x0 d(alpha) + eps d(sigma) with eps = (x - alpha x0) / sigma.
    """
    ones = (-1,) + (1,) * (like.ndim - 1)
    (alpha, sigma), (alpha_speed, sigma_speed) = cast(
        "tuple[Rates, Rates]", torch.func.jvp(process.rates, (t,), (torch.ones_like(t),))
    )
    turn = sigma_speed / sigma
    pull = alpha_speed - alpha * turn
    return Point(t, alpha.reshape(ones), sigma.reshape(ones)), turn.reshape(ones), pull.reshape(ones)


def rademacher(noise: Float[Tensor, " *shape"]) -> Float[Tensor, " *shape"]:
    """Fair signs, +1 or -1, from normal noise: the probe of `log_likelihood`."""
    return torch.where(noise < 0, -1.0, 1.0).to(noise)


def _normal(x: X, std: Tensor) -> Float[Tensor, " b"]:
    """Log density of N(0, std^2) in every entry."""
    each = -0.5 * (x / std) ** 2 - torch.log(std) - 0.5 * math.log(2 * math.pi)
    return each.flatten(1).sum(1)


def _pair(slope: Slope, t: Time, y: State, f: State, h: Time) -> tuple[State, State, State]:
    """One step of Dormand and Prince: y of order 5, its slope (the next step's first), the difference to order 4."""
    h = h[:, None]
    slopes = [f]
    new = y
    for node, weights in _STAGES:
        new = y + h * sum(weight * each for weight, each in zip(weights, slopes, strict=True))
        slopes.append(slope(t + node * h[:, 0], new))
    return new, slopes[-1], h * sum(weight * each for weight, each in zip(_ERROR, slopes, strict=True))


_STAGES = (
    (1 / 5, (1 / 5,)),
    (3 / 10, (3 / 40, 9 / 40)),
    (4 / 5, (44 / 45, -56 / 15, 32 / 9)),
    (8 / 9, (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729)),
    (1.0, (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656)),
    (1.0, (35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84)),
)
_ERROR = (71 / 57600, 0.0, -71 / 16695, 71 / 1920, -17253 / 339200, 22 / 525, -1 / 40)
