"""Steered sampling: the chosen noise takes the place of the drawn one, and gradients reach the choice."""

import pytest
import torch

from ornstein.diffusion.grid import uniform
from ornstein.diffusion.process import DiscreteVP
from ornstein.diffusion.solver import DDIM, DDPM, sample
from ornstein.diffusion.steered import Steered
from ornstein.noise import generator

GRID = uniform(DiscreteVP(6), 6)
NOISE = torch.randn(6, 4, 2, generator=generator("steered"))


def denoise(x, level):
    return torch.tanh(x)


def test_a_choice_that_repeats_the_noise_gives_the_same_sample():
    queue = iter(NOISE[1:])
    plain = sample(denoise, NOISE[0], GRID, solver=DDPM(), noise=NOISE[1:])
    steered = Steered(lambda x, level: next(queue), DDPM())
    torch.testing.assert_close(sample(denoise, NOISE[0], GRID, solver=steered, noise=torch.zeros(5, 4, 2)), plain)


def test_handed_noise_is_added_and_the_choice_sees_x_and_its_level():
    seen = []
    solver = Steered(lambda x, level: seen.append((x, level.t[0].item())) or 0 * x, DDPM())
    found = sample(denoise, NOISE[0], GRID, solver=solver, noise=NOISE[1:])
    torch.testing.assert_close(found, sample(denoise, NOISE[0], GRID, solver=DDPM(), noise=NOISE[1:]))
    assert torch.equal(seen[0][0], NOISE[0])
    assert [t for _, t in seen] == pytest.approx([i / 6 for i in (6, 5, 4, 3, 2)])


def test_the_gradient_reaches_every_choice():
    choices = torch.zeros(5, 4, 2, requires_grad=True)
    queue = iter(choices)
    solver = Steered(lambda x, level: next(queue), DDPM())
    found = sample(denoise, NOISE[0], GRID, solver=solver, noise=torch.zeros(5, 4, 2))
    gradient = torch.autograd.grad(found.sum(), choices)[0]
    assert (gradient.flatten(1).abs().amax(1) > 0).all()


def test_a_solver_without_noise_cannot_be_steered():
    with pytest.raises(ValueError, match="draws no noise"):
        Steered(lambda x, level: x, DDIM())
