"""Samplers of few calls draw the law that an exact network knows: four narrow corners, and nothing between them."""

from typing import Any

from oracles.gaussian import Mixture
from ornstein.noise import draw, generator
from ornstein.systems.policies import edp, qgpo_cep, sfbc
from ornstein.types import Spaces

CORNERS = Mixture((0.5, 0.5), (-0.8, 0.8), (0.05, 0.05))
"""In each of the two entries on its own."""


def between(sampler: Any) -> float:
    """The share of samples with an entry that is farther than five deviations from both of its peaks."""
    made = sampler(CORNERS.denoise, draw(sampler.needs((2,)), 2000, generator("corners")))
    return float(((made.abs() - 0.8).abs() > 0.25).any(1).float().mean())


def sampler_of(module: Any, **changes: Any) -> Any:
    config = module.Config(**changes)
    return module.SYSTEM.build(config, Spaces(obs=1, act=2)).actor.sampler


def test_edp_draws_the_corners_and_does_not_with_steps_even_in_time_or_where_the_noise_is_extrapolated():
    assert between(sampler_of(edp)) < 0.02
    assert between(sampler_of(edp, form="eps")) > 0.1
    assert between(sampler_of(edp, form="eps", spacing="uniform")) > 0.5


def test_qgpo_draws_the_corners():
    assert between(sampler_of(qgpo_cep)) < 0.1


def test_sfbc_draws_the_corners_and_does_not_where_the_solver_extrapolates_the_noise():
    assert between(sampler_of(sfbc)) < 0.1
    assert between(sampler_of(sfbc, form="eps")) > 0.5
