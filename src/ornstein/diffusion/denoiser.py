"""From a network to the waist: every parameterisation becomes E[x0 | x_t]."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss

from ornstein.diffusion.process import corrupt
from ornstein.types import Denoise, Point, Process, Time, X

Network = Callable[[X, Time, Any], X]
"""F(x, label, cond): what is trained."""


@runtime_checkable
class Predict(Protocol):
    """A parameterisation: what the network is shown, what it is trained on, and x0 from its output."""

    def scale(self, x_t: X, point: Point) -> X:
        """What the network is shown in place of x_t."""
        ...

    def target(self, x0: X, point: Point, eps: X) -> X:
        """What the network is trained to say."""
        ...

    def x0(self, output: X, x_t: X, point: Point) -> X:
        """E[x0 | x_t] from what the network says."""
        ...

    def gain(self, point: Point) -> Tensor:
        """Size of the output's error over that of x0's, at the same x_t."""
        ...


@dataclass(frozen=True)
class Eps:
    """The network predicts the noise eps. Source: Ho, Jain, Abbeel 2020 (2006.11239), eq. 11."""

    def scale(self, x_t: X, point: Point) -> X:
        """x_t itself."""
        return x_t

    def target(self, x0: X, point: Point, eps: X) -> X:
        """The noise."""
        return eps

    def x0(self, output: X, x_t: X, point: Point) -> X:
        """(x_t - sigma eps) / alpha."""
        return torch.addcmul(x_t, point.sigma, output, value=-1) / point.alpha

    def gain(self, point: Point) -> Tensor:
        """Alpha / sigma."""
        return point.alpha / point.sigma


@dataclass(frozen=True)
class X0:
    """The network predicts the clean data."""

    def scale(self, x_t: X, point: Point) -> X:
        """x_t itself."""
        return x_t

    def target(self, x0: X, point: Point, eps: X) -> X:
        """The data."""
        return x0

    def x0(self, output: X, x_t: X, point: Point) -> X:
        """The output itself."""
        return output

    def gain(self, point: Point) -> Tensor:
        """One."""
        return torch.ones_like(point.alpha)


@dataclass(frozen=True)
class V:
    """The network predicts v = alpha eps - sigma x0. Source: Salimans, Ho 2022 (2202.00512), appendix D."""

    def scale(self, x_t: X, point: Point) -> X:
        """x_t itself."""
        return x_t

    def target(self, x0: X, point: Point, eps: X) -> X:
        """Alpha eps - sigma x0."""
        return point.alpha * eps - point.sigma * x0

    def x0(self, output: X, x_t: X, point: Point) -> X:
        """(alpha x_t - sigma v) / (alpha^2 + sigma^2), for every path."""
        return (point.alpha * x_t - point.sigma * output) / (point.alpha**2 + point.sigma**2)

    def gain(self, point: Point) -> Tensor:
        """(alpha^2 + sigma^2) / sigma."""
        return (point.alpha**2 + point.sigma**2) / point.sigma


@dataclass(frozen=True)
class Score:
    """The network predicts the score grad log p(x_t) = -eps / sigma. Source: Song et al. 2021 (2011.13456), eq. 7."""

    def scale(self, x_t: X, point: Point) -> X:
        """x_t itself."""
        return x_t

    def target(self, x0: X, point: Point, eps: X) -> X:
        """-eps / sigma."""
        return -eps / point.sigma

    def x0(self, output: X, x_t: X, point: Point) -> X:
        """Tweedie's formula: (x_t + sigma^2 score) / alpha."""
        return torch.addcmul(x_t, point.sigma**2, output) / point.alpha

    def gain(self, point: Point) -> Tensor:
        """Alpha / sigma^2."""
        return point.alpha / point.sigma**2


@dataclass(frozen=True)
class Velocity:
    """The network predicts u = eps - x0: dx/dt of straight paths, pointing to the noise, as time does here.

    Source: Lipman et al. 2023 (2210.02747), Liu et al. 2023 (2209.03003). Deviates: their time runs from noise to
    data, so their velocity is -u.
    """

    def scale(self, x_t: X, point: Point) -> X:
        """x_t itself."""
        return x_t

    def target(self, x0: X, point: Point, eps: X) -> X:
        """Eps - x0."""
        return eps - x0

    def x0(self, output: X, x_t: X, point: Point) -> X:
        """(x_t - sigma u) / (alpha + sigma); the divisor is 1 on straight paths."""
        return torch.addcmul(x_t, point.sigma, output, value=-1) / (point.alpha + point.sigma)

    def gain(self, point: Point) -> Tensor:
        """(alpha + sigma) / sigma."""
        return (point.alpha + point.sigma) / point.sigma


@dataclass(frozen=True)
class Precondition:
    """Inputs and targets of unit variance for data of standard deviation `sigma_data`.

    x0 = c_skip x_t + c_out F(c_in x_t).
    Source: Karras et al. 2022 (2206.00364), table 1, with x_t / alpha for their x and sigma / alpha for their sigma.
    """

    sigma_data: float = 0.5

    def scale(self, x_t: X, point: Point) -> X:
        """c_in x_t."""
        return x_t * self._c_in(point)

    def target(self, x0: X, point: Point, eps: X) -> X:
        """(x0 - c_skip x_t) / c_out, written so that nothing cancels: (sigma x0 - alpha s^2 eps) c_in / s."""
        s = self.sigma_data
        return (point.sigma * x0 - point.alpha * s**2 * eps) * (self._c_in(point) / s)

    def x0(self, output: X, x_t: X, point: Point) -> X:
        """c_skip x_t + c_out F, with c_skip = alpha s^2 c_in^2 and c_out = sigma s c_in."""
        s, c_in = self.sigma_data, self._c_in(point)
        return torch.addcmul(x_t * (point.alpha * s**2 * c_in**2), point.sigma * s * c_in, output)

    def gain(self, point: Point) -> Tensor:
        """1 / c_out: the square is EDM's weight lambda."""
        return 1 / (point.sigma * self.sigma_data * self._c_in(point))

    def _c_in(self, point: Point) -> Tensor:
        return torch.rsqrt(point.sigma**2 + (point.alpha * self.sigma_data) ** 2)


@runtime_checkable
class Clock(Protocol):
    """How the network is told the level."""

    def label(self, point: Point) -> Time:
        """One number per sample."""
        ...


@dataclass(frozen=True)
class Continuous:
    """The network is told scale * t."""

    scale: float = 1.0

    def label(self, point: Point) -> Time:
        """The time, scaled."""
        return point.t * self.scale


@dataclass(frozen=True)
class Index:
    """The network is told k - 1 with t = k / steps: the 0-based label of discrete chains."""

    steps: int

    def label(self, point: Point) -> Time:
        """The node, counted from 0."""
        return torch.rsub(point.t, -1, alpha=-self.steps)  # one kernel


@dataclass(frozen=True)
class LogSigma:
    """The network is told scale * ln(sigma / alpha). Source: Karras et al. 2022 (2206.00364), table 1 (c_noise)."""

    scale: float = 0.25

    def label(self, point: Point) -> Time:
        """The logarithm, scaled."""
        return (torch.log(point.sigma / point.alpha).flatten() * self.scale).expand(point.t.shape)


class Denoiser(nn.Module):
    """E[x0 | x_t] by a network that was trained in some parameterisation on some process.

    `bound` clamps the answer to [-bound, bound]; solvers recompute eps from the clamped x0.
    """

    def __init__(
        self,
        network: Network,
        process: Process,
        predict: Predict,
        *,
        clock: Clock = Continuous(),
        bound: float | None = None,
    ) -> None:
        super().__init__()
        self.network = network
        self.process = process
        self.predict = predict
        self.clock = clock
        self.bound = bound

    def forward(self, x_t: X, point: Point, cond: Any = None) -> X:
        """E[x0 | x_t], within the bound."""
        return self.clean(self.output(x_t, point, cond), x_t, point)

    def clean(self, output: X, x_t: X, point: Point) -> X:
        """E[x0 | x_t], within the bound, from what the network says."""
        x0 = self.predict.x0(output, x_t, point)
        return x0 if self.bound is None else x0.clamp(-self.bound, self.bound)

    def given(self, cond: Any) -> "Given":
        """The denoiser under a condition, which is opaque here."""
        return Given(self, cond)

    def output(self, x_t: X, point: Point, cond: Any = None) -> X:
        """What the network itself says, in the trained parameterisation."""
        return self.network(self.predict.scale(x_t, point), self.clock.label(point), cond)

    def regression(self, x0: X, point: Point, eps: X, cond: Any = None) -> X:
        """Squared error per entry against the trained target; under `Precondition` that target has unit variance."""
        output = self.output(corrupt(x0, point, eps), point, cond)
        return mse_loss(output, self.predict.target(x0, point, eps), reduction="none")

    def reconstruction(self, x0: X, point: Point, eps: X, cond: Any = None) -> X:
        """Squared error per entry of the unbounded x0."""
        x_t = corrupt(x0, point, eps)
        return mse_loss(self.predict.x0(self.output(x_t, point, cond), x_t, point), x0, reduction="none")


class Given:
    """A denoiser under a condition: x_t, level -> E[x0 | x_t].

    For a whole sample, what the network makes of the levels and of the condition is computed once, if it has a method
    `at(t, cond)` that gives it at each of several times as functions of x alone.
    """

    def __init__(self, denoiser: Denoiser, cond: Any) -> None:
        self.denoiser, self.cond = denoiser, cond

    def __call__(self, x_t: X, point: Point) -> X:
        """E[x0 | x_t]."""
        return self.denoiser(x_t, point, self.cond)

    def along(self, levels: Sequence[Point], nodes: Point) -> Denoise:
        """The same for samples that pass through these levels; the tracer of torch.compile gets it unprepared."""
        denoiser, at = self.denoiser, getattr(self.denoiser.network, "at", None)
        if at is None or torch.compiler.is_compiling():
            return self
        functions = dict(zip(map(id, levels), at(denoiser.clock.label(nodes), self.cond), strict=True))

        def prepared(x_t: X, point: Point) -> X:
            function = functions.get(id(point))
            if function is None:  # between two levels, where some solvers call
                return self(x_t, point)
            return denoiser.clean(function(denoiser.predict.scale(x_t, point)), x_t, point)

        return prepared
