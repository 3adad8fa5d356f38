"""Discrete schedules against the table of published values and hand-computed numbers."""

import math

import pytest
import torch
from jaxtyping import TypeCheckError

from ornstein.diffusion.schedule import betas, log_alphas

TABLE = [
    ("linear", 1000, 1e-4, 0.02, 10.05, 0.07858724, 4.035830e-05),
    ("linear_scaled", 100, 1e-3, 0.2, 10.05, 0.07419700, 2.039009e-05),
    ("linear", 100, 1e-4, 0.02, 1.005, 0.77718008, 3.635632e-01),
    ("cosine", 1000, 4.128422e-05, 0.999, 12.441496, 0.49384359, 2.428767e-09),
    ("cosine", 100, 6.312816e-04, 0.999, 7.878897, 0.49384359, 2.428572e-07),
    ("cosine", 20, 7.992721e-03, 0.999, 4.832198, 0.49384359, 6.059645e-06),
    ("cosine", 10, 2.790726e-02, 0.999, 3.635982, 0.49384359, 2.409172e-05),
    ("vp", 5, 0.1958746, 0.8350314, 2.880383, 0.43517806, 6.409333e-03),
    ("vp", 10, 0.05776447, 0.6134523, 3.718016, 0.27595982, 6.409333e-03),
    ("vp", 100, 1.493883e-3, 0.09471458, 4.885780, 0.27595982, 6.409333e-03),
]


@pytest.mark.parametrize(("rule", "steps", "first", "last", "total", "middle", "end"), TABLE)
def test_schedules_have_the_published_numbers(rule, steps, first, last, total, middle, end):
    beta, abar = betas(rule, steps), torch.exp(2 * log_alphas(rule, steps))
    assert beta.dtype == torch.float64 and beta.shape == (steps,)
    assert beta[0].item() == pytest.approx(first, rel=1e-6)
    assert beta[-1].item() == pytest.approx(last, rel=1e-6)
    assert beta.sum().item() == pytest.approx(total, rel=1e-5)
    assert abar[steps // 2].item() == pytest.approx(middle, rel=2e-7)
    assert abar[-1].item() == pytest.approx(end, rel=3e-6)


def test_log_alphas_start_clean_and_multiply_one_minus_beta():
    chain = log_alphas("vp", 5)
    assert chain.shape == (6,) and chain[0] == 0
    torch.testing.assert_close(torch.exp(2 * chain[1:]), torch.cumprod(1 - betas("vp", 5), 0))


def test_scaled_linear_is_linear_in_the_square_root():
    got = betas("scaled_linear", 3, (0.01, 0.09))
    torch.testing.assert_close(got, torch.tensor([0.01, 0.04, 0.09], dtype=torch.float64))
    assert betas("scaled_linear", 3)[1].item() == pytest.approx((0.5 * (0.01 + math.sqrt(0.02))) ** 2)


def test_sqrt_follows_its_ratio_rule_and_is_capped():
    """abar(u) = 1 - sqrt(u + 1e-4): abar(0) = 0.99, abar(1 / 2) = 1 - sqrt(0.5001)."""
    got = betas("sqrt", 2)
    assert got[0].item() == pytest.approx(1 - (1 - math.sqrt(0.5001)) / 0.99, rel=1e-12)
    assert got[1].item() == 0.999


def test_karras_spaces_the_seventh_root_of_noise_over_signal():
    sigma = torch.sqrt(torch.exp(-2 * log_alphas("karras", 3)) - 1)
    middle = ((0.05 ** (1 / 7) + 12.5 ** (1 / 7)) / 2) ** 7
    assert sigma.tolist() == pytest.approx([0.0, 0.05, middle, 12.5])
    assert middle == pytest.approx(1.3442639, rel=1e-6)
    assert torch.sqrt(torch.exp(-2 * log_alphas("karras", 1, (0.1, 3.0))) - 1).tolist() == pytest.approx([0.0, 3.0])


def test_ends_replace_the_published_ones():
    assert betas("linear", 3, (0.1, 0.3)).tolist() == pytest.approx([0.1, 0.2, 0.3])
    assert betas("linear_scaled", 500, (0.01, 0.02))[[0, -1]].tolist() == pytest.approx([0.02, 0.04])
    assert betas("vp", 1, (1.0, 3.0)).tolist() == pytest.approx([1 - math.exp(-2.0)])


def test_a_chain_of_one_step_has_the_lower_end():
    assert betas("linear", 1).tolist() == [1e-4]


def test_unknown_schedules_are_named():
    with pytest.raises((ValueError, TypeCheckError), match=r"'quadratic'(?s:.*)vp(?s:.*)cosine"):
        betas("quadratic", 10)
