"""DPPO: a diffusion policy cloned from mediocre demonstrations, improved in the environment.

On the pendulum the demonstrations swing up by the energy but hold badly at the top, with noise on every torque; on the
hopper (`--env hopper`) they are the recorded episodes of hopper-medium. From one clone per seed go two arms: tuning by
DPPO on 50,000 environment steps, and as many updates more of cloning. Each is scored by its mean return over 50
episodes, as is the clone.
"""

import argparse
from dataclasses import replace
from pathlib import Path
from statistics import mean
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

from ornstein import checkpoint
from ornstein.data.collect import collect
from ornstein.data.episodes import Episodes
from ornstein.data.open import open_dataset
from ornstein.envs.make import make
from ornstein.evaluate import evaluate
from ornstein.fit import Run
from ornstein.noise import generator
from ornstein.rollout import train_on_policy
from ornstein.systems.policies import dppo
from recipes.common import interval, offline_file, say, write

ENVS = {"pendulum": ("Pendulum-v1", dppo.PRESETS["pendulum"]), "hopper": ("Hopper-v5", dppo.PRESETS["hopper-cpu"])}


def demonstrations(episodes: int = 100, steps: int = 100, seed: int = 0) -> Episodes:
    """A controller that pumps energy below and is a weak spring at the top, its torques with Gaussian noise of 0.5."""
    source = generator("demonstrations", seed)

    def act(obs: Any) -> np.ndarray:
        cos, sin, speed = (float(value) for value in np.asarray(obs).ravel())
        energy = speed**2 / 6 + 5 * cos - 5  # 0 at rest at the top
        wanted = -3.0 * np.arctan2(sin, cos) - 0.5 * speed if cos > 0.8 else -0.2 * speed * energy
        return np.array([wanted + 0.5 * float(torch.randn((), generator=source))], np.float32)

    return collect(make("Pendulum-v1"), act, episodes=episodes, seed=seed, max_episode_steps=steps)


def score(policy: Any, env: str) -> float:
    """Mean return over 50 episodes that no training saw."""
    return float(np.mean(evaluate(policy, env, episodes=50, n_envs=50, seed=1).returns))


def arms(episodes: Episodes, seed: int, env: str, config: dppo.Config) -> dict[str, float]:
    """The return of the clone, of the tuned clone, and of the clone cloned on."""
    with TemporaryDirectory() as folder:
        first = Path(folder) / "clone"
        clone = dppo.SYSTEM.run(config, episodes, Run(first, seeds=(seed,), quiet=True))[0]
        run = Run(None, seeds=(seed,), quiet=True, init_from=first)
        last = Path(folder) / "tuned"
        tuned = train_on_policy(dppo.SYSTEM, config, env, replace(run, directory=last))
        made = checkpoint.read_tensors(checkpoint.locate(last) / "training_state.safetensors")["data/counts"][2]
        more = dppo.SYSTEM.run(replace(config, steps=config.tune_steps), episodes, run)[0]
        found = {
            name: round(score(each, env), 1)
            for name, each in (("cloned", clone), ("tuned", tuned), ("cloned_on", more))
        }
    say(f"seed {seed}: {found}")
    return {"seed": seed, "environment_steps": int(made), **found}


def main(place: str = "pendulum", seeds: int = 3) -> dict[str, Any]:
    """All arms of all seeds, and the gain over cloning on."""
    torch.set_num_threads(1)
    env, config = ENVS[place]
    if place == "pendulum":
        episodes, demonstrated = demonstrations(), demonstrations(50, 200, seed=1)
    else:
        demonstrated = episodes = open_dataset(offline_file("hopper-medium"))
    rows = [arms(episodes, seed, env, config) for seed in range(seeds)]
    return {
        "env": env,
        "demonstrated": round(mean(demonstrated.returns.tolist()), 1),
        "seeds": rows,
        **{name: interval([row[name] for row in rows]) for name in ("cloned", "tuned", "cloned_on")},
        "gain": interval([row["tuned"] - row["cloned_on"] for row in rows]),
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--env", choices=list(ENVS), default="pendulum")
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    write("dppo" if options.env == "pendulum" else f"dppo_{options.env}", main(options.env, options.seeds))
