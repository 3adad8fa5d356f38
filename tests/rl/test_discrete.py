"""Choices: one-hot vectors at the boundary, soft values and losses by hand, draws with the right probabilities."""

import math

import pytest
import torch

from ornstein.nets.score import ScoreMLP
from ornstein.noise import generator
from ornstein.rl.action import ActionChoice
from ornstein.rl.discrete import ChoiceCritics, choice_loss, choice_regression, entropy, expected
from ornstein.rl.select import perturbed
from ornstein.rl.temperature import Temperature
from ornstein.types import Spaces


def count(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def test_a_choice_is_the_highest_score_in_the_units_of_the_box():
    choice = ActionChoice(Spaces(obs=1, act=3, action_low=(0.0, -2.0, 1.0), action_high=(1.0, 2.0, 5.0)))
    action = torch.tensor([[0.6, 0.0, 2.0], [0.1, 1.5, 4.9], [0.0, -2.0, 1.0]])
    assert choice.to_unit(action).tolist() == [[1, 0, 0], [0, 0, 1], [1, 0, 0]]
    env = choice.to_env(torch.tensor([[3.0, 9.0, 1.0]]))
    assert env.tolist() == [[0.0, 2.0, 1.0]]
    assert choice.to_unit(env).tolist() == [[0, 1, 0]]
    with pytest.raises(ValueError, match="1 choice"):
        ActionChoice(Spaces(obs=1, act=1))
    with pytest.raises(ValueError, match="finite"):
        ActionChoice(Spaces(obs=1, act=2, action_low=(-math.inf,) * 2, action_high=(math.inf,) * 2))


def test_values_and_losses_by_hand():
    probs = torch.tensor([[0.5, 0.5], [0.9, 0.1]])
    q = torch.tensor([[[1.0, 2.0], [3.0, 0.0]], [[2.0, 1.0], [1.0, 5.0]]])
    assert expected(q, probs.log()).tolist() == pytest.approx([1.0, 0.9])
    assert entropy(probs.log()).tolist() == pytest.approx([math.log(2), -0.9 * math.log(0.9) - 0.1 * math.log(0.1)])
    critics = ChoiceCritics(2, 3, width=8)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        obs, target = torch.randn(4, 2), torch.randn(4)
    taken = torch.eye(3)[[0, 2, 1, 0]]
    values = critics(obs)
    by_hand = sum((values[i, range(4), [0, 2, 1, 0]] - target).square().mean() for i in range(2))
    torch.testing.assert_close(choice_regression(critics, obs, taken, target)[0], by_hand)
    scores = torch.zeros(4, 3, requires_grad=True)
    loss, _ = choice_loss(critics, obs, scores.log_softmax(-1), 0.1)
    torch.testing.assert_close(loss, -(0.1 * math.log(3) + values.amin(0).mean(-1)).mean())
    loss.backward()
    assert all(p.grad is None for p in critics.parameters())
    assert scores.grad is not None and bool((scores.grad != 0).any())


def test_draws_have_the_policys_probabilities():
    probs = torch.tensor([0.6, 0.3, 0.1])
    uniform = torch.rand(20_000, 3, generator=generator("draws"))
    drawn = perturbed(probs.log().expand(20_000, 3), uniform).argmax(1)
    torch.testing.assert_close(torch.bincount(drawn).double() / 20_000, probs.double(), atol=0.01, rtol=0)


def test_the_temperature_rises_while_the_entropy_is_too_low():
    temperature = Temperature(0.5)
    for spread, sign in ((0.2, -1.0), (2.0, 1.0)):
        loss, metrics = temperature.loss(torch.tensor([spread, spread]), 1.0)
        (slope,) = torch.autograd.grad(loss, [temperature.log])
        assert slope.item() == pytest.approx(0.5 * (spread - 1.0))
        assert slope.sign().item() == sign
        assert metrics["temperature"].item() == pytest.approx(0.5)


def test_the_score_networks_have_their_published_sizes_and_bounds():
    d2sac = ScoreMLP(20, 42)
    fdedge = ScoreMLP(10, 12, width=128, activation="relu", embed=False, head="softmax")
    assert (count(d2sac), count(fdedge)) == (92_228, 22_794)
    assert count(ChoiceCritics(42, 20)) == 2 * (42 * 256 + 256 + 256 * 256 + 256 + 256 * 20 + 20)
    t = torch.tensor([0.0, 4.0])
    for net, size, cond in ((d2sac, 20, 42), (fdedge, 10, 12)):
        x, obs = 9 * torch.randn(3, size, generator=generator("x")), torch.randn(3, cond, generator=generator("obs"))
        for label, prepared in zip(t, net.at(t, obs), strict=True):
            torch.testing.assert_close(prepared(x), net(x, label.expand(3), obs))
    out = fdedge(x, t[:1].expand(3), obs)
    torch.testing.assert_close(out.sum(-1), torch.ones(3))
    assert bool((d2sac(torch.ones(1, 20), t[:1], torch.ones(1, 42)).abs() < 1).all())
