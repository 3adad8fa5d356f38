"""Time grids: published values, even spacing in what they name, and strides through discrete chains."""

import pytest
import torch
from jaxtyping import TypeCheckError

from ornstein.diffusion.grid import at, karras, log_snr, quadratic, strided, uniform
from ornstein.diffusion.process import DiscreteVP, Flow, Karras, LinearVP

EDM = {
    5: [80, 17.527832, 2.515219, 0.169753, 0.002],
    10: [80, 42.415189, 21.108677, 9.723201, 4.066124, 1.501742, 0.469979, 0.116639, 0.020435, 0.002],
    18: [
        80, 57.58598, 40.78557, 28.37458, 19.35245, 12.91008, 8.40094, 5.31519, 3.25682, 1.92334, 1.08817, 0.58535,
        0.29644, 0.13952, 0.05995, 0.02293, 0.00753, 0.002,
    ],
}  # fmt: skip


@pytest.mark.parametrize("n", EDM)
def test_karras_grid_has_the_published_levels(n):
    grid = karras(Karras(), n)
    assert grid.sigma.tolist() == pytest.approx(EDM[n], abs=6e-6, rel=2e-7)
    assert grid.alpha.tolist() == [1.0] * n
    assert grid.t[[0, -1]].tolist() == pytest.approx([1.0, 0.0], abs=1e-12)


def test_karras_grid_on_other_processes_is_even_in_the_root_of_the_noise_ratio():
    grid = karras(LinearVP(), 6, 3.0, start=0.9, end=0.01)
    roots = (grid.sigma / grid.alpha) ** (1 / 3)
    torch.testing.assert_close(torch.diff(roots), torch.full_like(roots[1:], (roots[-1] - roots[0]).item() / 5))
    assert grid.t[[0, -1]].tolist() == pytest.approx([0.9, 0.01])


def test_uniform_grid_leaves_the_last_equal_step_to_the_denoise():
    assert uniform(Flow(), 4).t.tolist() == pytest.approx([1.0, 0.75, 0.5, 0.25])
    assert uniform(Flow(), 3, start=0.9, end=0.1).t.tolist() == pytest.approx([0.9, 0.5, 0.1])
    assert uniform(DiscreteVP(5), 5).alpha[-1].item() ** 2 == pytest.approx(1 - 0.1958746)


def test_quadratic_grid_is_even_in_the_square_root():
    assert quadratic(Flow(), 3, start=0.81, end=0.01).t.tolist() == pytest.approx([0.81, 0.25, 0.01])
    assert quadratic(LinearVP(), 2).t.tolist() == pytest.approx([1.0, 1e-3])


def test_log_snr_grid_is_even_in_lam():
    grid = log_snr(LinearVP(), 5)
    lam = torch.log(grid.alpha / grid.sigma)
    expected = torch.linspace(-5.024978, 4.557715, 5, dtype=torch.float64)
    torch.testing.assert_close(lam, expected, rtol=2e-7, atol=1e-6)
    assert grid.t[[0, -1]].tolist() == pytest.approx([1.0, 1e-3])
    assert log_snr(LinearVP(), 2, start=0.5, end=0.1).t.tolist() == pytest.approx([0.5, 0.1])


def test_grids_hold_the_rates_of_their_process_in_double_precision():
    grid = at(LinearVP(), torch.tensor([1.0, 0.5]))
    assert grid.t.dtype == grid.alpha.dtype == grid.sigma.dtype == torch.float64
    assert grid.alpha.tolist() == pytest.approx([0.00657159, 0.28118288], rel=1e-6)
    assert grid.sigma.tolist() == pytest.approx([0.99997841, 0.95965420], rel=1e-6)


def test_flipped_grids_run_from_data_to_noise():
    grid = uniform(Flow(), 4)
    assert grid.flipped().t.tolist() == grid.t.tolist()[::-1]
    assert grid.flipped().alpha.tolist() == pytest.approx([0.75, 0.5, 0.25, 0.0])
    assert grid.flipped().sigma.tolist() == grid.sigma.tolist()[::-1]


def test_grids_move_between_devices():
    moved = uniform(Flow(), 4).to("meta")
    assert all(entry.device.type == "meta" for entry in moved)


def test_grids_do_not_reach_clean_data():
    with pytest.raises(ValueError, match=r"sigma is 0.0 in it: raise `end`"):
        uniform(LinearVP(), 3, end=0.0)


@pytest.mark.parametrize("build", [log_snr, karras])
def test_grids_in_lam_need_signal_and_noise_at_their_ends(build):
    with pytest.raises(ValueError, match=r"runs from -inf to .*: lower `start` or raise `end`"):
        build(Flow(), 4, end=0.1)
    with pytest.raises(ValueError, match=r"to inf: lower `start` or raise `end`"):
        build(LinearVP(), 4, end=0.0)
    assert build(Flow(), 4, start=0.9, end=0.1).t[[0, -1]].tolist() == pytest.approx([0.9, 0.1])


LABELS = [
    (10, 5, "uniform", [8, 6, 4, 2, 0]),
    (10, 3, "uniform", [9, 6, 3, 0]),
    (10, 3, "leading", [6, 3, 0]),
    (1000, 10, "quad", [800, 632, 483, 355, 246, 158, 88, 39, 9, 0]),
    (100, 20, "quad", [80, 71, 64, 56, 49, 43, 37, 31, 26, 22, 17, 14, 10, 7, 5, 3, 1, 0]),
    (10, 5, "trailing", [9, 7, 5, 3, 1]),
    (1000, 3, "trailing", [999, 666, 332]),
    (10, 4, "linspace", [9, 6, 3, 0]),
    (10, 1, "trailing", [9]),
    (10, 10, "trailing", [9, 8, 7, 6, 5, 4, 3, 2, 1, 0]),
]


@pytest.mark.parametrize(("steps", "n", "spacing", "labels"), LABELS)
def test_strides_pick_the_published_labels(steps, n, spacing, labels):
    chain = DiscreteVP(steps, "linear")
    grid = strided(chain, n, spacing)
    assert (grid.t * steps - 1).tolist() == pytest.approx(labels, abs=1e-9)
    torch.testing.assert_close(grid.alpha, chain.rates(grid.t).alpha)


def test_trailing_is_the_stride_unless_told_otherwise():
    assert strided(DiscreteVP(10), 5).t.tolist() == strided(DiscreteVP(10), 5, "trailing").t.tolist()


@pytest.mark.parametrize(("n", "spacing"), [(0, "uniform"), (11, "uniform")])
def test_strides_refuse_what_the_chain_does_not_have(n, spacing):
    with pytest.raises(ValueError, match="give 1 to 10 nodes by uniform, leading, quad"):
        strided(DiscreteVP(10), n, spacing)


def test_strides_refuse_unknown_rules():
    with pytest.raises((ValueError, TypeCheckError), match="'even'"):
        strided(DiscreteVP(10), 5, "even")
