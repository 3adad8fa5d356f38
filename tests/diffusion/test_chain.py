"""The chain of Gaussian steps: its densities against torch's, its paths against the plain sampler, and its gradient."""

import pytest
import torch
from torch import Tensor
from torch.distributions import Normal

from ornstein.diffusion.chain import Chain
from ornstein.diffusion.grid import uniform
from ornstein.diffusion.process import DiscreteVP, point
from ornstein.diffusion.solver import DDPM, sample
from ornstein.noise import draw, generator
from ornstein.rl.proximal import clipped_gain
from ornstein.types import Denoise, Noise, Point

PROCESS = DiscreteVP(6, "cosine")


def denoiser(pull: float) -> Denoise:
    return lambda x, level: torch.tanh(pull * x + level.t.view(-1, 1))


def noise(chain: Chain, rows: int, act: int = 2) -> Noise:
    return {name: value.double() for name, value in draw(chain.needs((act,)), rows, generator("chain")).items()}


def test_densities_are_those_of_torch_with_the_floor_and_equal_those_of_the_draws():
    chain, late = Chain(PROCESS, 4, least_std=0.3), denoiser(0.7)
    drawn = noise(chain, 50)
    path, log_prob = chain.walk(denoiser(-0.2), late, drawn)
    assert path.shape == (50, 5, 2) and log_prob.shape == (50, 4, 2)
    torch.testing.assert_close(chain.log_prob(late, path), log_prob)
    for i, k in enumerate((4, 3, 2, 1)):
        now = point(PROCESS, torch.full((50,), k / 6, dtype=torch.float64), path[:, i])
        then = point(PROCESS, torch.full((50,), (k - 1) / 6, dtype=torch.float64), path[:, i])
        x0 = late(path[:, i], now)
        if k == 1:
            mean, std = x0, torch.tensor(0.3, dtype=torch.float64)
        else:
            keep, pull, kick = DDPM().row(now, then)
            mean, std = keep * path[:, i] + pull * x0, kick.clamp(min=0.3)
        torch.testing.assert_close(log_prob[:, i], Normal(mean, std).log_prob(path[:, i + 1]))
    assert chain.loud[2].min() == 0.3 and chain.quiet[2].min() < 0.3


def test_without_a_floor_that_matters_a_draw_is_the_plain_sampler():
    chain, late = Chain(PROCESS, 4, clip=10.0), denoiser(0.7)
    drawn = noise(chain, 20)
    plain = sample(late, drawn["start"], uniform(PROCESS, 6), solver=DDPM(), noise=drawn["steps"].movedim(1, 0)[:-1])
    torch.testing.assert_close(chain.draw(late, late, drawn), plain)
    path, _ = Chain(PROCESS, 6, least_std=1e-9, clip=10.0).walk(late, late, drawn)
    torch.testing.assert_close(path[:, -1], plain)
    torch.testing.assert_close(path[:, 0], drawn["start"])
    assert not torch.allclose(chain.draw(denoiser(-3.0), late, drawn), plain)


def test_noise_of_the_steps_is_clipped_and_the_start_is_not():
    chain, late = Chain(PROCESS, 6, clip=0.5), denoiser(0.7)
    drawn = {"start": torch.full((1, 2), 4.0), "steps": torch.full((1, 6, 2), 4.0)}
    path, log_prob = chain.walk(late, late, drawn)
    assert path[0, 0].tolist() == [4.0, 4.0]
    std = chain.loud[2].to(torch.float32)
    torch.testing.assert_close(log_prob[0, :, 0], Normal(0.0, std).log_prob(0.5 * std))


def test_chains_that_cannot_be_are_refused():
    for wrong in ({"tuned": 0}, {"tuned": 7}, {"tuned": 3, "least_std": 0.0}, {"tuned": 3, "clip": 0.0}):
        with pytest.raises(ValueError, match="of 6 steps"):
            Chain(PROCESS, **wrong)


class Oracle:
    """x2 ~ N(0, 1), x1 = A x2 + theta + s n, a = A x1 + theta + s n, R = -(a - 1)^2, with A = .5, s = .3, theta = .2.

    The gradient of E R is -2 (theta (1 + A) - 1) (A + 1): .7 from the first step, 1.4 from the second, 2.1 in all.
    """

    def __init__(self, rows: int) -> None:
        self.chain = Chain(DiscreteVP(2, "cosine"), 2, clip=100.0)
        for name, table in (("loud", [[0.5, 0.5], [1.0, 1.0], [0.3, 0.3]]),):
            self.chain.register_buffer(name, torch.tensor(table, dtype=torch.float64))
        self.theta = torch.tensor(0.2, dtype=torch.float64, requires_grad=True)
        drawn = {n: v.double() for n, v in draw(self.chain.needs((1,)), rows, generator("oracle")).items()}
        x, path = drawn["start"], [drawn["start"]]
        for i in range(2):
            x = 0.5 * x + 0.2 + 0.3 * drawn["steps"][:, i]
            path.append(x)
        self.path, reward = torch.stack(path, 1), -(x[:, 0] - 1).square()
        self.advantage = reward - reward.mean()
        with torch.no_grad():
            self.old = self.log_prob()

    def log_prob(self) -> Tensor:
        def late(x: Tensor, level: Point) -> Tensor:
            return self.theta.expand_as(x)

        return self.chain.log_prob(late, self.path)[..., 0]

    def slope(self, discount: float) -> float:
        """The gradient of the surrogate at ratio 1, summed over the steps."""
        fade = torch.tensor([discount, 1.0], dtype=torch.float64)
        weight = self.advantage.unsqueeze(1) * fade
        gain = clipped_gain(self.log_prob() - self.old, weight, torch.tensor([0.01, 0.01], dtype=torch.float64))
        (found,) = torch.autograd.grad(gain.sum(1).mean(), [self.theta])
        return found.item()


def test_the_gradient_of_the_surrogate_is_that_of_the_return():
    oracle = Oracle(400_000)
    assert oracle.slope(1.0) == pytest.approx(2.1, abs=0.026)  # four standard errors
    assert oracle.slope(0.5) == pytest.approx(0.5 * 0.7 + 1.4, abs=0.021)  # the noisier step counts half
