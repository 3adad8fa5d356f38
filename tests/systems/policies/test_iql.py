"""What makes IQL what it is: no action outside of the data is valued, V is an expectile, the policy a weighted
cloning.
"""

from dataclasses import replace
from typing import Any

import pytest
import torch

from nets.reference import normal
from ornstein.envs.toy import CORNERS
from ornstein.fit import Run
from ornstein.rl.actor import GaussianActor
from ornstein.systems.policies.iql import IQL, PRESETS, SYSTEM, Config
from ornstein.types import Descend, Spaces, Transitions

SMALL = Config(width=16, batch_size=8)


def agent(config: Config = SMALL, spaces: Spaces | None = None) -> IQL:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return IQL(config, spaces or Spaces(obs=3, act=2))


def batch(rows: int = 8) -> Transitions:
    action, discount = normal(rows, 2, seed=2).clamp(-1, 1), torch.full((rows,), 0.99)
    return Transitions(normal(rows, 3), action, normal(rows), normal(rows, 3, seed=3), torch.zeros(rows), discount)


def test_the_policy_clones_the_data_by_the_exponential_of_their_advantage():
    a, b = agent(), batch()
    with torch.no_grad():
        gain = a.critics_target(b.obs, b.action).min(0).values - a.values(b.obs)[0]
        law = torch.distributions.Normal(a.actor.mean(b.obs), a.actor.log_std.exp())
        expected = -((3.0 * gain).exp().clamp(max=100) * law.log_prob(b.action).sum(1)).mean()
        torch.testing.assert_close(a.actor_loss(b, {})[0], expected)
        cloning = agent(replace(SMALL, temperature=0.0)).actor_loss(b, {})[0]
        torch.testing.assert_close(cloning, -law.log_prob(b.action).sum(1).mean())


def test_no_network_is_asked_for_the_value_of_an_action_that_is_not_in_the_data():
    a, b = agent(), batch()
    asked: list[torch.Tensor] = []
    for critics in (a.critics, a.critics_target):
        critics.register_forward_pre_hook(lambda module, inputs: asked.append(inputs[1]))
    for phase in a.phases():
        if isinstance(phase, Descend):
            phase.loss(b, {})
    assert len(asked) == 3
    assert all(torch.equal(action, b.action) for action in asked)


def test_each_loss_reaches_its_own_network_only():
    a, b = agent(), batch()
    networks = {"value": a.values, "actor": a.actor, "critic": a.critics, "target": a.critics_target}
    for phase in a.phases():
        if isinstance(phase, Descend):
            a.zero_grad()
            phase.loss(b, {})[0].backward()
            reached = {name for name, net in networks.items() if any(p.grad is not None for p in net.parameters())}
            assert reached == {phase.name}


def test_the_targets_of_value_and_critic():
    a, b = agent(), batch()
    with torch.no_grad():
        u = a.critics_target(b.obs, b.action).min(0).values - a.values(b.obs)[0]
        torch.testing.assert_close(a.value_loss(b, {})[0], (torch.where(u < 0, 0.3, 0.7) * u**2).mean())
        target = b.reward + 0.99 * a.values(b.next_obs)[0]
        torch.testing.assert_close(a.critic_loss(b, {})[0], ((a.critics(b.obs, b.action) - target) ** 2).mean(1).sum())


def test_actions_are_scaled_by_the_box_both_ways():
    wide = agent(spaces=Spaces(obs=3, act=2, action_low=(-4.0, 0.0), action_high=(4.0, 2.0)))
    unit, b = agent(), batch()
    stretched = b._replace(action=b.action * torch.tensor([4.0, 1.0]) + torch.tensor([0.0, 1.0]))
    torch.testing.assert_close(wide.actor_loss(stretched, {})[0], unit.actor_loss(b, {})[0])
    with torch.no_grad():
        action = wide.act(b.obs, (), {})[0]
        torch.testing.assert_close(
            action, unit.act(b.obs, (), {})[0] * torch.tensor([4.0, 1.0]) + torch.tensor([0.0, 1])
        )


def test_the_density_is_that_of_a_normal_law_with_a_std_of_its_own_and_bounds():
    actor, obs, action = GaussianActor(3, 2, width=8), normal(5, 3), normal(5, 2, seed=4)
    with torch.no_grad():
        actor.log_std.copy_(torch.tensor([-9.0, 0.3]))
        expected = torch.distributions.Normal(actor(obs), torch.tensor([-5.0, 0.3]).exp()).log_prob(action).sum(1)
        torch.testing.assert_close(actor.log_prob(obs, action), expected)
        assert actor(100 * obs).abs().max() <= 1.0


@pytest.mark.slow
@pytest.mark.parametrize("temperature", [3.0, 0.0])
def test_on_four_corners_weighting_finds_the_best_and_cloning_the_middle(temperature):
    from recipes.bandit import data

    config = replace(PRESETS["bandit"], temperature=temperature, width=64, lr=3e-3, ema_rate=0.05)
    a: Any = SYSTEM.run(config, data(rows=2000), Run(None, steps=500, quiet=True))[0]
    with torch.no_grad():
        action = a.act(torch.zeros(1, 1), (), {})[0][0]
    aim = torch.tensor(CORNERS[3] if temperature else (0.0, 0.0))
    assert torch.linalg.vector_norm(action - aim) < 0.25
