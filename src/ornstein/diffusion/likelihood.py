"""The log-likelihood of samples by the probability-flow ODE, with exact or estimated divergence.

The likelihood is that of data at time `start`, a little noise and not none: compare it with the law of x there. It is
that of x as it is diffused: for a = g(x) (a normaliser's inverse, a tanh) subtract log |det g'(x)|, for tanh the sum of
log(1 - tanh(x)^2); where a clamp has put mass on a bound there is no density.
"""

import math
from collections.abc import Callable
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor

from ornstein.diffusion.process import point, speeds
from ornstein.diffusion.runge_kutta import Slope, rk45
from ornstein.types import Denoise, Process, X


def log_likelihood(
    denoise: Denoise,
    process: Process,
    x: X,
    *,
    probe: Float[Tensor, " probes b *x"] | None = None,
    prior: Callable[[X], Float[Tensor, " b"]] | None = None,
    start: float = 1e-3,
    end: float = 1.0,
    rtol: float = 1e-5,
    atol: float = 1e-5,
    steps: int | None = None,
) -> Float[Tensor, " b"]:
    """The log density in nats of each sample x at time `start`: the prior's where the flow ends, plus the divergence.

    `probe`: see `divergence`; the same probes serve the whole path. `prior` is log p at `end`, by default
    N(0, sigma(end)^2): where the true law there differs, that is an error which no tolerance removes.
    Adaptive steps to `rtol` and `atol` are common to the batch and chosen on the host; `steps` of Runge and Kutta's
    fourth-order method instead, equal in t, are for compiled graphs and stacked seeds. Chains start at 1 / steps or
    later and have kinks, which cost many adaptive steps: give their continuous twin where there is one.
    Source: Song et al. 2021 (2011.13456), eq. 39-40.
    """
    size = x[0].numel()

    def slope(t: float, y: Tensor) -> Tensor:
        z, t_row = y[:, :-1].reshape(x.shape), y.new_full((len(y),), t)
        here, speed = point(process, t_row, x), speeds(process, t_row)
        turn = (speed.sigma / here.sigma.flatten())[:, None]
        pull = speed.alpha[:, None] - turn * here.alpha.flatten()[:, None]
        x0, trace = divergence(lambda each: denoise(each, here), z, probe)
        return torch.cat((turn * y[:, :-1] + pull * x0.flatten(1), size * turn + pull * trace[:, None]), 1)

    y = torch.cat((x.flatten(1), x.new_zeros(len(x), 1)), 1)
    if steps is None:
        y, _ = rk45(slope, y, start, end, rtol=rtol, atol=atol)
    else:
        y = _rk4(slope, y, start, end, steps)
    reached = y[:, :-1].reshape(x.shape)
    base = _normal(reached, process.rates(x.new_tensor(end)).sigma) if prior is None else prior(reached)
    return base + y[:, -1]


def divergence(
    field: Callable[[X], X], x: X, probe: Float[Tensor, " probes b *x"] | None = None
) -> tuple[X, Float[Tensor, " b"]]:
    """The field at x and its divergence there, sample by sample: exact, or the mean of v . J v over the probes v.

    Exact costs one backward pass per entry of a sample. With probes from `rademacher` the estimate is unbiased, and
    without error for diagonal Jacobians. Source: Hutchinson 1990; Grathwohl et al. 2019 (1810.01367), eq. 7.
    """
    value, pull = cast("tuple[Tensor, Callable]", torch.func.vjp(field, x))

    def along(v: Tensor) -> Tensor:
        return (pull(v)[0] * v).flatten(1).sum(1)

    if probe is not None:
        return value, torch.func.vmap(along)(probe).mean(0)
    size = x[0].numel()
    basis = torch.eye(size, dtype=x.dtype, device=x.device).reshape(size, 1, *x.shape[1:])
    return value, torch.func.vmap(along)(basis.expand(size, *x.shape)).sum(0)


def rademacher(noise: Float[Tensor, " *shape"]) -> Float[Tensor, " *shape"]:
    """Fair signs, +1 or -1, from normal noise: probes for `divergence`."""
    return torch.where(noise < 0, -1.0, 1.0).to(noise)


def _rk4(slope: Slope, y: Tensor, start: float, end: float, steps: int) -> Tensor:
    h = (end - start) / steps
    for i in range(steps):
        t = start + i * h
        first = slope(t, y)
        second = slope(t + h / 2, y + h / 2 * first)
        third = slope(t + h / 2, y + h / 2 * second)
        y = y + h / 6 * (first + 2 * second + 2 * third + slope(t + h, y + h * third))
    return y


def _normal(x: X, std: Tensor) -> Float[Tensor, " b"]:
    """Log density of N(0, std^2) in every entry."""
    each = -0.5 * (x / std) ** 2 - torch.log(std) - 0.5 * math.log(2 * math.pi)
    return each.flatten(1).sum(1)
