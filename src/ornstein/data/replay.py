"""The experience of an agent that learns while it acts: a ring of transitions."""

from collections import deque, namedtuple
from collections.abc import Mapping
from functools import cache
from types import MappingProxyType
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, device

from ornstein.data.check import DataError
from ornstein.types import Spaces, Transitions

NONE: Mapping[str, Tensor] = MappingProxyType({})


class Replay:
    """The newest `capacity` transitions, as batches; the oldest make room. The arrays are allocated once.

    Goals are part of the observation. With `n_step` a transition is the sum of up to so many rewards and what came
    after them, fewer where the episode ended, as `transitions` makes them of recorded episodes.
    Further columns are those that the first `add` names; batches then have them behind the fields of `Transitions`.
    Source: Lin 1992, experience replay.
    """

    def __init__(self, spaces: Spaces, capacity: int, *, discount: float = 0.99, n_step: int = 1) -> None:
        if capacity < 1 or n_step < 1:
            raise DataError(f"a replay of capacity {capacity} and n_step {n_step}: give at least 1")
        size = spaces.obs + spaces.goal
        self.arrays = {
            "obs": torch.zeros(capacity, size), "action": torch.zeros(capacity, spaces.act),
            "reward": torch.zeros(capacity), "next_obs": torch.zeros(capacity, size), "terminal": torch.zeros(capacity),
            "discount": torch.zeros(capacity),
        }  # fmt: skip
        self.capacity, self.discount, self.n_step, self.added = capacity, discount, n_step, 0
        self._waiting: deque[dict[str, Any]] = deque()  # steps whose sum of rewards is not complete

    def __len__(self) -> int:
        return min(self.added, self.capacity)

    def add(
        self,
        obs: Float[Tensor, " obs"],
        action: Float[Tensor, " act"],
        *,
        reward: float,
        next_obs: Float[Tensor, " obs"],
        terminal: bool,
        extras: Mapping[str, Tensor] = NONE,
    ) -> None:
        """Store a copy of one step; `terminal` is not true where a time limit ended the episode.

        `extras` are vectors by name: of n steps, those that begin with `next_` are the last's, the others the first's.
        """
        self._make_room(extras)
        step = {"obs": obs, "action": action, "next_obs": next_obs, **extras}
        copies = {name: value.clone() for name, value in step.items()}
        self._waiting.append(copies | {"reward": reward, "terminal": float(terminal)})
        if len(self._waiting) == self.n_step:
            self._store()
        if terminal:
            self.end()

    def end(self) -> None:
        """The episode is over, by itself or cut: nothing waits for its rewards any more."""
        while self._waiting:
            self._store()

    def to(self, where: device | str) -> "Replay":
        """Itself, with its arrays on a device."""
        self.arrays = {name: array.to(where) for name, array in self.arrays.items()}
        return self

    def gather(self, index: Int[Tensor, " b"]) -> Any:
        """The transitions at these indices in [0, len): `Transitions`, or the same with the further columns behind."""
        taken = {name: array.index_select(0, index) for name, array in self.arrays.items()}
        return _kind(tuple(name for name in taken if name not in Transitions._fields))(**taken)

    def state(self) -> dict[str, Tensor]:
        """What is stored, without the empty part, and how much was ever added."""
        stored = {name: array[: len(self)].clone() for name, array in self.arrays.items()}
        return stored | {"added": torch.tensor(self.added)}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Put back what `state` gave."""
        self.added = 0
        self._make_room(
            {name: array[0] for name, array in state.items() if name not in ("added", *Transitions._fields)}
        )
        self.added = int(state["added"])
        for name, array in self.arrays.items():
            array[: len(self)] = state[name]

    def _make_room(self, extras: Mapping[str, Tensor]) -> None:
        """Columns for what the first step brings; later ones bring the same."""
        extra = self.arrays.keys() - set(Transitions._fields)
        if extras.keys() == extra:
            return
        if extra or self.added or self._waiting:
            raise DataError(
                f"a step with columns {sorted(extras)}, but those stored have {sorted(extra)}: give the same"
            )
        where = self.arrays["obs"].device
        self.arrays |= {name: torch.zeros(self.capacity, *v.shape, device=where) for name, v in extras.items()}

    def _store(self) -> None:
        """The oldest waiting step with the rewards, and the end, of all that wait."""
        first, last, at = self._waiting[0], self._waiting[-1], self.added % self.capacity
        for name, array in self.arrays.items():
            if name not in ("reward", "discount"):
                array[at] = (last if name == "terminal" or name.startswith("next_") else first)[name]
        steps = enumerate(self._waiting)
        self.arrays["reward"][at] = sum(self.discount**i * step["reward"] for i, step in steps)
        self.arrays["discount"][at] = self.discount ** len(self._waiting)
        self._waiting.popleft()
        self.added += 1


@cache
def _kind(extras: tuple[str, ...]) -> Any:
    """The type of batches with these columns behind the usual ones."""
    if not extras:
        return Transitions
    return namedtuple("Remembered", (*Transitions._fields, *extras))
