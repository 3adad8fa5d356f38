"""What makes discrete SAC what it is: sums over choices, entropy in the target, a temperature that can be fixed."""

from dataclasses import replace
from math import log
from typing import Any

import numpy as np
import pytest
import torch

from ornstein.evaluate import evaluate
from ornstein.fit import Run
from ornstein.noise import generator
from ornstein.online import Experience, Online, train_online
from ornstein.systems.policies.sac_discrete import PRESETS, SYSTEM, Config, SACDiscrete
from ornstein.types import Spaces, Transitions

SMALL = Config(width=16, batch_size=8, temperature=0.5)
SPACES = Spaces(obs=3, act=4, action_low=(0.0,) * 4, action_high=(1.0,) * 4)


def agent(config: Config = SMALL) -> SACDiscrete:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return SACDiscrete(config, SPACES)


def batch(n: int = 5) -> Transitions:
    source = generator("batch")
    obs, then = torch.randn(2, n, 3, generator=source)
    action, reward = torch.rand(n, 4, generator=source), torch.randn(n, generator=source)
    return Transitions(obs, action, reward, then, (torch.arange(n) % 2).float(), torch.full((n,), 0.9))


def test_the_target_sums_over_all_choices_and_holds_the_entropy():
    policy, b = agent(), batch()
    probs, q = policy.actor(b.next_obs).softmax(-1), policy.critics_target(b.next_obs).amin(0)
    soft = (probs * (q - 0.5 * probs.log())).sum(-1)
    target = b.reward + 0.9 * (1 - b.terminal) * soft
    taken = policy.critics(b.obs)[:, torch.arange(5), b.action.argmax(1)]
    torch.testing.assert_close(policy.critic_loss(b, {})[0], (taken - target).square().mean(1).sum())


def test_the_entropy_is_held_to_a_share_of_the_largest():
    policy, b = agent(), batch()
    probs = policy.actor(b.obs).softmax(-1)
    spread = -(probs * probs.log()).sum(-1).mean()
    loss, _ = policy.temperature_loss(b, {})
    torch.testing.assert_close(loss, 0.5 * (spread - 0.98 * log(4)))
    data = Experience("EdgeProviders-v0?providers=5", Online(warmup=30), seed=0, discount=0.9)
    config = replace(PRESETS["providers-small"], width=16, batch_size=8)
    learned: Any = train_online(SYSTEM, config, data.vector.name, Run(None, steps=5, quiet=True), online=data.online)
    assert learned.temperature().item() == pytest.approx(0.05)


def test_exploring_draws_and_acting_does_not():
    policy, obs = agent(), torch.zeros(4000, 3)
    drawn, _ = policy.explore(obs, (), {"choice": torch.rand(4000, 4, generator=generator("choice"))})
    assert drawn.sum(1).unique().tolist() == [1.0]
    torch.testing.assert_close(drawn.mean(0), policy.actor(obs)[0].softmax(-1).detach(), atol=0.03, rtol=0)
    acted, _ = policy.act(obs, (), {})
    assert len(acted.unique(dim=0)) == 1


@pytest.mark.slow
def test_it_balances_the_pole():
    torch.set_num_threads(1)
    config = replace(PRESETS["discrete"], lr=1e-3, hold=0.3, temperature=0.2, width=64, steps=8_000)
    learned: Any = train_online(SYSTEM, config, "CartPole-v1", Run(None, steps=8_000), online=Online(warmup=1_000))
    assert np.mean(evaluate(learned, "CartPole-v1", episodes=10, seed=1).returns) > 150
