"""Bending a denoiser towards a condition: every guidance maps a Denoise to a Denoise, or gives a Shift.

What is exact. With scale 1 and the likelihood of the *noisy* sample, log E[p(y | x0) | x_t], `classifier` (and
`energy`, its twin with the sign of an energy) samples the posterior. Every other combination here is an approximation
that its paper defines: other scales, `classifier_free` and `compose` do not sample the tilted law that they are named
after, and `reconstruction` and a regressed mean energy E[E(x0) | x_t] ignore the spread of x0 given x_t.

Differentiability. Gradients exist under `torch.no_grad` (and cost no second graph there), under `torch.func.vmap` and
inside one compiled graph, where they come from `torch.func.vjp`; with gradients enabled they are themselves
differentiable in x, in the condition and in every parameter, so that a loss may reach through the guided chain.

The factor sigma^2 / alpha is infinite where no signal is left (straight paths at t = 1): start such grids below it.
"""

from collections.abc import Callable, Sequence
from typing import Literal, cast

import torch
from jaxtyping import Float
from torch import Tensor

from ornstein.diffusion.solver import lost
from ornstein.types import Constrain, Denoise, Point, Shift, X

Potential = Callable[[X, Point], Float[Tensor, " b"]]
"""(x_t, point) -> one number per sample, of that sample alone: a log-likelihood, a value, a negative energy."""

Schedule = Callable[[Point], Tensor]
"""A guidance scale that depends on the level: point -> (b, 1, ..., 1)."""

Scale = float | Tensor | Schedule
"""A guidance scale: a number, a tensor that broadcasts against x, or a function of the level."""


def gradient(potential: Potential, x: X, point: Point) -> X:
    """The gradient of each sample's potential at that sample, in the module's sense of differentiable."""
    if not _silent():
        value, pull = cast("tuple[Tensor, Callable]", torch.func.vjp(lambda y: potential(y, point), x))
        return pull(torch.ones_like(value))[0]
    with torch.enable_grad():  # the same without torch.func, which costs a tenth more
        leaf = x.detach().requires_grad_()
        value = potential(leaf, point)
        found = torch.autograd.grad(value.sum(), leaf, allow_unused=True)[0] if value.requires_grad else None
    return torch.zeros_like(x) if found is None else found


def classifier(denoise: Denoise, log_likelihood: Potential, scale: Scale = 1.0) -> Denoise:
    """The denoiser of p(x) p(y | x)^scale by its score: x0 + scale sigma^2 / alpha grad log p(y | x_t).

    Exact for scale 1 and the noisy likelihood log E[p(y | x0) | x_t]; a clean-data likelihood evaluated at x_t is
    neither. Moving the mean of an ancestral step (their algorithm 1) is the same with the next level's sigma^2 / alpha.
    Source: Dhariwal, Nichol 2021 (2105.05233), algorithm 2.
    """

    def guided(x_t: X, point: Point) -> X:
        return denoise(x_t, point) + _reach(scale, point) * gradient(log_likelihood, x_t, point)

    return guided


def energy(denoise: Denoise, intermediate: Potential, scale: Scale = 1.0) -> Denoise:
    """The denoiser of p(x) exp(-scale E(x)) by the intermediate energy: x0 - scale sigma^2 / alpha grad E_t(x_t).

    Exact for scale 1 and E_t(x_t) = -log E[exp(-E(x0)) | x_t], which `contrastive_energy_loss` learns. The regressed
    mean E[E(x0) | x_t] in its place (MSE energy) is right only if E is linear along the spread of x0 given x_t, or
    that spread is nothing. Source: Lu et al. 2023 (2304.12824), theorem 3.1.
    """

    def guided(x_t: X, point: Point) -> X:
        return denoise(x_t, point) - _reach(scale, point) * gradient(intermediate, x_t, point)

    return guided


def contrastive_energy_loss(predicted: Float[Tensor, " b k"], clean: Float[Tensor, " b k"]) -> Float[Tensor, " b"]:
    """The cross-entropy of softmax(-predicted) under softmax(-clean) among each row's k candidates.

    `clean` holds E(x0) of the candidates, `predicted` the model's E_t at their noised copies (one level per row). Its
    minimiser is the exact intermediate energy up to a constant per condition, which no gradient sees.
    Source: Lu et al. 2023 (2304.12824), theorem 3.2.
    """
    return -(torch.softmax(-clean, 1) * torch.log_softmax(-predicted, 1)).sum(1)


def classifier_free(conditional: Denoise, unconditional: Denoise, scale: Scale) -> Denoise:
    """The mix unconditional + scale (conditional - unconditional): 0 is unconditional, 1 conditional, above 1 more.

    The other convention, (1 + w) conditional - w unconditional, is `scale_of(w)`. Its nominal target
    p(x) p(y | x)^scale is not what it samples for any scale but 0 and 1. Bounds of x0 belong around the result.
    Source: Ho, Salimans 2022 (2207.12598), eq. 6 (there with w).
    """

    def guided(x_t: X, point: Point) -> X:
        base = unconditional(x_t, point)
        return base + _at(scale, point) * (conditional(x_t, point) - base)

    return guided


def classifier_free_stacked(denoise: Denoise, scale: Scale) -> Denoise:
    """`classifier_free` in one network call: `denoise` holds 2b conditions, b real ones and then b empty ones."""

    def guided(x_t: X, point: Point) -> X:
        twice = Point(*(torch.cat((entry, entry)) for entry in point))
        conditional, base = denoise(torch.cat((x_t, x_t)), twice).chunk(2)
        return base + _at(scale, point) * (conditional - base)

    return guided


def scale_of(excess: float) -> float:
    """The scale w' = 1 + w of `classifier_free` for the convention (1 + w) conditional - w unconditional."""
    return 1.0 + excess


def interval(
    low: float, high: float, inside: float, *, outside: float = 1.0, clock: Literal["t", "sigma"] = "t"
) -> Schedule:
    """A scale that is `inside` at levels in [low, high] and `outside` elsewhere: 1 is conditional for classifier-free.

    For `classifier`, `energy` and `reconstruction` the neutral `outside` is 0. `clock`: levels in t, or in sigma.
    Source: Kynkaanniemi et al. 2024 (2404.07724).
    """

    def schedule(point: Point) -> Tensor:
        level = point.sigma if clock == "sigma" else point.t.reshape(point.sigma.shape)
        return torch.where((level >= low) & (level <= high), inside, outside)

    return schedule


def by_snr(scale: float) -> Schedule:
    """A scale times alpha^2 / sigma^2, which turns the factor sigma^2 / alpha of the score form into alpha.

    `reconstruction` of -|y - x0|^2 / 2 with it is the guidance of Ho et al. 2022 (2204.03458), section 3.1.
    """

    def schedule(point: Point) -> Tensor:
        return scale * (point.alpha / point.sigma) ** 2

    return schedule


def cool(noise: Tensor, temperature: float) -> Tensor:
    """Noise with its variance times `temperature`: for the start and for the steps of a sampler alike.

    Scaling both scales the variance of what is sampled from unit Gaussian data, linearly. Scaling the steps alone is
    another thing: the chain contracts the start to nearly nothing, so the steps set the variance by themselves; and
    scaling the start alone does nearly nothing in an ancestral chain, and everything in an ODE.
    Source: Ajay et al. 2023 (2211.15657), where it is 0.5.
    """
    if temperature < 0:
        raise ValueError(f"temperature = {temperature} multiplies a variance: give a number of at least 0")
    return noise * temperature**0.5


def compose(base: Denoise, parts: Sequence[Denoise], weights: Sequence[Scale]) -> Denoise:
    """The sum base + weights (part - base): a conjunction of conditions; a negative weight is a negation.

    The product p_1 p_2 / p_0 that it is named after is reached only if the noisy laws factor too, which they hardly
    ever do. Source: Liu et al. 2022 (2206.01714), section 3.
    """
    if len(parts) != len(weights):
        raise ValueError(f"{len(weights)} weights for {len(parts)} denoisers: give one weight to each")

    def guided(x_t: X, point: Point) -> X:
        base_x0 = total = base(x_t, point)
        for part, weight in zip(parts, weights, strict=True):
            total = total + _at(weight, point) * (part(x_t, point) - base_x0)
        return total

    return guided


def reconstruction(denoise: Denoise, log_likelihood: Callable[[X], Float[Tensor, " b"]], scale: Scale = 1.0) -> Denoise:
    """x0 + scale sigma^2 / alpha grad log p(y | x0(x_t)): the gradient runs through the denoiser.

    It ignores the spread of x0 given x_t, so it overshoots and is too sure where that matters: see `pseudoinverse`.
    Source: Chung et al. 2023 (2209.14687). Deviates: their code divides by the residual's norm after an
    ancestral step; that is a `scale`.
    """

    def guided(x_t: X, point: Point) -> X:
        def judged(y: Tensor) -> tuple[Tensor, Tensor]:
            x0 = denoise(y, point)
            return log_likelihood(x0), x0

        value, pull, x0 = cast("tuple[Tensor, Callable, Tensor]", torch.func.vjp(judged, x_t, has_aux=True))
        return x0 + _reach(scale, point) * pull(torch.ones_like(value))[0]

    return guided


def pseudoinverse(
    denoise: Denoise,
    measure: Callable[[X], Tensor],
    value: Tensor,
    *,
    noise_variance: float = 0.0,
    prior_variance: float = 1.0,
    scale: Scale = 1.0,
) -> Denoise:
    """Reconstruction guidance to `value` = measure(x0) + noise that allows for the spread r^2 of x0 given x_t.

    grad log N(y; measure(x0(x_t)), r^2 + noise_variance), r^2 = v sigma^2 / (v alpha^2 + sigma^2) with v the
    `prior_variance`: exact for Gaussian data of that variance. `measure` is linear with orthonormal rows (a selection
    of entries) and keeps the number of axes.
    Source: Song, Vahdat, Mardani, Kautz 2023 (Pseudoinverse-guided diffusion models for inverse problems).
    """

    def guided(x_t: X, point: Point) -> X:
        def measured(y: Tensor) -> tuple[Tensor, Tensor]:
            x0 = denoise(y, point)
            return measure(x0), x0

        seen, pull, x0 = cast("tuple[Tensor, Callable, Tensor]", torch.func.vjp(measured, x_t, has_aux=True))
        noisy = point.sigma**2
        spread = prior_variance * noisy / (prior_variance * point.alpha**2 + noisy)
        return x0 + _reach(scale, point) * pull((value - seen) / (spread + noise_variance))[0]

    return guided


def ascend(
    potential: Potential, scale: float = 0.1, *, repeats: int = 2, stop: float = 0.0, constrain: Constrain | None = None
) -> Shift:
    """A shift of x up a value: `repeats` times x + scale q grad V(x), q the posterior variance of the step ahead.

    Nothing moves at t < `stop`. A chain of T steps that is unguided at its 0-based labels below t_stop has
    stop = (t_stop + 0.5) / T, safely between two levels. `constrain` is re-applied after every move, without noise.
    Source: Janner et al. 2022 (2205.09991), algorithm 1. Deviates: the gradient is taken at x_t, before the step and
    `repeats` times, as in the official code since October 2022; before, it was multiplied by the standard deviation.
    """

    def shift(x: X, now: Point, then: Point) -> X:
        active = now.t.reshape(now.sigma.shape) >= stop
        rate = torch.where(active, scale * posterior_variance(now, then), 0.0)
        for _ in range(repeats):
            x = x + rate * gradient(potential, x, now)
            if constrain is not None:
                x = constrain(x, now, None)
        return x

    return shift


def posterior_variance(now: Point, then: Point) -> Float[Tensor, " b *ones"]:
    """The variance of x at `then` given x at `now` and x0: beta_{t|s} (1 - abar_s) / (1 - abar_t) where VP.

    Source: Ho, Jain, Abbeel 2020 (2006.11239), eq. 7, for any Gaussian path and any stride.
    """
    return then.sigma**2 * lost(now, then)


def _silent() -> bool:
    """Whether this is plain eager code under `torch.no_grad`: nothing traces, transforms or differentiates it."""
    if torch.compiler.is_compiling() or torch.is_grad_enabled():
        return False
    return not (torch.is_inference_mode_enabled() or torch._C._are_functorch_transforms_active())


def _at(scale: Scale, point: Point) -> float | Tensor:
    return scale(point) if callable(scale) else scale


def _reach(scale: Scale, point: Point) -> Tensor:
    """What a change of the score by one does to x0, sigma^2 / alpha, times the scale."""
    return _at(scale, point) * point.sigma**2 / point.alpha
