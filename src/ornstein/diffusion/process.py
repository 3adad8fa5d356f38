"""Noise processes: the Gaussian paths x_t = alpha x0 + sigma eps, known by their rates and by the inverse in lam."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import softplus

from ornstein.diffusion.schedule import Schedule, betas, log_alphas
from ornstein.types import Point, Process, Rates, Time, X


def point(process: Process, t: Time, like: X) -> Point:
    """The level of `process` at times `t`, with alpha and sigma shaped (b, 1, ..., 1) to multiply `like`."""
    ones = (-1,) + (1,) * (like.ndim - 1)
    alpha, sigma = process.rates(t)
    return Point(t, alpha.reshape(ones), sigma.reshape(ones))


def corrupt(x0: X, level: Point, eps: X) -> X:
    """A draw of the path at `level`: x_t = alpha x0 + sigma eps."""
    return level.alpha * x0 + level.sigma * eps


def speeds(process: Process, t: Float[Tensor, " *t"]) -> Rates:
    """Derivatives of alpha and sigma by t."""
    return torch.func.jvp(process.rates, (t.contiguous(),), (torch.ones_like(t),))[1]


@dataclass(frozen=True)
class LinearVP:
    """Variance preserving, beta rising linearly from `beta_min` to `beta_max` over t in [0, 1].

    Source: Song et al. 2021 (2011.13456), eq. 32-33.
    """

    beta_min: float = 0.1
    beta_max: float = 20.0

    def rates(self, t: Float[Tensor, " *t"]) -> Rates:
        """Alpha = exp(-B / 2), sigma^2 = 1 - exp(-B), B the integral of beta from 0 to t."""
        return _preserving(-0.5 * _integral(self, t))

    def time(self, lam: Float[Tensor, " *t"]) -> Float[Tensor, " *t"]:
        """The root of B(t) = softplus(-2 lam), since alpha^2 = sigmoid(2 lam)."""
        return _inverse_integral(self, softplus(-2 * lam))


@dataclass(frozen=True)
class SubVP:
    """The sub-VP path: LinearVP's alpha, and the square of its sigma.

    Source: Song et al. 2021 (2011.13456), eq. 29 and appendix B.
    """

    beta_min: float = 0.1
    beta_max: float = 20.0

    def rates(self, t: Float[Tensor, " *t"]) -> Rates:
        """Alpha = exp(-B / 2), sigma = 1 - exp(-B)."""
        integral = _integral(self, t)
        return Rates(torch.exp(-0.5 * integral), -torch.expm1(-integral))

    def time(self, lam: Float[Tensor, " *t"]) -> Float[Tensor, " *t"]:
        """The root of sigma / alpha = 2 sinh(B / 2) = exp(-lam)."""
        return _inverse_integral(self, 2 * torch.asinh(0.5 * torch.exp(-lam)))


@dataclass(frozen=True)
class CosineVP:
    """Variance preserving with alpha = cos(u) / cos(u_0), u = (t + s) / (1 + s) pi / 2; no signal is left at t = 1.

    Source: Nichol, Dhariwal 2021 (2102.09672), eq. 17, in continuous time.
    """

    s: float = 0.008

    def rates(self, t: Float[Tensor, " *t"]) -> Rates:
        """Alpha as above; 1 - alpha^2 = sin(u - u_0) sin(u + u_0) / cos(u_0)^2 does not cancel."""
        slope = 0.5 * math.pi / (1 + self.s)
        first = slope * self.s
        angle = slope * t
        alpha = torch.cos(angle + first) / math.cos(first)
        return Rates(alpha, torch.sqrt(torch.sin(angle) * torch.sin(angle + 2 * first)) / math.cos(first))

    def time(self, lam: Float[Tensor, " *t"]) -> Float[Tensor, " *t"]:
        """From alpha = sqrt(sigmoid(2 lam))."""
        slope = 0.5 * math.pi / (1 + self.s)
        alpha = torch.sqrt(torch.sigmoid(2 * lam))
        return torch.acos(alpha * math.cos(slope * self.s)) / slope - self.s


@dataclass(frozen=True)
class VE:
    """Variance exploding: alpha = 1 and log sigma affine in t, `sigma_min` at t = 0, `sigma_max` at t = 1.

    Times outside of [0, 1] are levels outside of that range. Source: Song et al. 2021 (2011.13456), eq. 31.
    """

    sigma_min: float = 0.01
    sigma_max: float = 50.0

    def rates(self, t: Float[Tensor, " *t"]) -> Rates:
        """Alpha = 1, sigma = sigma_min (sigma_max / sigma_min)^t."""
        return Rates(torch.ones_like(t), self.sigma_min * torch.exp(t * math.log(self.sigma_max / self.sigma_min)))

    def time(self, lam: Float[Tensor, " *t"]) -> Float[Tensor, " *t"]:
        """From log sigma = -lam."""
        return (-lam - math.log(self.sigma_min)) / math.log(self.sigma_max / self.sigma_min)


@dataclass(frozen=True)
class Karras(VE):
    """The variance exploding path over the range of EDM. Source: Karras et al. 2022 (2206.00364), table 1."""

    sigma_min: float = 0.002
    sigma_max: float = 80.0


@dataclass(frozen=True)
class Flow:
    """Straight paths x_t = (1 - t) x0 + t eps, so that t = 1 is noise as everywhere here.

    Source: Lipman et al. 2023 (2210.02747) and Liu et al. 2023 (2209.03003), both with time reversed.
    """

    def rates(self, t: Float[Tensor, " *t"]) -> Rates:
        """Alpha = 1 - t, sigma = t."""
        return Rates(1 - t, t)

    def time(self, lam: Float[Tensor, " *t"]) -> Float[Tensor, " *t"]:
        """From (1 - t) / t = exp(lam)."""
        return torch.sigmoid(-lam)


@dataclass(frozen=True)
class DiscreteVP:
    """A chain of `steps` noising steps: t = k / steps, k = 0 (clean) to `steps`; log alpha is linear between the nodes.

    `schedule` names the rule for beta_k, `ends` its (beta_min, beta_max) where other than published: see `betas`.
    """

    steps: int = 5
    schedule: Schedule = "vp"
    ends: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        """Refuse a chain without steps, or a rule without that name, at once."""
        if self.steps < 1:
            raise ValueError(f"steps = {self.steps}: a chain needs at least one step")
        betas(self.schedule, self.steps, self.ends)

    def rates(self, t: Float[Tensor, " *t"]) -> Rates:
        """Alpha_k = sqrt(abar_k), sigma_k = sqrt(1 - abar_k) at t = k / steps, from the table in double precision."""
        table = log_alphas(self.schedule, self.steps, self.ends, device=t.device)
        k = (t.double() * self.steps).clamp(0, self.steps)
        below = k.floor().clamp(max=self.steps - 1)
        index = below.long()
        alpha, sigma = _preserving(torch.lerp(table[index], table[index + 1], k - below))
        return Rates(alpha.to(t.dtype), sigma.to(t.dtype))

    def time(self, lam: Float[Tensor, " *t"]) -> Float[Tensor, " *t"]:
        """The place of log alpha = -softplus(-2 lam) / 2 in the table."""
        table = log_alphas(self.schedule, self.steps, self.ends, device=lam.device)
        log_alpha = (-0.5 * softplus(-2 * lam.double())).clamp(min=table[-1])
        index = torch.searchsorted(-table, -log_alpha).clamp(1, self.steps)
        below, above = table[index - 1], table[index]
        return ((index - 1 + (log_alpha - below) / (above - below)) / self.steps).to(lam.dtype)


def _preserving(log_alpha: Tensor) -> Rates:
    """Alpha, and sigma = sqrt(1 - alpha^2) without cancellation."""
    return Rates(torch.exp(log_alpha), torch.sqrt(-torch.expm1(2 * log_alpha)))


def _integral(beta: LinearVP | SubVP, t: Tensor) -> Tensor:
    """B(t) = beta_min t + (beta_max - beta_min) t^2 / 2."""
    return t * (beta.beta_min + 0.5 * (beta.beta_max - beta.beta_min) * t)


def _inverse_integral(beta: LinearVP | SubVP, integral: Tensor) -> Tensor:
    """The t >= 0 with B(t) = `integral`, in the form of the quadratic root that does not cancel."""
    root = torch.sqrt(beta.beta_min**2 + 2 * (beta.beta_max - beta.beta_min) * integral)
    return 2 * integral / (beta.beta_min + root)
