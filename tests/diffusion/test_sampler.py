"""The sampler as a part of a learner: its noise, several samples a row, its buffers, and the levels of training."""

import torch

from ornstein.diffusion.grid import uniform
from ornstein.diffusion.process import DiscreteVP, LinearVP, point
from ornstein.diffusion.sampler import Sampler, drawn_level
from ornstein.diffusion.solver import DDPM, sample
from ornstein.noise import draw, generator
from ornstein.types import Point, X


def shrink(x: X, level: Point) -> X:
    return 0.5 * x


def test_many_are_single_samples_side_by_side():
    sampler = Sampler(uniform(DiscreteVP(5), 5), DDPM())
    noise = draw(sampler.needs((2, 3), copies=4), 6, generator("many"))
    many = sampler.many(shrink, {**noise, "choice": torch.zeros(6)})
    assert many.shape == (6, 4, 2, 3)
    for k in range(4):
        one = sampler(shrink, {name: value[:, k] for name, value in noise.items()})
        torch.testing.assert_close(many[:, k], one)


def test_the_start_is_unit_noise_unless_told_and_buffers_stay_out_of_checkpoints():
    grid = uniform(DiscreteVP(5), 5)
    start = torch.randn(3, 2, generator=generator("start"))
    steps = torch.randn(3, 4, 2, generator=generator("steps"))
    for scale in (1.0, 3.0):
        sampler = Sampler(grid, DDPM()) if scale == 1.0 else Sampler(grid, DDPM(), scale=scale)
        expected = sample(shrink, scale * start, grid, solver=DDPM(), noise=steps.movedim(1, 0))
        torch.testing.assert_close(sampler(shrink, {"start": start, "steps": steps}), expected)
        assert not sampler.state_dict()


def test_levels_of_a_chain_are_each_as_likely_and_begin_at_one():
    chain, like = DiscreteVP(4), torch.zeros(5, 2)
    drawn = drawn_level(chain, torch.tensor([0.0, 0.249, 0.25, 0.5, 0.999]), like)
    torch.testing.assert_close(drawn.t, torch.tensor([0.25, 0.25, 0.5, 0.75, 1.0]))
    torch.testing.assert_close(drawn.sigma, point(chain, drawn.t, like).sigma)


def test_levels_of_a_path_are_uniform_after_the_first():
    path, like = LinearVP(), torch.zeros(3, 2)
    unit = torch.tensor([0.0, 0.5, 1.0])
    torch.testing.assert_close(drawn_level(path, unit, like).t, torch.tensor([0.001, 0.5005, 1.0]))
    torch.testing.assert_close(drawn_level(path, unit, like, first=0.2).t, torch.tensor([0.2, 0.6, 1.0]))
