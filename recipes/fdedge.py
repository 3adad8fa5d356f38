"""FDEdge among ten edge servers: do chains that start from what they gave before schedule sooner and better?

The feedback start and its control arm, the start from noise, over seeds and on the same arrivals: mean delay of every
episode of the training, as the paper counts it. Beside them D2SAC and a plain discrete SAC, the scripted schedulers,
and the delays of all on the same tasks, which were not trained on: FDEdge's memory first goes through a few other
episodes, and D2SAC and discrete SAC act by their most probable choice and by a draw. With `--trace` (docs/edge.md) the
first three quarters of a file's episodes are trained on and the rest tested, each once.

`--sac` asks what a plain discrete SAC is worth that is set up with as much care: on observations of unit size, with
the entropy that its own paper holds.
"""

import argparse
from dataclasses import replace
from itertools import cycle
from statistics import mean
from typing import Any

import gymnasium
import torch

from ornstein.envs import trace as traces
from ornstein.envs.edge import Queues
from ornstein.envs.make import make
from ornstein.envs.scheduler import queue_schedulers
from ornstein.evaluate import evaluate
from ornstein.online import Online
from ornstein.systems.policies import d2sac, fdedge, sac_discrete
from recipes.common import interval, learned, say, write
from recipes.edge import Counted, Drawn

SLOT = 50
"""Tasks of a mean slot: one update follows so many."""

ONLINE = Online(warmup=500, per_update=SLOT, capacity=10_000)


def trained(system: Any, config: Any, env: str, *, seed: int) -> tuple[Any, list[float]]:
    """A policy, and the mean delay of each episode of its training."""
    made: list[Counted] = []

    def factory() -> Counted:
        made.append(Counted(make(env, flatten=False)))
        return made[-1]

    policy, _ = learned(system, config, factory, ONLINE, every=config.steps, seed=seed)
    return policy, [round(-total / length, 3) for total, length in made[0].finished]


def summary(delays: list[float]) -> dict[str, Any]:
    """The first episode (from 1) below 2 s, one more than there are if none is, and the mean of the second half."""
    below = next((i for i, delay in enumerate(delays, 1) if delay < 2.0), len(delays) + 1)
    return {"below_2s": below, "late": round(mean(delays[len(delays) // 2 :]), 4), "delays": delays}


class InTurn(gymnasium.Wrapper):
    """Recorded episodes of these numbers, one after the other."""

    def __init__(self, env: Any, numbers: list[int]) -> None:
        super().__init__(env)
        self.numbers = cycle(numbers)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        """The next of them."""
        return self.env.reset(seed=seed, options={"episode": next(self.numbers)})


def held_out(policy: Any, env: str, *, episodes: int = 4, numbers: tuple[int, int] | None = None) -> float:
    """The mean delay over unseen episodes after `episodes` others, one after the other, so that memories are filled.

    Recorded episodes are those from the first of `numbers` up to the second, after the `episodes` before them.
    """
    if numbers is None:
        found = evaluate(policy, env, episodes=2 * episodes, n_envs=1, seed=1)
    else:
        turn = list(range(max(0, numbers[0] - episodes), numbers[1]))
        episodes = len(turn) - (numbers[1] - numbers[0])
        found = evaluate(policy, lambda: InTurn(make(env, flatten=False), turn), episodes=len(turn), n_envs=1, seed=1)
    return round(-sum(found.returns[episodes:]) / sum(found.lengths[episodes:]), 4)


def main(episodes: int = 40, seeds: int = 3, trace: str | None = None, unseen: int = 4) -> dict[str, Any]:
    """Delays of both arms over seeds, and of what is beside them."""
    torch.set_num_threads(1)
    train = test = "EdgeQueues-v0?indexed=true"
    updates, numbers = 100 * episodes, None
    if trace is not None:
        file = traces.read(trace)
        numbers = (max(1, len(file) * 3 // 4), len(file))
        train, test = f"{train}&trace={trace}&last={numbers[0]}", f"{test}&trace={trace}"
        updates = round(episodes * len(file.columns["arrival"]) / len(file) / SLOT)

    def tested(policy: Any, env: str = test) -> float:
        return held_out(policy, env, episodes=unseen, numbers=numbers)

    found: dict[str, Any] = {"episodes": episodes, "seeds": seeds, "train": train, "test": test, "tested": numbers}
    found["held_out"] = {name: tested(policy) for name, policy in queue_schedulers(Queues(100, True)).items()}
    found["held_out_seeds"] = {}
    for name, preset in (("feedback", "queues"), ("noise", "queues-noise")):
        config, found[name], delays = replace(fdedge.PRESETS[preset], steps=updates), [], []
        for seed in range(seeds):
            policy, curve = trained(fdedge.SYSTEM, config, train, seed=seed)
            found[name].append(summary(curve))
            delays.append(tested(policy))
            say(f"{name}, seed {seed}: {found[name][-1]}, unseen {delays[-1]}")
        found["held_out"][name] = round(mean(delays), 4)
        found["held_out_seeds"][name] = delays
    plain = [env.replace("indexed=true", "indexed=false") for env in (train, test)]
    for system in (d2sac, sac_discrete):
        policy, curve = trained(system.SYSTEM, replace(system.PRESETS["queues"], steps=updates), plain[0], seed=0)
        found[system.SYSTEM.name] = summary(curve)
        found["held_out"][system.SYSTEM.name] = tested(policy, plain[1])
        found["held_out"][f"{system.SYSTEM.name}, drawn"] = tested(Drawn(policy), plain[1])
        say(f"{system.SYSTEM.name}: {found[system.SYSTEM.name]}")
    for what in ("below_2s", "late"):
        found[what] = {name: mean(each[what] for each in found[name]) for name in ("feedback", "noise")}
    late = {name: [each["late"] for each in found[name]] for name in ("feedback", "noise")}
    return found | {"late_difference": paired(late), "held_out_difference": paired(found["held_out_seeds"])}


def plain_sac(episodes: int = 40, seeds: int = 3) -> dict[str, Any]:
    """Delays of discrete SAC by settings and by the scale of observations, in training and on unseen tasks.

    And those of one FDEdge on the scaled observations.
    """
    torch.set_num_threads(1)
    found: dict[str, Any] = {"episodes": episodes, "seeds": seeds}
    for name, preset, scaled in (
        ("scaled", "discrete", True),
        ("raw", "discrete", False),
        ("annealed", "queues", True),
    ):
        env = f"EdgeQueues-v0?scaled={str(scaled).lower()}"
        config, found[name] = replace(sac_discrete.PRESETS[preset], steps=100 * episodes), []
        for seed in range(seeds):
            policy, curve = trained(sac_discrete.SYSTEM, config, env, seed=seed)
            delays = {"held_out": held_out(policy, env), "held_out_drawn": held_out(Drawn(policy), env)}
            found[name].append(summary(curve) | delays)
            say(f"{name}, seed {seed}: {found[name][-1]}")
    env = "EdgeQueues-v0?indexed=true&scaled=true"
    policy, curve = trained(fdedge.SYSTEM, replace(fdedge.PRESETS["queues"], steps=100 * episodes), env, seed=0)
    return found | {"feedback": [summary(curve) | {"held_out": held_out(policy, env)}]}


def paired(arms: dict[str, list[float]]) -> dict[str, float | None]:
    """Feedback minus noise, by seed."""
    return interval([a - b for a, b in zip(arms["feedback"], arms["noise"], strict=True)])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--episodes", type=int, default=40)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--trace")
    parser.add_argument("--sac", action="store_true")
    options = parser.parse_args()
    if options.sac:
        write("fdedge_sac", plain_sac(options.episodes, options.seeds))
    else:
        result = "fdedge" if options.trace is None else "fdedge_trace"
        write(result, main(options.episodes, options.seeds, options.trace))
