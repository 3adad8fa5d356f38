"""Scheduling at the edge: one task after the other is given to one of several machines.

- `EdgeProviders-v0`: generated content. A provider runs several tasks at once and crashes when a task needs more than
  it has left; how good its results are depends on the provider, and no observation tells.
- `EdgeQueues-v0`: collaborative edge servers. Tasks of one time slot queue up behind each other; the observation shows
  the queues as they were when the slot began.

Tasks come from a trace (docs/edge.md) or from the published generators. The environments are Gymnasium's, with discrete
actions; `ornstein.envs.make` shows them with scores in place of choices.
"""

from dataclasses import dataclass
from numbers import Integral
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from ornstein.envs.make import spec_of
from ornstein.envs.trace import Columns, Trace, read

LARGEST = 1e6
"""An upper bound of what is observed."""


@dataclass(frozen=True, eq=False)
class Table:
    """Providers: capacity, and content quality as a function of the task's demand t, a ramp from 0 at t = start.

    Below `start` quality is 0; it rises linearly to `gain` at `end` and stays there.
    """

    capacity: Float[np.ndarray, " n"]
    start: Float[np.ndarray, " n"]
    end: Float[np.ndarray, " n"]
    gain: Float[np.ndarray, " n"]

    def quality(self, demand: float) -> Float[np.ndarray, " n"]:
        """The reward of a task of this demand at each provider."""
        share = np.clip((demand - self.start) / (self.end - self.start), 0.0, 1.0)
        return np.where(demand < self.start, 0.0, self.gain * share)


def table(providers: int = 20) -> Table:
    """The published 20 providers, or as many others, drawn once and for all by the same laws.

    Capacity from {400, ..., 900}, start from {0, ..., 90}, end from {150, ..., 240}, gain the difference of one of
    {0.5, ..., 0.95} and one of {0, ..., 0.45}.
    Source: Du et al. 2023 (2303.13052); the 20 are those that the official code draws with NumPy's seed 0.
    """
    if not isinstance(providers, Integral) or providers < 2:
        raise ValueError(f"providers = {providers}: give their number as a whole number of at least 2")
    if providers == 20:
        start = 10 * np.array([1, 8, 4, 0, 3, 3, 9, 7, 4, 3, 7, 0, 4, 9, 4, 7, 9, 1, 8, 4])
        low = 0.05 * np.array([0, 9, 0, 3, 5, 9, 5, 8, 1, 0, 3, 3, 7, 4, 8, 5, 9, 9, 7, 8])
        end = 10 * np.array([21, 20, 17, 17, 16, 18, 16, 19, 20, 18, 19, 20, 17, 23, 20, 22, 18, 22, 16, 21])
        high = 0.05 * np.array([16, 12, 15, 12, 17, 10, 19, 17, 10, 16, 17, 16, 10, 17, 11, 19, 14, 15, 11, 11])
        capacity = 100 * np.array([4, 5, 5, 9, 6, 7, 7, 6, 7, 5, 8, 7, 5, 4, 6, 8, 8, 8, 5, 6])
    else:
        source = np.random.RandomState(0)  # whose streams NumPy keeps as they are
        start, low = 10 * source.choice(10, providers), 0.05 * source.choice(10, providers)
        end, high = 10 * source.choice(10, providers) + 150, 0.05 * source.choice(10, providers) + 0.5
        capacity = 100 * source.choice(6, providers) + 400
    return Table(capacity.astype(np.float64), start.astype(np.float64), end.astype(np.float64), high - low)


def runtime(demand: Any) -> Any:
    """Seconds for which a generated task of this demand runs: 60 (0.001 t^2 + 2.5 t - 14)."""
    return 60.0 * (0.001 * demand**2 + 2.5 * demand - 14.0)


class Outcome(NamedTuple):
    """What one choice led to."""

    reward: float
    info: dict[str, Any]


class Providers:
    """Content providers. Observed: for each its capacity / 900 and the free share of it, then the task's demand / 250
    and its runtime / runtime(250).

    A task that needs more than is free crashes the provider: reward -2, and -2 (1 - share done) for each task that it
    ran; all of them and the new one are lost. Otherwise the reward is the provider's quality for this demand, and the
    capacity is held until arrival + runtime, to be free at the first arrival from then on.
    Source: Du et al. 2023 (2303.13052), and the official code for constants.
    """

    needs, ends = ("arrival", "demand", "runtime"), True

    def __init__(self, providers: int = 20, tasks: int | None = None) -> None:
        self.table, self.choices, self.size = table(providers), providers, 2 * providers + 2
        self.tasks = 50 * providers if tasks is None else tasks
        self.options = {"providers": providers, "tasks": tasks}

    def generate(self, source: np.random.Generator) -> Columns:
        """Poisson(tasks) arrivals uniform in [0, 1e6] s and one at 0; demands from {100, 110, ..., 250}."""
        arrival = np.sort(source.uniform(0.0, 1e6, source.poisson(self.tasks)))
        demand = 10.0 * source.integers(10, 26, len(arrival) + 1)
        return {"arrival": np.concatenate([[0.0], arrival]), "demand": demand, "runtime": runtime(demand)}

    def begin(self, tasks: Columns) -> None:
        """Idle providers."""
        self.list = list(zip(*(tasks[name].tolist() for name in self.needs), strict=True))
        self.running: list[list[tuple[float, float, float]]] = [[] for _ in range(self.choices)]
        self.free, self.at = self.table.capacity.copy(), 0

    def assign(self, choice: int) -> Outcome:
        """Run the task, or crash; then release what has finished when the next task comes."""
        now, demand, _ = task = self.list[self.at]
        crashed = demand > self.free[choice]
        if crashed:
            undone = sum(1 - (now - begun) / lasts for begun, _, lasts in self.running[choice])
            reward = -2.0 - 2.0 * undone
            self.running[choice] = []
            self.free[choice] = self.table.capacity[choice]
        else:
            reward = float(self.table.quality(demand)[choice])
            self.running[choice].append(task)
            self.free[choice] -= demand
        self.at += 1
        if self.left():
            self._release(self.list[self.at][0])
        return Outcome(reward, {"crashed": bool(crashed)})

    def left(self) -> int:
        """Tasks to come."""
        return len(self.list) - self.at

    def observe(self) -> Float[np.ndarray, " size"]:
        """As described above."""
        _, demand, lasts = self.list[self.at] if self.left() else (0.0, 0.0, 0.0)
        pairs = np.stack([self.table.capacity / 900.0, self.free / self.table.capacity], 1)
        return np.concatenate([pairs.reshape(-1), [demand / 250.0, lasts / runtime(250.0)]])

    def _release(self, now: float) -> None:
        for i, tasks in enumerate(self.running):
            kept = [task for task in tasks if now < task[0] + task[2]]
            if len(kept) < len(tasks):
                self.running[i] = kept
                self.free[i] = self.table.capacity[i] - sum(task[1] for task in kept)


class Queues:
    """Edge servers with queues. Observed: the task's size (Mbit) and work (Gcycle), then the work that each server had
    left when the slot began; with `indexed` also the slot's number and the task's place in it. With `scaled`, sizes,
    works and what is left are divided by 25, 5 and 100, so that plain networks meet numbers near one.

    The delay of a task on server k is (left_k + sent_k) / C_k + size / rate_k + work / C_k, sent_k being what the slot
    has already sent there, which is not observed; the reward is minus the delay. After a slot of one second
    left_k <- max(left_k + sent_k - C_k, 0). An episode is cut after its last task, where no task is observed (zeros)
    and the queues are those of the last slot's beginning: queues go on for ever.
    Source: Xu et al. 2025 (FDEdge), and the official code for constants: capacities by NumPy's seed 2, rates in Mbit/s
    by seed 1, Gcycle per Mbit of the n-th task of every slot by seed 5.
    """

    needs, ends = ("arrival", "size", "work"), False

    def __init__(self, slots: int = 100, indexed: bool = False, scaled: bool = False) -> None:
        if not isinstance(slots, Integral) or slots < 1:
            raise ValueError(f"slots = {slots}: give the seconds of an episode as a whole number of at least 1")
        self.slots, self.indexed = slots, indexed
        self.options = {"slots": slots, "indexed": indexed, "scaled": scaled}
        self.units: Float[np.ndarray, " 12"] = np.array([25.0, 5.0, *[100.0] * 10]) if scaled else np.ones(12)
        self.capacity: Float[np.ndarray, " 10"] = np.random.RandomState(2).randint(10, 51, 10).astype(np.float64)
        self.rate: Float[np.ndarray, " 10"] = np.random.RandomState(1).randint(400, 501, 10).astype(np.float64)
        self.density: Float[np.ndarray, " 100"] = np.random.RandomState(5).uniform(0.1024, 0.3072, 100)
        self.choices, self.size = 10, 14 if indexed else 12

    def generate(self, source: np.random.Generator) -> Columns:
        """In each slot 1 to 100 tasks, spread over its second, of 10 to 40 Mbit."""
        counts: Int[np.ndarray, " slots"] = source.integers(1, 101, self.slots)
        place = np.concatenate([np.arange(count) for count in counts])
        arrival = np.repeat(np.arange(self.slots), counts) + place / np.repeat(counts, counts)
        size = source.uniform(10.0, 40.0, len(place))
        return {"arrival": arrival, "size": size, "work": self.density[place] * size}

    def begin(self, tasks: Columns) -> None:
        """Empty queues."""
        slot = np.floor(tasks["arrival"]).astype(np.int64)
        place = np.arange(len(slot)) - np.searchsorted(slot, slot)
        columns = (slot, place, tasks["size"], tasks["work"])
        self.list = list(zip(*(column.tolist() for column in columns), strict=True))
        self.backlog, self.sent, self.at = np.zeros(self.choices), np.zeros(self.choices), 0

    def assign(self, choice: int) -> Outcome:
        """Queue the task up; the slots before the next task pass."""
        slot, _, size, work = self.list[self.at]
        ahead = self.backlog[choice] + self.sent[choice]
        delay = float((ahead + work) / self.capacity[choice] + size / self.rate[choice])
        self.sent[choice] += work
        self.at += 1
        if self.left() and self.list[self.at][0] > slot:
            passed = self.list[self.at][0] - slot
            self.backlog = np.maximum(self.backlog + self.sent - passed * self.capacity, 0.0)
            self.sent = np.zeros(self.choices)
        return Outcome(-delay, {"delay": delay})

    def left(self) -> int:
        """Tasks to come."""
        return len(self.list) - self.at

    def observe(self) -> Float[np.ndarray, " size"]:
        """As described above."""
        slot, place, size, work = self.list[self.at] if self.left() else (self.list[-1][0], 0, 0.0, 0.0)
        seen = np.array([size, work, *self.backlog]) / self.units
        return np.array([*seen, slot, place]) if self.indexed else seen


def providers(
    *, providers: int = 20, tasks: int | None = None, trace: str | None = None, first: int = 0,
    last: int | None = None, max_episode_steps: int | None = None,
) -> Any:  # fmt: skip
    """`EdgeProviders-v0`, a `gymnasium.Env`: see `Providers`. `tasks`: their expected number, 50 a provider by default.

    With the path of a `trace`, each reset takes one of its episodes `first` to `last` (not included), drawn by the
    seed, or the one that `options={"episode": number}` names. `max_episode_steps` cuts episodes.
    """
    source = _tasks(trace, first, last)
    return environment(Providers(providers, tasks), "EdgeProviders-v0", source=source, limit=max_episode_steps)


def queues(
    *, slots: int = 100, indexed: bool = False, scaled: bool = False, trace: str | None = None, first: int = 0,
    last: int | None = None, max_episode_steps: int | None = None,
) -> Any:  # fmt: skip
    """`EdgeQueues-v0`, a `gymnasium.Env`: see `Queues`; the other arguments as in `providers`."""
    task = Queues(slots, indexed, scaled)
    return environment(task, "EdgeQueues-v0", source=_tasks(trace, first, last), limit=max_episode_steps)


class Recorded(NamedTuple):
    """Episodes `first` to `last` (not included) of a trace, and the file that they are from."""

    trace: Trace
    first: int = 0
    last: int | None = None
    path: str | None = None


def environment(
    simulation: Providers | Queues, name: str, *, source: Recorded | None = None, limit: int | None = None
) -> Any:
    """A simulation as a Gymnasium environment, on recorded episodes or on generated ones; `limit` cuts them."""
    import gymnasium
    from gymnasium.spaces import Box, Discrete

    chosen = [] if source is None else _part(source, simulation.needs)
    told = {} if source is None else {"trace": source.path, "first": source.first, "last": source.last}

    class Edge(gymnasium.Env):
        """One episode after the other; `simulation` is what runs."""

        def __init__(self) -> None:
            self.simulation, self.spec = simulation, spec_of(name, {**simulation.options, **told}, limit)
            self.observation_space = Box(0.0, LARGEST, (simulation.size,), np.float64)
            self.action_space = Discrete(simulation.choices)

        def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
            super().reset(seed=seed)
            number = (options or {}).get("episode", -1)
            if source is None:
                tasks = simulation.generate(self.np_random)
            else:
                number = int(self.np_random.choice(chosen)) if number < 0 else number
                tasks = source.trace[number]
            simulation.begin(tasks)
            return simulation.observe(), {"episode": number}

        def step(self, action: Any) -> Any:
            if not simulation.left():
                raise ValueError("the episode is over: reset the environment before the next step")
            outcome, over = simulation.assign(int(action)), not simulation.left()
            ends, cut = over and simulation.ends, over or simulation.at == limit
            return simulation.observe(), outcome.reward, ends, cut and not ends, outcome.info

    return Edge()


def _tasks(trace: str | None, first: int, last: int | None) -> Recorded | None:
    return None if trace is None else Recorded(read(trace), first, last, trace)


def _part(source: Recorded, needs: tuple[str, ...]) -> list[int]:
    """The episodes that may be drawn."""
    if missing := [name for name in needs if name not in source.trace.columns]:
        raise ValueError(f"the trace has no column {missing[0]!r}, but {', '.join(needs)} are needed: see docs/edge.md")
    count = len(source.trace)
    chosen = list(range(count))[source.first : source.last]
    if not chosen:
        raise ValueError(f"first = {source.first}, last = {source.last}: the trace has episodes 0 to {count - 1} only")
    return chosen
