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
from typing import Any, NamedTuple

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


class Course(NamedTuple):
    """What a policy is trained and tested on."""

    train: str  # environments, without their last options
    test: str
    updates: int
    numbers: tuple[int, int] | None = None  # recorded episodes of the test

    def held_out(self, policy: Any, options: str) -> float:
        """The mean delay on unseen tasks, observed as the options say."""
        return held_out(policy, self.test + options, numbers=self.numbers)


def course(episodes: int, trace: str | None) -> Course:
    """So many episodes of generated tasks, or of the first three quarters of a file's episodes."""
    if trace is None:
        return Course("EdgeQueues-v0?", "EdgeQueues-v0?", 100 * episodes)
    file, name = traces.read(trace), f"EdgeQueues-v0?trace={trace}&"
    split = max(1, len(file) * 3 // 4)
    updates = round(episodes * len(file.columns["arrival"]) / len(file) / SLOT)
    return Course(f"{name}last={split}&", name, updates, (split, len(file)))


def main(episodes: int = 40, seeds: int = 3, trace: str | None = None) -> dict[str, Any]:
    """Delays of both arms over seeds, and of what is beside them."""
    torch.set_num_threads(1)
    on = course(episodes, trace)
    found: dict[str, Any] = {"episodes": episodes, "seeds": seeds, **on._asdict()}
    scripted = queue_schedulers(Queues(100, True)).items()
    found["held_out"] = {name: on.held_out(policy, "indexed=true") for name, policy in scripted}
    found["held_out_seeds"] = {}
    for name, preset in (("feedback", "queues"), ("noise", "queues-noise")):
        config, found[name], delays = replace(fdedge.PRESETS[preset], steps=on.updates), [], []
        for seed in range(seeds):
            policy, curve = trained(fdedge.SYSTEM, config, on.train + "indexed=true", seed=seed)
            found[name].append(summary(curve))
            delays.append(on.held_out(policy, "indexed=true"))
            say(f"{name}, seed {seed}: {found[name][-1]}, unseen {delays[-1]}")
        found["held_out"][name] = round(mean(delays), 4)
        found["held_out_seeds"][name] = delays
    for system in (d2sac, sac_discrete):
        config = replace(system.PRESETS["queues"], steps=on.updates)
        policy, curve = trained(system.SYSTEM, config, on.train + "indexed=false", seed=0)
        found[system.SYSTEM.name] = summary(curve)
        found["held_out"][system.SYSTEM.name] = on.held_out(policy, "indexed=false")
        found["held_out"][f"{system.SYSTEM.name}, drawn"] = on.held_out(Drawn(policy), "indexed=false")
        say(f"{system.SYSTEM.name}: {found[system.SYSTEM.name]}")
    for what in ("below_2s", "late"):
        found[what] = {name: mean(each[what] for each in found[name]) for name in ("feedback", "noise")}
    late = {name: [each["late"] for each in found[name]] for name in ("feedback", "noise")}
    return found | {"late_difference": paired(late), "held_out_difference": paired(found["held_out_seeds"])}


ARMS = {
    "scaled": (sac_discrete, "discrete", "scaled=true"),
    "raw": (sac_discrete, "discrete", "scaled=false"),
    "annealed": (sac_discrete, "queues", "scaled=true"),
    "feedback": (fdedge, "queues", "indexed=true&scaled=true"),
}
"""Discrete SAC with its own settings and with FDEdge's, by the scale of observations; one FDEdge on scaled ones."""


def plain_sac(episodes: int = 40, seeds: int = 3, trace: str | None = None) -> dict[str, Any]:
    """Delays in training and on unseen tasks, where SAC's are also those of a draw."""
    torch.set_num_threads(1)
    on = course(episodes, trace)
    found: dict[str, Any] = {"episodes": episodes, "seeds": seeds, **on._asdict()}
    for name, (system, preset, options) in ARMS.items():
        config, found[name] = replace(system.PRESETS[preset], steps=on.updates), []
        for seed in range(seeds if system is sac_discrete else 1):
            policy, curve = trained(system.SYSTEM, config, on.train + options, seed=seed)
            found[name].append(summary(curve) | {"held_out": on.held_out(policy, options)})
            if system is sac_discrete:
                found[name][-1]["held_out_drawn"] = on.held_out(Drawn(policy), options)
            say(f"{name}, seed {seed}: {found[name][-1]}")
    return found


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
    made = plain_sac if options.sac else main
    result = "fdedge_sac" if options.sac else "fdedge"
    if options.trace is not None:
        result += "_trace"
    write(result, made(options.episodes, options.seeds, options.trace))
