"""Diffusion cloning: the data's law, or that of its best episodes, and nothing of values."""

from dataclasses import replace
from typing import Literal

import torch

from ornstein.data.episodes import Episodes
from ornstein.fit import Run
from ornstein.noise import draw, generator
from ornstein.systems.policies.diffusion_cloning import PRESETS, SYSTEM, DiffusionCloning


def two_habits() -> Episodes:
    """Ninety poor episodes act at -0.7, ten good ones at +0.7."""
    g = generator("habits")
    obs = [torch.zeros(3, 1) for _ in range(100)]
    action = [(0.7 if i < 10 else -0.7) + 0.03 * torch.randn(2, 1, generator=g) for i in range(100)]
    reward = [torch.full((2,), 1.0 if i < 10 else 0.0) for i in range(100)]
    return Episodes.from_lists(obs, action, reward, terminal=[True] * 100)


def acts(share: float, path: Literal["vp", "flow"] = "vp", steps: int = 300) -> torch.Tensor:
    config = replace(
        PRESETS["bandit"], best_share=share, path=path, width=64, diffusion_steps=10, activation="silu", ema_rate=0.1,
        ema_every=1,
    )  # fmt: skip
    agent = SYSTEM.run(config, two_habits(), Run(None, steps=steps, quiet=True))[0]
    assert isinstance(agent, DiffusionCloning)
    with torch.no_grad():
        action, _ = agent.act(torch.zeros(500, 1), (), draw(agent.noise, 500, generator("act")))
    return action


def test_it_keeps_both_habits_in_their_proportions():
    good = (acts(1.0) > 0).double().mean()
    assert 0.03 < good < 0.25


def test_the_best_tenth_of_the_episodes_is_the_good_habit():
    assert (acts(0.1) > 0).double().mean() > 0.97


def test_a_flow_keeps_both_habits_too():
    action = acts(1.0, "flow", 900)
    assert 0.03 < (action > 0).double().mean() < 0.25
    assert (action.abs() - 0.7).abs().mean() < 0.2
