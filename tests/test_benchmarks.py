"""The references of the benchmarks are a second implementation: equal weights and noise give equal numbers."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parent.parent))  # the benchmarks are no part of the package

from benchmarks import planner, policy, samplers
from benchmarks.measure import floor, peak
from benchmarks.usual.diffuser import Planner
from benchmarks.usual.diffusion_ql import Agent, Draws

from ornstein.noise import draw, generator
from ornstein.systems.planners.diffuser import Config, Diffuser
from ornstein.types import Noise, Spaces, Transitions
from ornstein.update import Update


def queue(*entries: Tensor) -> Callable[[Tensor], Tensor]:
    """Recorded noise in place of `randn_like`, in order, each of the shape that is asked for."""
    left: Iterator[Tensor] = iter(entries)

    def normal(like: Tensor) -> Tensor:
        entry = next(left)
        assert entry.shape == like.shape
        return entry.clone()

    return normal


def chain(noise: Noise) -> list[Tensor]:
    """Start and steps in the order in which an ancestral loop asks for them; the last step's is never used."""
    steps = noise["steps"].movedim(1, 0)
    return [noise["start"], *steps, torch.zeros_like(steps[0])]


@pytest.fixture
def batch() -> Transitions:
    source = torch.Generator().manual_seed(3)
    obs, next_obs = torch.randn(2, 32, 17, generator=source)
    action = torch.rand(32, 6, generator=source) * 2 - 1
    terminal = (torch.rand(32, generator=source) < 0.2).float()
    return Transitions(obs, action, torch.randn(32, generator=source), next_obs, terminal, torch.full((32,), 0.99))


def test_diffusion_ql_updates_as_the_official_way(batch: Transitions) -> None:
    learner, usual = policy.make(), Agent(17, 6)
    usual.clip = learner.config.clip
    policy.match(learner, usual)
    update, specs = Update([learner], steps=10), {p.name: p.noise for p in learner.phases() if hasattr(p, "noise")}
    columns = (batch.obs, batch.action, batch.next_obs, batch.reward[:, None], 1 - batch.terminal[:, None])
    for step, coin in ((1000, 0.1), (1001, 0.9), (1005, 0.4)):
        noises = {name: draw(spec, 32, generator(step, name)) for name, spec in specs.items()}
        noises["actor"] = dict(noises["actor"]) | {"coin": torch.tensor(coin)}
        readings = update(step, batch, noises)
        critic = {name: values[:, 0] for name, values in noises["critic"].items()}
        actor, usual.step = noises["actor"], step
        draws = Draws(
            normal=queue(*chain(critic), actor["eps"], *chain(actor)),
            step=lambda n, t=actor["t"]: (t * 5).floor().long(),
            coin=lambda coin=coin: coin,
        )
        theirs = usual.update(columns, draws)
        ours = {name: dict(zip(r.names, r.values[:, 0].tolist(), strict=True)) for name, r in readings.items()}
        assert ours["critic"]["loss"] == pytest.approx(theirs["critic"], rel=1e-4)
        assert ours["critic"]["target"] == pytest.approx(theirs["target"], rel=1e-4, abs=1e-5)
        assert ours["critic"]["grad_norm"] == pytest.approx(theirs["critic_norm"], rel=1e-4)
        assert ours["actor"]["cloning"] == pytest.approx(theirs["cloning"], rel=1e-4)
        assert ours["actor"]["improve"] == pytest.approx(theirs["improve"], rel=1e-3, abs=1e-5)
        assert ours["actor"]["grad_norm"] == pytest.approx(theirs["actor_norm"], rel=1e-3)
    again = Agent(17, 6)
    policy.match(learner, again)
    for name in ("actor", "average", "critic", "target"):
        for ours, theirs in zip(getattr(again, name).parameters(), getattr(usual, name).parameters(), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=2e-5)


def test_diffusion_ql_acts_as_the_official_way() -> None:
    learner, usual = policy.make(), Agent(17, 6)
    policy.match(learner, usual)
    state = np.random.default_rng(0).standard_normal(17).astype(np.float32)
    noise = draw(learner.noise, 1, generator("act"))
    rows = {name: values[0] for name, values in noise.items()}
    gumbel = -torch.log(-torch.log(rows["choice"]))
    theirs = usual.act(state, queue(*chain(rows)), lambda value: (value + gumbel).argmax())
    with torch.no_grad():
        ours = learner.act(torch.from_numpy(state)[None], (), noise)[0][0]
    np.testing.assert_allclose(ours.numpy(), theirs, atol=1e-5)


def test_diffuser_plans_as_the_official_way() -> None:
    spaces, config = Spaces(obs=5, act=2), Config(horizon=8, diffusion_steps=6, calls=6, candidates=1, guide_scale=10.0)
    torch.manual_seed(0)
    learner, usual = Diffuser(config, spaces).eval(), Planner(5, 2, horizon=8, steps=6, scale=10.0)
    planner.match(learner, usual)
    state, noise = torch.randn(1, 5), draw(learner.noise, 1, generator("plan"))
    draws = chain({name: values[0] for name, values in noise.items()})
    with torch.no_grad():
        plan = learner.plan(state, learner.start(1), noise)
    ours = torch.cat((plan.action, plan.obs), dim=-1)
    torch.testing.assert_close(ours, usual.sample(state[0], 1, queue(*draws))[0], rtol=1e-4, atol=1e-4)
    usual.scale = 0.0
    assert (ours - usual.sample(state[0], 1, queue(*draws))[0]).abs().max() > 1e-3


@pytest.mark.parametrize("solver", samplers.SOLVERS)
@pytest.mark.parametrize("steps", [5, 15])
def test_samples_equal_those_of_diffusers(solver: str, steps: int) -> None:
    assert samplers.difference(solver, steps) < 1e-5


def test_the_floor_counts_products_and_their_gradients() -> None:
    a, b = torch.randn(8, 16, requires_grad=True), torch.randn(16, 4, requires_grad=True)
    assert floor(lambda: a @ b) == pytest.approx(2 * 8 * 16 * 4 / peak())
    assert floor(lambda: torch.autograd.grad((a @ b).sum(), [a, b])) == pytest.approx(3 * 2 * 8 * 16 * 4 / peak())
