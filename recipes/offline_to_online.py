"""From records to practice: flow Q-learning trained on recorded episodes goes on learning in the environment.

Three arms with the same networks' width, batch and environment steps, one update a step: FQL from the weights of its
offline training, its replay beginning with the records; FQL from nothing; a plain SAC from nothing. All are judged on
the same episodes. What tells the first from the others is what the records were worth; what it tells about itself is
whether practice improves on them, or undoes them first.
"""

import argparse
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from ornstein.data.open import open_dataset
from ornstein.envs.make import make
from ornstein.evaluate import evaluate
from ornstein.fit import Run
from ornstein.online import Online
from ornstein.systems.policies import fql, sac
from recipes.common import interval, learned, offline_file, say, write

ENVS = {"hopper-replay": "Hopper-v5", "walker2d-replay": "Walker2d-v5", "halfcheetah-replay": "HalfCheetah-v5"}
OFFLINE = fql.PRESETS["replay-cpu"]
FURTHER = replace(OFFLINE, schedule="constant", lr=3e-4)
FRESH = replace(FURTHER, standardize=False, lr=1e-3)
SAC = replace(sac.BASE, width=OFFLINE.width, batch_size=OFFLINE.batch_size, lr=1e-3)
WARMUP = 2_000
"""Steps of random actions of those who begin with nothing; they count as environment steps."""


def score(policy: Any, env: str, episodes: int) -> float:
    """Mean return over episodes of fixed seeds."""
    found = evaluate(policy, env, episodes=episodes, seed=1, n_envs=episodes)
    return round(float(found.summary()["return_mean"]), 1)


def arms(data: str, seed: int, steps: int, points: int) -> dict[str, Any]:
    """Returns before and after practice, and along it."""
    env, episodes = ENVS[data], open_dataset(offline_file(data))
    every = max(1, steps // points)
    look = lambda policy: {"return": score(policy, env, 5)}  # noqa: E731
    share: dict[str, Any] = {"seed": seed, "score": look, "every": every}
    with TemporaryDirectory() as folder:
        offline = fql.SYSTEM.run(OFFLINE, episodes, Run(Path(folder), seeds=(seed,), quiet=True))[0]
        further = learned(
            fql.SYSTEM, replace(FURTHER, steps=steps), lambda: make(env), Online(warmup=0), prior=episodes,
            weights=Path(folder), **share,
        )  # fmt: skip
    alone = {"online": Online(warmup=WARMUP), "env": lambda: make(env), **share}
    fresh = learned(fql.SYSTEM, replace(FRESH, steps=steps - WARMUP), **alone)
    plain = learned(sac.SYSTEM, replace(SAC, steps=steps - WARMUP), **alone)
    found: dict[str, Any] = {"seed": seed, "offline": score(offline, env, 20)}
    for name, (policy, curve), begun in (
        ("offline_to_online", further, 0), ("from_nothing", fresh, WARMUP), ("sac", plain, WARMUP)
    ):  # fmt: skip
        found[name] = score(policy, env, 20)
        found[f"{name}_curve"] = [[int(begun + point["updates"]), point["return"]] for point in curve]
    say(f"{data} seed {seed}: { {k: v for k, v in found.items() if 'curve' not in k} }")
    return found


def main(data: str, seeds: int, steps: int, points: int = 8) -> dict[str, Any]:
    """All arms of all seeds; what practice added, and what the records were worth."""
    torch.set_num_threads(1)
    rows = [arms(data, seed, steps, points) for seed in range(seeds)]
    names = ("offline", "offline_to_online", "from_nothing", "sac")
    return {
        "data": data, "environment_steps": steps, "seeds": rows,
        **{name: interval([row[name] for row in rows]) for name in names},
        **{
            f"gain_over_{name}": interval([row["offline_to_online"] - row[name] for row in rows])
            for name in names if name != "offline_to_online"
        },
    }  # fmt: skip


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", choices=list(ENVS), default="hopper-replay")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=20_000, help="of the environment")
    options = parser.parse_args()
    write("offline_to_online", main(options.data, options.seeds, options.steps))
