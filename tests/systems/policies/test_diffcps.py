"""What makes DiffCPS what it is: the learned multiplier before the denoising loss, its target, its delays."""

from dataclasses import replace
from itertools import pairwise

import pytest
import torch

from ornstein.noise import draw, generator
from ornstein.systems.policies.diffcps import Config, DiffCPS
from ornstein.systems.policies.diffusion_ql import Config as QLConfig
from ornstein.systems.policies.diffusion_ql import DiffusionQL
from ornstein.types import Descend, Noise, Spaces, Transitions
from ornstein.update import Update

SPACES = Spaces(obs=3, act=2)
SMALL = Config(width=16, candidates=7, batch_size=8, multiplier_lr=1e-2)


def agent(config: Config = SMALL) -> DiffCPS:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return DiffCPS(config, SPACES)


def batch(rows: int = 8) -> Transitions:
    g = generator("batch")
    normal = lambda *shape: torch.randn(*shape, generator=g)  # noqa: E731
    action = normal(rows, 2).clamp(-1, 1)
    return Transitions(
        normal(rows, 3), action, normal(rows), normal(rows, 3), torch.zeros(rows), torch.full((rows,), 0.99)
    )


def noise_of(a: DiffCPS | DiffusionQL, name: str) -> Noise:
    (phase,) = [p for p in a.phases() if isinstance(p, Descend) and p.name == name]
    return draw(phase.noise, 8, generator("noise", name))


def gradient(a: DiffCPS | DiffusionQL, noise: Noise) -> torch.Tensor:
    loss = a.actor_loss(batch(), noise)[0]
    return torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(a.actor.parameters()))])


@pytest.mark.parametrize("eta", [0.5, 4.0])
def test_a_multiplier_held_at_one_over_eta_gives_diffusion_qls_gradient_over_eta(eta):
    ours = agent(replace(SMALL, multiplier=1 / eta))
    theirs = DiffusionQL(QLConfig(width=16, candidates=7, eta=eta), SPACES)
    theirs.load_state_dict({name: value for name, value in ours.state_dict().items() if "multiplier" not in name})
    noise = noise_of(ours, "actor")
    torch.testing.assert_close(eta * gradient(ours, noise), gradient(theirs, noise))


def test_the_multiplier_weighs_the_denoising_loss_and_not_the_q_term():
    low, high = agent(), agent(replace(SMALL, multiplier=3.0))
    noise = noise_of(low, "actor")
    with torch.no_grad():
        (one, parts), (three, _) = (a.actor_loss(batch(), noise) for a in (low, high))
    torch.testing.assert_close(one, parts["cost"] + parts["improve"])
    torch.testing.assert_close(three - one, 2.0 * parts["cost"])


def test_the_actors_loss_leaves_the_multiplier_alone_and_its_own_leaves_the_actor_alone():
    a = agent()
    loss = a.actor_loss(batch(), noise_of(a, "actor"))[0]
    assert torch.autograd.grad(loss, [a.multiplier.value], allow_unused=True, retain_graph=True) == (None,)
    loss, metrics = a.multiplier_loss(batch(), noise_of(a, "multiplier"))
    first = next(a.actor.parameters())
    value, actor = torch.autograd.grad(loss, [a.multiplier.value, first], allow_unused=True)
    assert actor is None
    torch.testing.assert_close(value[0], SMALL.kappa - metrics["cost"])


def moved(config: Config, updates: int = 4) -> list[float]:
    """The multiplier after each update."""
    a = agent(config)
    update, values = Update([a], steps=updates), []
    for step in range(updates):
        update(step, batch(), {p.name: noise_of(a, p.name) for p in a.phases() if isinstance(p, Descend)})
        values.append(float(a.multiplier()))
    return values


def test_the_multiplier_rises_above_kappa_and_falls_below_it_by_adams_step():
    """An untrained network's denoising loss is about 1."""
    assert moved(replace(SMALL, kappa=0.05, policy_every=1), 1) == pytest.approx([1.01], abs=1e-5)
    assert moved(replace(SMALL, kappa=5.0, policy_every=1), 1) == pytest.approx([0.99], abs=1e-5)
    assert moved(replace(SMALL, multiplier_lr=0.0, policy_every=1)) == [1.0] * 4


def test_multiplier_and_actor_move_at_every_second_or_fourth_update_only():
    values = moved(SMALL)
    assert values[0] == values[1] < values[2] == values[3]
    assert [p.every for p in agent(replace(SMALL, policy_every=4)).phases() if isinstance(p, Descend)] == [1, 4, 4]


def test_at_its_least_value_the_multiplier_stays():
    config = replace(SMALL, kappa=5.0, least_multiplier=0.95, policy_every=1)
    values = moved(config, 30)
    assert min(values) == pytest.approx(0.95)
    a = agent(config)
    update = Update([a], steps=30)
    for step in range(30):
        update(step, batch(), {p.name: noise_of(a, p.name) for p in a.phases() if isinstance(p, Descend)})
    assert float(a.multiplier.value.detach()) > 0.95 - 0.1  # Adam's last steps carry it a little further, then it rests


@pytest.mark.slow
def test_on_four_corners_the_denoising_loss_follows_kappa():
    """The acceptance experiment, with the multiplier frozen as control arm."""
    from recipes.diffcps import main

    found = main()
    arms = found["kappa"]
    assert found["floor"] < 0.3
    assert abs(arms["0.3"]["cost_end"] / 0.3 - 1) <= 0.10
    assert abs(arms["0.3"]["multiplier"][-1] - arms["0.3"]["multiplier"][-3]) <= 0.05
    rising, falling = arms["0.15"]["multiplier"], arms["0.6"]["multiplier"]
    assert all(a < b for a, b in pairwise(rising))
    assert all(a > b for a, b in pairwise(falling))
    held = found["frozen"]["0.15"]
    assert held == found["frozen"]["0.6"]  # nothing but the multiplier reads kappa
    assert arms["0.15"]["cost_end"] < 0.95 * held["cost_end"]  # it is the multiplier that takes the loss to either side
    assert arms["0.6"]["cost_end"] > 1.05 * held["cost_end"]
    assert held["multiplier"] == [1.0] * 5
    outside = [arms[kappa]["outside"] for kappa in ("0.6", "0.3", "0.15")]
    assert outside[0] > outside[1] > outside[2]


@pytest.mark.slow
def test_a_ring_of_equal_rewards_is_given_back():
    """Acceptance; regression, which weights leave where no action is better, is the control arm."""
    from recipes.diffcps import on_the_ring

    ring = on_the_ring()
    assert abs(ring["radius"] - 1) <= 0.05
    assert ring["angle_tv"] <= 0.1
    assert ring["regression_radius"] < 0.5
