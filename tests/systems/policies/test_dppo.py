"""DPPO: the law of its steps, what its objective is and what it reaches, and control arms for what keeps it sound."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.distributions import Normal

from ornstein import contract
from ornstein.contract import compiling
from ornstein.contract.case import prepare
from ornstein.fit import Run, fit
from ornstein.noise import draw, generator
from ornstein.rollout import Experience
from ornstein.systems.policies import dppo
from ornstein.types import Point, Rolled, Spaces

SMALL = replace(dppo.PRESETS["pendulum"], diffusion_steps=6, tuned_steps=4, width=16, critic_width=16)


def learner(**changes: Any) -> dppo.DPPO:
    torch.manual_seed(0)
    agent = dppo.DPPO(replace(SMALL, **changes), Spaces(obs=3, act=2, action_low=(-2.0, -2.0), action_high=(2.0, 2.0)))
    agent.begin()
    return agent


def rolled(agent: dppo.DPPO, rows: int = 64) -> Rolled:
    source = generator("rolled")
    obs = torch.randn(rows, 3, generator=source)
    with torch.no_grad():
        _, path, log_prob = agent.roll(obs, draw(agent.roll_noise, rows, source))
    return Rolled(obs, path, log_prob, torch.randn(rows, generator=source), torch.randn(rows, generator=source))


def nudge(module: torch.nn.Module, size: float) -> None:
    """Move all weights, as one update of this learning rate would."""
    source = generator("nudge")
    with torch.no_grad():
        for p in module.parameters():
            p.add_(size * torch.randn(p.shape, generator=source).sign())


def test_densities_are_clamped_by_entry_and_averaged_and_those_of_the_draws_are_found_again():
    agent = learner(least_std=0.02)  # narrow enough for a density above exp(2)
    batch = rolled(agent)
    torch.testing.assert_close(agent.log_prob(batch.obs, batch.path), batch.log_prob, atol=1e-4, rtol=1e-4)
    seen = agent.normalizer(batch.obs)
    steps = agent.chain
    wanted = []
    for i in range(4):
        k = steps.first + i
        x = batch.path[:, i]
        point = [getattr(steps, name)[k].float().expand(len(x)) for name in ("t", "alpha", "sigma")]
        x0 = agent.actor.denoiser(x, Point(point[0], *(each.unsqueeze(1) for each in point[1:])), seen)
        keep, pull, std = steps.loud[:, k].float()
        wanted.append(Normal(keep * x + pull * x0, std).log_prob(batch.path[:, i + 1]))
    raw = torch.stack(wanted, 1)
    assert (raw > 2).any()
    torch.testing.assert_close(agent.log_prob(batch.obs, batch.path), raw.clamp(-5, 2).mean(-1), atol=1e-4, rtol=1e-4)


def test_the_objective_by_hand():
    agent = learner(denoising_discount=0.5, reach=0.2, first_reach=0.1, reach_rate=1.0)
    batch = rolled(agent)
    nudge(agent.actor, 0.5)
    loss, metrics = agent.actor_loss(batch, {})
    ratio = (agent.log_prob(batch.obs, batch.path) - batch.log_prob).exp()
    advantage = (batch.advantage - batch.advantage.mean()) / batch.advantage.std(correction=0)
    total = 0.0
    for i in range(4):
        reach = 0.1 + 0.1 * (np.exp(i / 3) - 1) / (np.e - 1)
        weight = advantage * 0.5 ** (4 - i - 1)
        total += torch.minimum(ratio[:, i] * weight, ratio[:, i].clamp(1 - reach, 1 + reach) * weight).mean() / 4
    torch.testing.assert_close(loss, -torch.as_tensor(total))
    torch.testing.assert_close(metrics["drift"], (ratio - 1 - ratio.log()).mean(), atol=1e-5, rtol=1e-3)
    assert 0 < metrics["beyond"] < 1
    torch.testing.assert_close(metrics["drift"], agent.drift(batch))
    value, _ = agent.critic_loss(batch, {})
    torch.testing.assert_close(value, 0.5 * (agent.value(batch.obs) - batch.target).square().mean())


def test_without_a_floor_in_the_densities_the_ratios_explode():
    """The control arm: draws keep their least standard deviation, densities have the process's own, 1e-3 at least."""
    agent, bare = learner(), learner()
    batch = rolled(agent)
    own = torch.cat((bare.chain.quiet[2], torch.zeros(1, dtype=torch.float64))).clamp(min=1e-3)
    bare.chain.loud[2].copy_(own)

    def entries(agent: dppo.DPPO) -> Tensor:
        late = agent.actor.denoiser.given(agent.normalizer(batch.obs).repeat_interleave(4, 0))
        return agent.chain.log_prob(late, batch.path).detach()

    before = [entries(each) for each in (agent, bare)]
    clamped = bare.log_prob(batch.obs, batch.path)[:, -1]
    for each in (agent, bare):
        nudge(each.actor, 1e-3)
    with_floor, without = ((entries(e) - old).abs().max() for e, old in zip((agent, bare), before, strict=True))
    assert with_floor < 0.1
    assert without > 10  # a ratio of e^10 after one small step
    assert (clamped == -5).float().mean() > 0.9  # the clamp hides it, and with it all that the last step could learn


def test_the_discount_over_denoising_steps_turns_the_gradient():
    batch = rolled(learner())

    def slope(discount: float) -> Tensor:
        agent = learner(denoising_discount=discount)
        found = torch.autograd.grad(agent.actor_loss(batch, {})[0], list(agent.actor.denoiser.parameters()))
        return torch.cat([g.flatten() for g in found])

    plain, faded = slope(1.0), slope(0.5)
    assert torch.cosine_similarity(plain, faded, dim=0) < 0.99
    assert faded.norm() < plain.norm()


def test_only_the_last_steps_are_tuned_and_the_first_keep_the_clone():
    agent = learner()
    assert {phase.name: phase.module for phase in agent.phases()} == {"actor": agent.actor, "critic": agent.critic}  # type: ignore
    assert not any(p.requires_grad for p in agent.base.parameters())
    obs, noise = torch.randn(8, 3, generator=generator("obs")), draw(agent.noise, 8, generator("noise"))
    with torch.no_grad():
        _, before, _ = agent.roll(obs, noise)
        nudge(agent.actor, 0.1)
        _, tuned, _ = agent.roll(obs, noise)
        nudge(agent.base, 0.1)
        _, base, _ = agent.roll(obs, noise)
    assert torch.equal(before[:, 0], tuned[:, 0]) and not torch.equal(before[:, 1], tuned[:, 1])
    assert not torch.equal(base[:, 0], tuned[:, 0])


def test_rolling_spreads_actions_that_acting_does_not():
    """Of one state and start: the last draw has the least standard deviation, and the box clips it."""
    agent = learner(tuned_steps=1, least_std=0.05)
    obs = torch.zeros(4000, 3)
    noise = draw(agent.noise, 4000, generator("spread"))
    noise = {"start": noise["start"][:1].expand(4000, -1), "steps": noise["steps"].clone()}
    noise["steps"][:, :-1] = 0.0
    with torch.no_grad():
        act = agent.act(obs, (), noise)[0]
        action, path, _ = agent.roll(obs, noise)
    assert act.std(0).max() < 1e-5
    assert path[:, -1].std(0).tolist() == pytest.approx([0.05, 0.05], rel=0.05)
    torch.testing.assert_close(action, 2 * path[:, -1].clamp(-1, 1))


def test_cloning_keeps_the_copies_in_step():
    case = prepare(dppo.SYSTEM, dppo.PRESETS["pendulum"])
    agent = case.learner
    for ours, theirs in zip(agent.actor.parameters(), agent.base.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    assert not torch.equal(agent.base.denoiser.network.body[0].weight, agent.clone.denoiser.network.body[0].weight)
    assert agent.normalizer.scale.min() != 1


def train(config: dppo.Config, episodes: Any, run: Run) -> list[Any]:
    """Tuning in an environment, in place of cloning."""
    rollouts = dppo.rollouts(config)
    learners: list[Any] = run.build(lambda: dppo.DPPO(config, episodes.spaces))
    for agent in learners:
        agent.begin()
    for agent, seed in zip(learners, run.seeds, strict=True):
        data = Experience("PointMass-v0", rollouts, seed=seed)
        fit([agent], data, steps=rollouts.steps, batch_size=rollouts.batch_size, run=replace(run, seeds=(seed,)))
    return learners


TUNED = replace(SMALL, n_envs=2, n_steps=8, tune_batch_size=8, epochs=2)


def spaces() -> Spaces:
    return Experience("PointMass-v0", dppo.rollouts(TUNED), seed=0).spaces


def test_tuning_keeps_the_contract():
    system = replace(dppo.SYSTEM, train=train)
    results = list(contract.check(system, TUNED, spaces=spaces()))
    assert [r for r in results if not r.passed] == []
    assert len(results) > 10


@pytest.mark.graph
def test_tuning_is_one_graph_per_loss_and_act():
    case = prepare(replace(dppo.SYSTEM, train=train), TUNED, spaces())
    for examine in compiling.checks(case.learner).values():
        examine(case)


@pytest.mark.slow
def test_tuning_improves_a_mediocre_clone_and_more_cloning_does_not():
    from recipes import dppo as recipe

    found = recipe.main()
    assert found["gain"]["low"] > 0
    assert all(row["tuned"] > row["cloned"] + 100 for row in found["seeds"])
    assert all(row["tuned"] > row["cloned_on"] + 100 for row in found["seeds"])
    assert found["tuned"]["mean"] > -250
