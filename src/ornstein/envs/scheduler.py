"""Scripted schedulers for the edge environments: what a learned one has to beat. They are policies as any other."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ornstein.envs.edge import Providers, Queues
from ornstein.types import Draw, Noise, NoiseSpec

Obs = Float[Tensor, " n obs"]
Scores = Float[Tensor, " n choices"]
Rule = Callable[[Obs], Scores]


@dataclass(frozen=True)
class Ranked:
    """The machine with the highest score under a rule of the observation."""

    rule: Rule
    noise = {}  # noqa: RUF012 (nothing is drawn)

    def start(self, n_envs: int) -> tuple[()]:
        """Nothing is remembered."""
        return ()

    def act(self, obs: Obs, carry: Any, noise: Noise) -> tuple[Scores, Any]:
        """The rule's choice."""
        return one_hot(self.rule(obs)), carry


@dataclass(frozen=True)
class Weighted:
    """A machine drawn with fixed probabilities, whatever is observed."""

    weights: tuple[float, ...]

    @property
    def noise(self) -> NoiseSpec:
        """One uniform number."""
        return {"place": Draw("uniform", (1,))}

    def start(self, n_envs: int) -> tuple[()]:
        """Nothing is remembered."""
        return ()

    def act(self, obs: Obs, carry: Any, noise: Noise) -> tuple[Scores, Any]:
        """The machine whose stretch of [0, 1] holds the number."""
        place = noise["place"].double()
        edges = torch.tensor(self.weights, dtype=torch.float64, device=place.device).cumsum(0)
        index = torch.searchsorted(edges / edges[-1], place, right=True)
        return _at(index.clamp(max=len(self.weights) - 1), len(self.weights)), carry


@dataclass(frozen=True)
class RoundRobin:
    """One machine after the other."""

    choices: int
    noise = {}  # noqa: RUF012

    def start(self, n_envs: int) -> Int[Tensor, " n 1"]:
        """Whose turn it is."""
        return torch.zeros(n_envs, 1, dtype=torch.int64)

    def act(self, obs: Obs, carry: Int[Tensor, " n 1"], noise: Noise) -> tuple[Scores, Int[Tensor, " n 1"]]:
        """The next one."""
        return _at(carry, self.choices), (carry + 1) % self.choices


class Slot(NamedTuple):
    """The carry of `Knowing`: the slot that runs, and the work that was sent to each server in it."""

    number: Float[Tensor, " n 1"]
    sent: Scores


@dataclass(frozen=True)
class Knowing:
    """The server of the least delay for this task, by the visible queues and what this slot has sent; for `indexed`."""

    queues: Queues
    noise = {}  # noqa: RUF012

    def start(self, n_envs: int) -> Slot:
        """Nothing sent."""
        return Slot(torch.full((n_envs, 1), -1.0), torch.zeros(n_envs, self.queues.choices))

    def act(self, obs: Obs, carry: Slot, noise: Noise) -> tuple[Scores, Slot]:
        """The least delay."""
        number = obs[:, -2:-1].float()
        sent = torch.where(number == carry.number, carry.sent, 0.0)
        choice = one_hot(-delays(self.queues, obs, sent))
        return choice, Slot(number, sent + obs[:, 1:2].float() * float(self.queues.units[1]) * choice)


def provider_schedulers(task: Providers) -> dict[str, Any]:
    """Random, round robin, most capacity free, and the prophet: the best quality among providers that have room.

    Source: Du et al. 2023 (2303.13052), which calls the third crash avoidance; the prophet knows the quality curves.
    """
    n, capacity = task.choices, torch.from_numpy(task.table.capacity)

    def free(obs: Obs) -> Scores:
        return (obs[:, 1 : 2 * n : 2].double() * capacity.to(obs.device)).round(decimals=3)

    def prophet(obs: Obs) -> Scores:
        demand = (obs[:, 2 * n : 2 * n + 1].double() * 250).round(decimals=3)
        quality = torch.stack([torch.from_numpy(task.table.quality(t)) for t in demand[:, 0].tolist()])
        return torch.where(free(obs) >= demand, quality.to(obs.device), -1.0)  # below a quality of 0

    return {
        "random": Weighted((1.0,) * n),
        "round robin": RoundRobin(n),
        "most available": Ranked(free),
        "prophet": Ranked(prophet),
    }


def queue_schedulers(task: Queues) -> dict[str, Any]:
    """Random, round robin, the largest server, the shortest queue, the least visible delay (greedy), and a draw with
    probabilities proportional to capacity; with `indexed` the one-step optimum too.
    """
    n = task.choices
    found: dict[str, Any] = {
        "random": Weighted((1.0,) * n),
        "round robin": RoundRobin(n),
        "largest": Weighted(tuple(float(i == task.capacity.argmax()) for i in range(n))),
        "shortest queue": Ranked(lambda obs: -obs[:, 2 : 2 + n]),
        "greedy": Ranked(lambda obs: -delays(task, obs)),
        "proportional": Weighted(tuple(task.capacity.tolist())),
    }
    return found | ({"optimum": Knowing(task)} if task.indexed else {})


def delays(task: Queues, obs: Obs, sent: Scores | float = 0.0) -> Scores:
    """The delay at each server, in seconds, if the slot has sent this much work there."""
    capacity, rate, units = (torch.from_numpy(values).to(obs) for values in (task.capacity, task.rate, task.units))
    size, work, backlog = (obs[:, : task.choices + 2] * units).split((1, 1, task.choices), dim=1)
    return (backlog + sent + work) / capacity + size / rate


def one_hot(scores: Scores) -> Scores:
    """1 at the highest score of each row, the first one among equals."""
    return _at(scores.argmax(1, keepdim=True), scores.shape[1])


def _at(index: Int[Tensor, " n 1"], choices: int) -> Scores:
    return (index == torch.arange(choices, device=index.device)).float()
