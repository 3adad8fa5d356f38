"""What guided samplers draw, against closed forms: the flow, ancestral chains, ascents, reconstruction."""

import math

import pytest
import torch
from torch import Tensor

from oracles.gaussian import Gaussian, Mixture, normal_quantiles
from oracles.guided import HALF, NOW, PLAIN, TABLED, VP, clean, column, flow, level, noisy
from oracles.pair import Pair, Reverse, affine_moments
from ornstein.diffusion.constrain import inpaint
from ornstein.diffusion.grid import at, log_snr, uniform
from ornstein.diffusion.guidance import (
    ascend,
    by_snr,
    classifier,
    classifier_free,
    compose,
    cool,
    energy,
    interval,
    posterior_variance,
    pseudoinverse,
    reconstruction,
    scale_of,
)
from ornstein.diffusion.process import DiscreteVP
from ornstein.diffusion.solver import DDPM, Heun, sample
from ornstein.types import Denoise, Point


@pytest.mark.parametrize(
    ("scale", "mean", "std"),
    [(0.5, 0.50232, 0.66882), (1.0, 0.7976, 0.44732), (2.0, 1.05617, 0.20009), (5.0, 1.0983, 0.01791)],
)
def test_classifier_guidance_with_the_noisy_likelihood(scale: float, mean: float, std: float):
    assert flow(classifier(PLAIN, noisy, scale)) == pytest.approx((mean, std), abs=TABLED)
    seen = pseudoinverse(PLAIN, lambda x0: x0, column(1.0), noise_variance=0.25, scale=scale)
    assert flow(seen) == pytest.approx((mean, std), abs=TABLED)


@pytest.mark.parametrize(
    ("scale", "mean", "std"), [(0.5, 1.07133, 0.36794), (1.0, 1.27648, 0.13538), (2.0, 1.20449, 0.01833)]
)
def test_reconstruction_guidance_ignores_the_spread(scale: float, mean: float, std: float):
    assert flow(reconstruction(PLAIN, clean, scale)) == pytest.approx((mean, std), abs=TABLED)


def test_a_clean_likelihood_at_noisy_samples_collapses():
    assert flow(classifier(PLAIN, lambda x, _: clean(x))) == pytest.approx((1.0, 0.0), abs=TABLED)


def test_exact_and_mean_energies_of_a_parabola():
    def exact(x: Tensor, point: Point) -> Tensor:
        # E = 2 (x0 - 1)^2 is the likelihood of y = 1 with variance 1/4
        return -noisy(x, point)

    def mean(x: Tensor, point: Point) -> Tensor:
        return (2 * ((point.alpha * x - 1) ** 2 + point.sigma**2)).sum(1)

    assert flow(energy(PLAIN, exact)) == pytest.approx((0.7976, 0.44732), abs=TABLED)
    assert flow(energy(PLAIN, mean)) == pytest.approx((1.27648, 0.13538), abs=TABLED)


def test_exact_and_mean_energies_agree_if_linear():
    assert flow(energy(PLAIN, lambda x, point: (-1.5 * point.alpha * x).sum(1))) == pytest.approx(
        (1.49006, 1.0), abs=TABLED
    )


def tilted(x: Tensor, point: Point) -> Tensor:
    """-log E[exp(2 x0) | x_t] of the mixture."""
    w, m, s = (torch.tensor(each, dtype=x.dtype) for each in ((0.3, 0.7), (-1.0, 0.8), (0.5, 0.4)))
    total = point.alpha**2 * s**2 + point.sigma**2
    gap = x - point.alpha * m
    joint = torch.log(w) - 0.5 * gap**2 / total - 0.5 * torch.log(total)
    mean, var = m + point.alpha * s**2 / total * gap, s**2 * point.sigma**2 / total
    return torch.logsumexp(joint, 1) - torch.logsumexp(joint + 2 * mean + 2 * var, 1)


@pytest.mark.parametrize(("exact", "expected"), [(True, (1.0945, 0.4432, 0.0150)), (False, (1.3254, 0.3503, 0.0025))])
def test_a_mixture_tilted_by_a_linear_energy(exact: bool, expected: tuple[float, float, float]):
    data = Mixture()
    guided = energy(data.denoise, tilted) if exact else reconstruction(data.denoise, lambda x0: 2 * x0.sum(1))
    # reference figures are of 400 quantiles; with many more, 1.0944, 0.4446, 0.0144 and 1.3251, 0.3535, 0.0037
    x = sample(guided, normal_quantiles(400), log_snr(VP, 200), solver=Heun(), finish=False)
    found = (x.mean().item(), x.std(correction=0).item(), (x < 0).double().mean().item())
    assert found == pytest.approx(expected, abs=2e-4)


def test_exact_energy_guidance_transports_to_the_tilted_mixture():
    # component k of the tilt by exp(2 x): weight w exp(2 m + 2 s^2), mean m + 2 s^2, the same s
    raw = [0.3 * math.exp(-2 + 0.5), 0.7 * math.exp(1.6 + 0.32)]
    target = Mixture((raw[0] / sum(raw), raw[1] / sum(raw)), (-0.5, 1.12), (0.5, 0.4))
    levels, start = log_snr(VP, 300), normal_quantiles(9)
    x = sample(energy(Mixture().denoise, tilted), start, levels, solver=Heun(), finish=False)
    exact = target.transport(start, (levels.alpha[0], levels.sigma[0]), (levels.alpha[-1], levels.sigma[-1]))
    torch.testing.assert_close(x, exact, atol=TABLED, rtol=0)


@pytest.mark.parametrize(
    ("w", "mean", "std"),
    [
        (0.0, 0.99666, 0.50009),
        (0.5, 1.23494, 0.35365),
        (1.0, 1.37690, 0.25009),
        (2.0, 1.49762, 0.12507),
        (4.0, 1.49911, 0.03128),
    ],
)
def test_classifier_free_guidance_of_gaussians(w: float, mean: float, std: float):
    assert flow(classifier_free(HALF.denoise, PLAIN, scale_of(w))) == pytest.approx((mean, std), abs=TABLED)


@pytest.mark.parametrize(
    ("w", "mean", "std"), [(0.0, 0.9967, 0.4993), (1.0, 1.3198, 0.3585), (3.0, 1.6741, 0.2892), (7.5, 2.1642, 0.2439)]
)
def test_classifier_free_guidance_of_a_mixture(w: float, mean: float, std: float):
    both = Mixture((0.5, 0.5), (-1.0, 1.0), (0.5, 0.5))
    guided = classifier_free(HALF.denoise, both.denoise, scale_of(w))
    x = sample(guided, normal_quantiles(2000), log_snr(VP, 150), solver=Heun(), finish=False)
    assert (x.mean().item(), x.std().item()) == pytest.approx((mean, std), abs=1e-3)


@pytest.mark.parametrize(
    ("low", "high", "mean", "std"),
    [
        (0.0, 1.0, 1.4976, 0.1251),
        (0.2, 0.8, 1.5555, 0.2535),
        (0.1, 0.5, 1.4459, 0.1743),
        (0.0, 0.3, 1.3111, 0.178),
        (0.5, 1.0, 1.2634, 0.4705),
    ],
)
def test_guidance_within_an_interval(low: float, high: float, mean: float, std: float):
    t = log_snr(VP, 200).t
    # Heun's method would smear the jumps over a step: bracket them
    edges = torch.tensor([end + side * 1e-7 for end in (low, high) if 0 < end < 1 for side in (-1, 1)], dtype=t.dtype)
    levels = at(VP, torch.cat((t, edges)).sort(descending=True).values)
    guided = classifier_free(HALF.denoise, PLAIN, interval(low, high, scale_of(2.0)))
    assert flow(guided, levels) == pytest.approx((mean, std), abs=TABLED)


def test_composed_experts_without_and_with_their_base():
    left, right = Gaussian(-1.0, 1.0), HALF
    assert flow(compose(PLAIN, [left.denoise, right.denoise], [1.0, 1.0])) == pytest.approx(
        (0.3953, 0.50009), abs=TABLED
    )
    scoreless: Denoise = lambda x, point: x / point.alpha  # noqa: E731
    collapsed = flow(compose(scoreless, [left.denoise, right.denoise], [1.0, 1.0]))
    assert collapsed == pytest.approx((0.33324, 0.00329), abs=TABLED)
    assert flow(Gaussian(0.6, 0.2**0.5).denoise) == pytest.approx((0.5982, 0.44732), abs=TABLED)


def test_composed_posteriors_of_independent_observations_are_biased():
    posteriors = [Gaussian(1.0, 0.5**0.5), Gaussian(-0.4, 0.2**0.5)]
    composed = compose(PLAIN, [each.denoise for each in posteriors], [1.0, 1.0])
    assert flow(composed) == pytest.approx((0.25474, 0.31632), abs=TABLED)


# Ancestral chains.


def ancestral(tau_start: float, tau_steps: float) -> float:
    """Variance of the samples of unit Gaussian data by the cosine chain of 20 steps, noise cooled."""
    start = torch.zeros(1, 1, dtype=torch.float64, requires_grad=True)
    steps = torch.zeros(19, 1, 1, dtype=torch.float64, requires_grad=True)
    levels = uniform(DiscreteVP(20, "cosine"), 20)
    out = sample(PLAIN, cool(start, tau_start), levels, solver=DDPM(), noise=cool(steps, tau_steps))
    return sum(gain.square().sum().item() for gain in torch.autograd.grad(out, (start, steps)))


@pytest.mark.parametrize(("tau", "variance"), [(1.0, 0.81179), (0.5, 0.4059), (0.25, 0.20295)])
def test_low_temperature_is_linear_in_the_variance(tau: float, variance: float):
    assert ancestral(tau, tau) == pytest.approx(variance, abs=1e-5)


def test_the_steps_alone_set_the_temperature():
    assert 1e-7 < ancestral(1.0, 0.0) < 2e-5
    assert ancestral(0.0, 0.5) == pytest.approx(0.4059, abs=1e-4)


def planned(stop: float, *, by_std: bool = False, repeats: int = 2) -> tuple[float, float]:
    """Mean and standard deviation of unit Gaussian data guided up V = sum(x), T = 20, exact denoiser."""
    levels = uniform(DiscreteVP(20, "cosine"), 20)
    start = torch.zeros(1, 1, dtype=torch.float64, requires_grad=True)
    steps = torch.zeros(19, 1, 1, dtype=torch.float64, requires_grad=True)
    shift = ascend(lambda x, _: x.sum(1), 0.1, repeats=repeats, stop=stop)
    if by_std:
        shift = lambda x, now, then: x + (now.t[:, None] >= stop) * 0.2 * posterior_variance(now, then) ** 0.5  # noqa: E731
    out = sample(PLAIN, start, levels, solver=DDPM(), noise=steps, shift=shift)
    gains = torch.autograd.grad(out, (start, steps))
    return out.item(), math.sqrt(sum(gain.square().sum().item() for gain in gains))


def test_value_guidance_follows_the_recursion_of_diffuser():
    t_stop, abar = 2, uniform(DiscreteVP(20, "cosine"), 20).alpha.flip(0) ** 2
    mean = 0.0
    for k in range(20, 1, -1):
        alpha = (abar[k - 1] / abar[k - 2]).item()
        variance = ((1 - alpha) * (1 - abar[k - 2]) / (1 - abar[k - 1])).item()
        mean = alpha**0.5 * (mean + (k - 1 >= t_stop) * 2 * 0.1 * variance)
    mean *= abar[0].item() ** 0.5
    found = planned((t_stop + 0.5) / 20)
    assert found[0] == pytest.approx(mean, abs=1e-12)
    assert found == pytest.approx((0.243, 0.901), abs=5e-4)


def test_value_guidance_by_the_standard_deviation_is_another_sampler():
    assert planned(2.5 / 20, by_std=True)[0] == pytest.approx(0.637, abs=5e-4)


def test_value_guidance_moves_more_with_more_repeats_and_an_earlier_stop():
    assert planned(2.5 / 20, repeats=0)[0] == 0.0
    assert planned(2.5 / 20, repeats=1)[0] == pytest.approx(0.12154, abs=1e-4)
    assert planned(0.0)[0] == pytest.approx(0.24421, abs=1e-4)


def test_ascent_by_hand():
    now, then = level((0.6, 0.8), (0.6, 0.8), t=0.5), level((0.8, 0.6), (0.8, 0.6), t=0.4)
    now = now._replace(t=torch.tensor([0.5, 0.3], dtype=torch.float64))
    variance = 0.36 * (1 - (0.6 * 0.6 / (0.8 * 0.8)) ** 2)
    torch.testing.assert_close(posterior_variance(now, then), column(variance, variance))
    # beta_{t|s} (1 - abar_s) / (1 - abar_t)
    assert variance == pytest.approx((1 - 0.36 / 0.64) * 0.36 / 0.64)
    shift = ascend(lambda x, point: (0.5 * x**2).sum(1), 0.3, stop=0.5)
    # each of the two moves multiplies by 1 + 0.3 q; the second row is below the stop
    torch.testing.assert_close(shift(column(2.0, 2.0), now, then), column(2 * (1 + 0.3 * variance) ** 2, 2.0))
    default = ascend(lambda x, point: (0.5 * x**2).sum(1))
    torch.testing.assert_close(default(column(2.0, 2.0), now, then), column(*[2 * (1 + 0.1 * variance) ** 2] * 2))
    frozen = torch.zeros(2, dtype=torch.float64)
    everywhere = default(column(2.0, 2.0), now._replace(t=frozen), then)
    torch.testing.assert_close(everywhere, default(column(2.0, 2.0), now, then))


def test_the_gradient_of_an_ascent_is_taken_at_the_level_of_x():
    now, then = NOW, level((0.8, 0.6), t=0.4)
    moved = ascend(lambda x, point: (point.alpha * x).sum(1), 1.0, repeats=1)(column(0.0), now, then)
    torch.testing.assert_close(moved, 0.6 * posterior_variance(now, then))


def test_an_ascent_keeps_its_constraint_after_every_move():
    # the second gradient is (x1, x0): it sees what the constraint put back after the first
    def product(x: Tensor, _: Point) -> Tensor:
        return x[:, 0] * x[:, 1]

    seen = []

    def held(x: Tensor, point: Point | None, noise: Tensor | None) -> Tensor:
        seen.append((point, noise))
        return inpaint(torch.tensor([True, False]), torch.tensor([2.0, 0.0], dtype=torch.float64))(x, point, noise)

    now, then = NOW, level((0.8, 0.6), t=0.4)
    rate = 0.3 * posterior_variance(now, then).item()
    x = ascend(product, 0.3, constrain=held)(torch.tensor([[2.0, 1.0]], dtype=torch.float64), now, then)
    torch.testing.assert_close(x, torch.tensor([[2.0, 1.0 + 2 * rate * 2]], dtype=torch.float64))
    assert len(seen) == 2
    assert all(point is now and noise is None for point, noise in seen)


# Reconstruction of a known entry of a correlated pair.


@pytest.mark.parametrize(
    ("scale", "means", "variances"),
    [
        (0.5, (0.9575, 0.458), (0.0042, 0.4327)),
        (1.0, (1.0, 0.668), (0.0006, 0.2714)),
        (2.0, (1.0, 0.842), (0.0018, 0.1872)),
        (5.0, (1.0, 0.953), (0.6939, 0.1587)),
    ],
)
def test_reconstruction_guidance_towards_a_known_entry(scale: float, means: tuple[float], variances: tuple[float]):
    data, levels = Pair(), uniform(DiscreteVP(100, "cosine"), 100)
    guided = reconstruction(data.denoise, lambda x0: -0.5 * (1 - x0[:, 0]) ** 2, by_snr(scale))

    def run(start: Tensor, steps: Tensor) -> Tensor:
        return sample(guided, start, levels, solver=Reverse(data), noise=steps)

    mean, covariance = affine_moments(run, (1, 2), (99, 1, 2))
    last = Point(levels.t[-1:], levels.alpha[-1:, None], levels.sigma[-1:, None])
    # the chain of the reference values draws its last step, ours denoises: add the spread that is left there
    variance = covariance.diagonal() + data.spread(last)[0].diagonal()
    assert mean.tolist() == pytest.approx(means, abs=5e-4)
    assert variance.tolist() == pytest.approx(variances, abs=TABLED)
