"""Cloning by likelihood: what a Gaussian merges, a mixture keeps apart."""

from dataclasses import replace

import torch

from ornstein.data.episodes import Episodes
from ornstein.fit import Run
from ornstein.noise import draw, generator
from ornstein.systems.policies.cloning import PRESETS, SYSTEM, Cloning


def two_habits() -> Episodes:
    """Seventy poor episodes act at -0.6, thirty good ones at +0.6."""
    g = generator("habits")
    obs = [torch.zeros(3, 1) for _ in range(100)]
    action = [(0.6 if i < 30 else -0.6) + 0.05 * torch.randn(2, 1, generator=g) for i in range(100)]
    reward = [torch.full((2,), 1.0 if i < 30 else 0.0) for i in range(100)]
    return Episodes.from_lists(obs, action, reward, terminal=[True] * 100)


def acts(**changes: object) -> torch.Tensor:
    config = replace(PRESETS["bandit"], width=32, lr=1e-2, **changes)  # type: ignore[arg-type]
    agent = SYSTEM.run(config, two_habits(), Run(None, steps=300, quiet=True))[0]
    assert isinstance(agent, Cloning)
    with torch.no_grad():
        action, _ = agent.act(torch.zeros(1000, 1), (), draw(agent.noise, 1000, generator("act")))
    return action[:, 0]


def near(action: torch.Tensor, centre: float) -> float:
    return (action - centre).abs().lt(0.2).double().mean().item()


def test_a_mixture_draws_both_habits_in_their_proportions():
    action = acts(components=2)
    assert abs(near(action, 0.6) - 0.3) < 0.06
    assert near(action, 0.6) + near(action, -0.6) > 0.97
    assert action[action > 0].std() < 0.1


def test_a_gaussian_merges_them():
    action = acts(components=1)
    assert abs(action.mean() + 0.24) < 0.06  # 0.3 x 0.6 - 0.7 x 0.6
    assert abs(action.std() - 0.55) < 0.06  # 2 x 0.6 sqrt(0.3 x 0.7)
    assert near(action, 0.6) + near(action, -0.6) < 0.5


def test_means_without_sampling_and_the_best_share_alone():
    assert acts(components=1, sample=False).std() < 1e-6
    assert near(acts(components=2, sample=False, best_share=0.3), 0.6) > 0.99
