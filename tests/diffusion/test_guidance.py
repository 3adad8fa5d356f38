"""The formulas of guidance, by hand."""

import math

import pytest
import torch
from torch import Tensor

from oracles.guided import HALF, NOW, PLAIN, clean, column, level, noisy
from ornstein.diffusion.guidance import (
    by_snr,
    classifier,
    classifier_free,
    classifier_free_stacked,
    compose,
    contrastive_energy_loss,
    cool,
    energy,
    gradient,
    interval,
    pseudoinverse,
    reconstruction,
    scale_of,
)
from ornstein.types import Denoise, Point


def test_the_gradient_is_per_sample_and_at_the_point():
    x = column(2.0, -3.0)
    found = gradient(lambda y, point: (point.alpha * y**2).sum(1), x, level((0.6, 0.8), (0.5, 0.5)))
    torch.testing.assert_close(found, column(0.6 * 4, 0.5 * -6))


def test_a_potential_that_ignores_the_sample_has_no_gradient():
    x, point = column(2.0, -3.0), level((0.6, 0.8), (0.5, 0.5))
    for grad in (True, False):
        with torch.set_grad_enabled(grad):
            assert not gradient(lambda y, point: point.t, x, point).any()


def test_classifier_guidance_by_hand():
    # 0.6 * 2 + 3 * 0.64 / 0.6 * 5
    guided = classifier(PLAIN, lambda x, _: 5 * x.sum(1), 3.0)
    torch.testing.assert_close(guided(column(2.0), NOW), column(0.6 * 2 + 16.0))
    torch.testing.assert_close(
        classifier(PLAIN, noisy)(column(2.0), NOW), classifier(PLAIN, noisy, 1.0)(column(2.0), NOW)
    )


def test_energy_guidance_by_hand():
    guided = energy(PLAIN, lambda x, _: 5 * x.sum(1), 3.0)
    torch.testing.assert_close(guided(column(2.0), NOW), column(0.6 * 2 - 16.0))
    torch.testing.assert_close(energy(PLAIN, noisy)(column(2.0), NOW), energy(PLAIN, noisy, 1.0)(column(2.0), NOW))


@pytest.mark.parametrize(("scale", "expected"), [(0.0, 1.0), (1.0, 4.0), (3.0, 10.0), (-1.0, -2.0)])
def test_classifier_free_guidance_by_hand(scale: float, expected: float):
    four, one = (lambda x, _: 4 + 0 * x), (lambda x, _: 1 + 0 * x)
    torch.testing.assert_close(classifier_free(four, one, scale)(column(7.0), NOW), column(expected))


def test_both_conventions_of_classifier_free_guidance_agree():
    four, one, w = 4.0, 1.0, 2.0
    assert one + scale_of(w) * (four - one) == (1 + w) * four - w * one


def test_stacked_classifier_free_guidance_is_the_same_in_one_call():
    calls = []

    def network(x: Tensor, point: Point) -> Tensor:
        calls.append(len(x))
        shown = torch.cat((torch.full((3, 1), 1.0), torch.zeros(3, 1))).double()
        return point.alpha * x + shown * point.sigma * x**2

    def given(shown: float) -> Denoise:
        return lambda x, point: point.alpha * x + shown * point.sigma * x**2

    x, point = column(0.5, -2.0, 1.0), level((0.6, 0.8), (0.9, 0.3), (0.5, 0.5))
    stacked = classifier_free_stacked(network, 1.7)(x, point)
    torch.testing.assert_close(stacked, classifier_free(given(1.0), given(0.0), 1.7)(x, point))
    assert calls == [6]


def test_composition_by_hand_with_a_negation():
    parts = [lambda x, _: x + 10, lambda x, _: 3 * x]
    # 2 + 0.5 (12 - 2) - 2 (6 - 2)
    torch.testing.assert_close(compose(lambda x, _: x, parts, [0.5, -2.0])(column(2.0), NOW), column(-1.0))


def test_composition_wants_a_weight_for_each():
    with pytest.raises(ValueError, match="2 weights for 1 denoisers"):
        compose(PLAIN, [PLAIN], [1.0, 2.0])


def test_reconstruction_guidance_by_hand():
    # x0 = 1.2; gradient of -2 (1 - x0)^2 is 4 (1 - 1.2) 0.6
    guided = reconstruction(PLAIN, clean, 3.0)(column(2.0), NOW)
    torch.testing.assert_close(guided, column(1.2 + 3 * 0.64 / 0.6 * (4 * -0.2 * 0.6)))


def test_pseudoinverse_guidance_by_hand():
    # spread 2 * 0.64 / (2 * 0.36 + 0.64), noise 0.5, Jacobian 0.6; the second entry is not measured
    x = torch.tensor([[2.0, 5.0]], dtype=torch.float64)
    guided = pseudoinverse(PLAIN, lambda x0: x0[:, :1], column(4.0), noise_variance=0.5, prior_variance=2.0, scale=3.0)(
        x, NOW
    )
    push = 3 * 0.64 / 0.6 * 0.6 * (4 - 1.2) / (1.28 / 1.36 + 0.5)
    torch.testing.assert_close(guided, torch.tensor([[1.2 + push, 3.0]], dtype=torch.float64))


def test_pseudoinverse_guidance_assumes_unit_data_without_noise():
    x, seen = column(2.0), column(4.0)
    bare = pseudoinverse(PLAIN, lambda x0: x0, seen)(x, NOW)
    torch.testing.assert_close(bare, column(1.2 + 0.64 / 0.6 * 0.6 * (4 - 1.2) / 0.64))


def test_scales_by_signal_to_noise():
    torch.testing.assert_close(by_snr(2.0)(level((0.6, 0.8), (0.8, 0.4))), column(2 * 0.5625, 8.0))


def test_scales_may_be_tensors_and_schedules():
    x, point = column(1.0, 1.0), level((0.6, 0.8), (0.6, 0.8))
    each = classifier(PLAIN, noisy, column(1.0, 2.0))(x, point)
    torch.testing.assert_close(each[:1], classifier(PLAIN, noisy, 1.0)(x[:1], NOW))
    torch.testing.assert_close(each[1:], classifier(PLAIN, noisy, 2.0)(x[:1], NOW))
    for guide in (
        lambda scale: classifier(PLAIN, noisy, scale),
        lambda scale: energy(PLAIN, noisy, scale),
        lambda scale: classifier_free(HALF.denoise, PLAIN, scale),
        lambda scale: classifier_free_stacked(lambda x, p: p.alpha * x + torch.arange(len(x))[:, None], scale),
        lambda scale: compose(PLAIN, [HALF.denoise], [scale]),
        lambda scale: reconstruction(PLAIN, clean, scale),
        lambda scale: pseudoinverse(PLAIN, lambda x0: x0, column(4.0), scale=scale),
    ):
        torch.testing.assert_close(guide(by_snr(2.0))(x, point), guide(2 * 0.36 / 0.64)(x, point))


def test_intervals_hold_their_ends_and_know_both_clocks():
    rows = [(1.0, 0.1), (1.0, 0.2), (1.0, 0.3), (1.0, 0.4), (1.0, 0.5)]
    sigma = interval(0.2, 0.4, 3.0, clock="sigma")(level(*rows, ones=2))
    assert sigma.shape == (5, 1, 1)
    assert sigma.flatten().tolist() == [1.0, 3.0, 3.0, 3.0, 1.0]
    time = interval(0.2, 0.4, 3.0, outside=0.0)(
        level(*rows, ones=2)._replace(t=torch.tensor([0.1, 0.2, 0.3, 0.4, 0.5]))
    )
    assert time.shape == (5, 1, 1)
    assert time.flatten().tolist() == [0.0, 3.0, 3.0, 3.0, 0.0]


def test_cool_scales_the_variance():
    torch.testing.assert_close(cool(column(2.0, -4.0), 0.25), column(1.0, -2.0))
    assert cool(column(2.0), 0.0).item() == 0.0
    with pytest.raises(ValueError, match=r"temperature = -0.1"):
        cool(column(2.0), -0.1)


def test_contrastive_energy_loss_by_hand_and_at_its_minimum():
    two = contrastive_energy_loss(torch.tensor([[0.0, math.log(3)]]), torch.tensor([[0.0, math.log(4)]]))
    # softmax(-clean) = (4, 1) / 5, softmax(-predicted) = (3, 1) / 4
    torch.testing.assert_close(two, torch.tensor([-0.8 * math.log(0.75) - 0.2 * math.log(0.25)]))
    true = torch.tensor([[0.3, -1.0, 2.0], [1.0, 1.5, -0.5]])
    shifted = (true + torch.tensor([[5.0], [-7.0]])).requires_grad_()
    slope = torch.autograd.grad(contrastive_energy_loss(shifted, true).sum(), shifted)[0]
    torch.testing.assert_close(slope, torch.zeros(2, 3))
    assert (
        contrastive_energy_loss(shifted + torch.tensor([0.1, 0.0, 0.0]), true) > contrastive_energy_loss(true, true)
    ).all()


@pytest.mark.parametrize("silent", [True, False])
def test_potentials_that_ignore_the_sample_push_nowhere(silent: bool):
    parameter = torch.ones(2, requires_grad=True)
    for potential in (lambda x, _: 3 * parameter, lambda x, _: torch.ones(len(x)), lambda x, _: x.detach().sum(1)):
        with torch.set_grad_enabled(not silent):
            found = gradient(potential, column(2.0, -3.0), level((0.6, 0.8), (0.5, 0.5)))
        torch.testing.assert_close(found, column(0.0, 0.0))
