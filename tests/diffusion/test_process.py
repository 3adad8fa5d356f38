"""Processes: tabulated marginals, inverses, derivatives, and levels shaped for what they multiply."""

import math

import pytest
import torch
from jaxtyping import TypeCheckError

from ornstein.diffusion.process import (
    VE,
    CosineVP,
    DiscreteVP,
    Flow,
    Karras,
    LinearVP,
    SubVP,
    corrupt,
    point,
    speeds,
)
from ornstein.types import Point

TIMES = torch.tensor([1e-5, 1e-3, 0.1, 0.5, 1.0], dtype=torch.float64)
ALL = [
    LinearVP(),
    LinearVP(0.1, 10.0),
    SubVP(),
    CosineVP(),
    VE(),
    Karras(),
    Flow(),
    DiscreteVP(5),
    DiscreteVP(7, "cosine"),
]
PRESERVING = [LinearVP(), CosineVP(), DiscreteVP(5), DiscreteVP(100, "linear")]


def close(got, expected, rtol=1e-6, atol=0.0):
    torch.testing.assert_close(got, torch.as_tensor(expected, dtype=torch.float64), rtol=rtol, atol=atol)


def test_linear_vp_has_the_published_marginals():
    alpha, sigma = LinearVP().rates(TIMES)
    close(alpha, [0.99999950, 0.99994503, 0.94672180, 0.28118288, 0.00657159], rtol=1e-6)
    close(sigma, [0.00100050, 0.01048542, 0.32205254, 0.95965420, 0.99997841], rtol=1e-5)


def test_sub_vp_has_the_published_marginals():
    alpha, sigma = SubVP().rates(TIMES)
    close(alpha, LinearVP().rates(TIMES).alpha, rtol=1e-14)
    close(sigma, [1.0e-6, 1.0994e-4, 0.10371784, 0.92093619, 0.99995681], rtol=2e-3)
    close(sigma, LinearVP().rates(TIMES).sigma ** 2, rtol=1e-12)


def test_ve_has_the_published_marginals():
    alpha, sigma = VE().rates(TIMES)
    close(alpha, torch.ones(5))
    close(sigma, [0.010001, 0.010086, 0.023437, 0.707107, 50.0], rtol=1e-4)


def test_karras_runs_from_sigma_min_to_sigma_max_and_beyond():
    alpha, sigma = Karras().rates(torch.tensor([-1.0, 0.0, 0.5, 1.0, 2.0], dtype=torch.float64))
    close(alpha, torch.ones(5))
    close(sigma, [0.002 / 40000, 0.002, 0.4, 80.0, 80.0 * 40000])


def test_cosine_vp_follows_its_angle():
    """alpha(1/2) = cos(0.508 / 1.008 pi / 2) / cos(0.008 / 1.008 pi / 2)."""
    alpha, sigma = CosineVP().rates(torch.tensor([0.0, 0.5, 1.0], dtype=torch.float64))
    middle = math.cos(0.508 / 1.008 * math.pi / 2) / math.cos(0.008 / 1.008 * math.pi / 2)
    close(alpha, [1.0, middle, 0.0], atol=1e-15, rtol=1e-12)
    close(sigma, [0.0, math.sqrt(1 - middle**2), 1.0], rtol=1e-12)
    close(alpha[1] ** 2, 0.49384359, rtol=1e-7)
    close(CosineVP(0.1).rates(torch.tensor(0.0, dtype=torch.float64)).alpha, 1.0)


def test_flow_is_straight():
    alpha, sigma = Flow().rates(TIMES)
    close(alpha, 1 - TIMES)
    close(sigma, TIMES)


def test_discrete_nodes_are_the_chain_and_log_alpha_is_linear_between_them():
    vp = DiscreteVP(5)
    alpha, sigma = vp.rates(torch.arange(6, dtype=torch.float64) / 5)
    close(alpha[0], 1.0, rtol=0)
    close(sigma[0], 0.0, rtol=0)
    close(alpha[2] ** 2, 0.43517806, rtol=1e-7)
    close(alpha[5] ** 2, 6.409333e-03, rtol=1e-6)
    quarter = vp.rates(torch.tensor(0.45, dtype=torch.float64)).alpha
    close(quarter, alpha[2] ** 0.75 * alpha[3] ** 0.25, rtol=1e-12)


def test_discrete_tables_keep_double_precision_behind_single_times():
    t = torch.arange(1, 1001) / 1000
    alpha, sigma = DiscreteVP(1000, "cosine").rates(t)
    exact = DiscreteVP(1000, "cosine").rates(torch.arange(1, 1001, dtype=torch.float64) / 1000)
    assert alpha.dtype == sigma.dtype == torch.float32
    torch.testing.assert_close(alpha[:999], exact.alpha[:999].float(), rtol=2e-3, atol=0)
    torch.testing.assert_close(sigma, exact.sigma.float(), rtol=1e-5, atol=0)


def test_discrete_times_beyond_the_chain_stay_at_its_ends():
    vp = DiscreteVP(5)
    ends = vp.rates(torch.tensor([0.0, 1.0], dtype=torch.float64))
    beyond = vp.rates(torch.tensor([-0.3, 1.3], dtype=torch.float64))
    close(beyond.alpha, ends.alpha, rtol=1e-12)
    noisier = vp.time(torch.tensor([-10.0, 30.0], dtype=torch.float64))
    close(noisier, [1.0, 0.0], atol=1e-12)


@pytest.mark.parametrize("process", PRESERVING, ids=lambda v: type(v).__name__)
def test_variance_is_preserved(process):
    alpha, sigma = process.rates(torch.linspace(0, 1, 41, dtype=torch.float64))
    close(alpha**2 + sigma**2, torch.ones(41), rtol=1e-14)


@pytest.mark.parametrize("process", ALL, ids=lambda v: type(v).__name__)
def test_time_inverts_the_rates(process):
    t = torch.linspace(0.02, 0.98, 33, dtype=torch.float64).reshape(3, 11)
    alpha, sigma = process.rates(t)
    assert alpha.shape == sigma.shape == (3, 11)
    close(process.time(torch.log(alpha / sigma)), t, rtol=1e-9)
    assert process.time(torch.log(alpha / sigma).float()).dtype == torch.float32


@pytest.mark.parametrize("process", ALL, ids=lambda v: type(v).__name__)
def test_noise_grows_with_time(process):
    alpha, sigma = process.rates(torch.linspace(0.01, 0.99, 50, dtype=torch.float64))
    assert (torch.diff(torch.log(alpha / sigma)) < 0).all()


@pytest.mark.parametrize("process", ALL, ids=lambda v: type(v).__name__)
def test_speeds_are_the_derivatives(process):
    t = torch.tensor([0.13, 0.47, 0.85], dtype=torch.float64)
    got = speeds(process, t)
    up, down = process.rates(t + 1e-6), process.rates(t - 1e-6)
    for rate in ("alpha", "sigma"):
        expected = (getattr(up, rate) - getattr(down, rate)) / 2e-6
        torch.testing.assert_close(getattr(got, rate), expected, rtol=1e-6, atol=1e-8)


def test_sub_vp_solves_its_own_variance_equation():
    """Song et al.'s dV/dt = -beta V + beta (1 - exp(-2 B)) ends at V(1) = 0.9999136304."""
    close(SubVP().rates(torch.tensor(1.0, dtype=torch.float64)).sigma ** 2, 0.9999136304, rtol=1e-10)


def test_a_point_multiplies_what_it_is_made_for():
    like = torch.zeros(2, 3, 4)
    level = point(LinearVP(), torch.tensor([0.5, 1.0]), like)
    assert level.t.shape == (2,) and level.alpha.shape == level.sigma.shape == (2, 1, 1)
    assert level.alpha.flatten().tolist() == pytest.approx([0.28118288, 0.00657159], rel=1e-4)


def test_corrupt_mixes_data_and_noise():
    level = Point(torch.tensor([0.3]), torch.tensor([[0.8]]), torch.tensor([[0.6]]))
    got = corrupt(torch.tensor([[2.0, -1.0]]), level, torch.tensor([[1.0, 3.0]]))
    torch.testing.assert_close(got, torch.tensor([[2.2, 1.0]]))


def test_chains_refuse_no_steps_and_unknown_rules():
    with pytest.raises(ValueError, match=r"steps = 0"):
        DiscreteVP(0)
    with pytest.raises((ValueError, TypeCheckError), match="quadratic"):
        DiscreteVP(5, "quadratic")
    assert DiscreteVP(1).steps == 1
