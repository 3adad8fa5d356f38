"""SynthER on the pendulum's known dynamics: are generated transitions true, new, and spread like the data?

20,000 random-action transitions of Pendulum-v1. Measured on 5,000 generated ones: the error of next state and reward
against the true dynamics at the generated state and action, beside the same after shuffling the pairing (what a model
of the marginals would give); the circle that cos and sin lie on; per-dimension Wasserstein distances; nearest
neighbours in the data; and what clamping the samples to [-1, 1] in normalised units, a common sampler default, would
do.
"""

import argparse
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ornstein.data.collect import collect
from ornstein.data.episodes import Episodes
from ornstein.data.transitions import transitions
from ornstein.envs.make import make
from ornstein.envs.toy import pendulum
from ornstein.fit import Run
from ornstein.noise import generator
from ornstein.systems.synthesizers import synther
from recipes.common import say, write

COUNT = 5000


def data(steps: int = 20_000) -> Episodes:
    """Transitions under uniform torques."""
    source = generator("torques")

    def act(obs: Any) -> np.ndarray:
        return 4 * torch.rand(1, generator=source).numpy() - 2

    return collect(make("Pendulum-v1"), act, steps=steps, seed=0)


def columns(episodes: Episodes) -> Tensor:
    """All transitions as rows (obs, action, reward, next_obs)."""
    known = transitions(episodes)
    b = known.gather(torch.arange(len(known)))
    return torch.cat((b.obs, b.action, b.reward[:, None], b.next_obs), 1)


def dynamics_error(rows: Tensor, spread: Tensor) -> dict[str, float]:
    """Median absolute errors of next state and reward, in standard deviations of the data."""
    next_obs, reward = pendulum(rows[:, :3], rows[:, 3:4])
    state = ((rows[:, 5:] - next_obs) / spread[5:]).abs().mean(1).median()
    return {"next_state": float(state), "reward": float(((rows[:, 4] - reward) / spread[4]).abs().median())}


def wasserstein(a: Tensor, b: Tensor) -> Tensor:
    """Wasserstein-1 distance of each dimension, by quantiles."""
    levels = torch.linspace(0.0005, 0.9995, 1000)
    return (torch.quantile(a, levels, 0) - torch.quantile(b, levels, 0)).abs().mean(0)


def near_share(made: Tensor, real: Tensor, rows: int = 2000) -> float:
    """Share of generated points nearer to the data than the data's own median nearest-neighbour distance."""
    own = torch.cdist(real[:rows], real)
    own[torch.arange(rows), torch.arange(rows)] = torch.inf
    return float((torch.cdist(made[:rows], real).min(1).values < own.min(1).values.median()).double().mean())


def main(steps: int = 6000, seed: int = 0) -> dict[str, Any]:
    """Every measure of the acceptance experiment."""
    torch.set_num_threads(1)
    episodes = data()
    real = columns(episodes)
    mean, spread = real.mean(0), real.std(0)
    agent: Any = synther.SYSTEM.run(synther.PRESETS["fast"], episodes, Run(None, seeds=(seed,), steps=steps))[0]
    calls = 0

    def count(*_: Any) -> None:
        nonlocal calls
        calls += 1

    hook = agent.ema.network.register_forward_hook(count)
    say("generating")
    made = columns(agent.generate(COUNT, seed))
    hook.remove()
    agent.ema.bound = 1.0
    clamped = columns(agent.generate(COUNT, seed))
    shuffled = torch.cat((made[:, :4], made[torch.randperm(COUNT, generator=generator("shuffle")), 4:]), 1)
    radius = made[:, 0].square() + made[:, 1].square()
    unit, real_unit = (made - mean) / spread, (real - mean) / spread
    return {
        "steps": steps,
        "seed": seed,
        "network_calls": calls,
        "error": dynamics_error(made, spread),
        "error_shuffled": dynamics_error(shuffled, spread),
        "on_circle": float(((radius - 1).abs() <= 0.1).double().mean()),
        "wasserstein_max": float(wasserstein(unit, real_unit).max()),
        "wasserstein_max_clamped": float(wasserstein((clamped - mean) / spread, real_unit).max()),
        "near_share": near_share(unit, real_unit),
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=6000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    write("pendulum", main(options.steps, options.seed))
