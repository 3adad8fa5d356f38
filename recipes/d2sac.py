"""D2SAC among five content providers: does a chain that only critics train learn whom to give which task?

Beside it a plain discrete SAC with the same critics, temperature and returns, the scripted schedulers, and D2SAC with
its observations zeroed at test time. All are tested on tasks that were not trained on. With `--trace` (docs/edge.md)
the first three quarters of a file's episodes are trained on and the rest tested, among the published 20 providers.
"""

import argparse
from dataclasses import replace
from typing import Any

import torch

from ornstein.envs import trace as traces
from ornstein.envs.edge import Providers
from ornstein.envs.make import make
from ornstein.envs.scheduler import provider_schedulers
from ornstein.online import Online
from ornstein.systems.policies import d2sac, sac_discrete
from recipes.common import learned, say, write
from recipes.edge import tested


def main(episodes: int = 60, seed: int = 0, every: int = 5, trace: str | None = None) -> dict[str, Any]:
    """Test returns and crashes along the training, one update a task, and those of what is beside it."""
    torch.set_num_threads(1)
    providers, tasks = (5, 250) if trace is None else (20, 1000)
    train = test = f"EdgeProviders-v0?providers={providers}"
    if trace is not None:
        split = max(1, len(traces.read(trace)) * 3 // 4)
        train, test = f"{train}&trace={trace}&last={split}", f"{test}&trace={trace}&first={split}"
    scripted = {name: tested(policy, test) for name, policy in provider_schedulers(Providers(providers)).items()}
    found: dict[str, Any] = {"episodes": episodes, "seed": seed, "train": train, "test": test, "scripted": scripted}
    online, agents = Online(warmup=tasks, capacity=1_000_000), {}
    for system in (d2sac, sac_discrete):
        say(system.SYSTEM.name)
        config = replace(system.PRESETS["providers-small"], steps=episodes * tasks)
        agents[system], points = learned(
            system.SYSTEM, config, lambda: make(train), online, every=every * tasks, seed=seed,
            score=lambda policy: tested(policy, test),
        )  # fmt: skip
        found[system.SYSTEM.name] = [{"episode": point["updates"] // tasks, **point} for point in points]
    found["blind"] = tested(agents[d2sac], test, blind=True)
    reached = [point for point in found["d2sac"] if point["episode"] >= 45] or found["d2sac"][-1:]
    return found | {"at 45": reached[0]}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--episodes", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--trace")
    options = parser.parse_args()
    name = "d2sac" if options.trace is None else "d2sac_trace"
    write(name, main(options.episodes, options.seed, trace=options.trace))
