"""The experience of an agent that learns while it acts: a ring of transitions."""

from collections.abc import Mapping

import torch
from jaxtyping import Float, Int
from torch import Tensor, device

from ornstein.data.check import DataError
from ornstein.types import Spaces, Transitions


class Replay:
    """The newest `capacity` transitions, as batches; the oldest make room. The arrays are allocated once.

    Goals are part of the observation. Source: Lin 1992, experience replay.
    """

    def __init__(self, spaces: Spaces, capacity: int, *, discount: float = 0.99) -> None:
        if capacity < 1:
            raise DataError(f"a replay of capacity {capacity}: give at least 1")
        size = spaces.obs + spaces.goal
        self.arrays = {
            "obs": torch.zeros(capacity, size), "action": torch.zeros(capacity, spaces.act),
            "reward": torch.zeros(capacity), "next_obs": torch.zeros(capacity, size), "terminal": torch.zeros(capacity),
        }  # fmt: skip
        self.capacity, self.discount, self.added = capacity, discount, 0

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
    ) -> None:
        """Store one step; `terminal` is not true where a time limit ended the episode."""
        at = self.added % self.capacity
        self.arrays["obs"][at], self.arrays["action"][at], self.arrays["next_obs"][at] = obs, action, next_obs
        self.arrays["reward"][at], self.arrays["terminal"][at] = reward, float(terminal)
        self.added += 1

    def to(self, where: device | str) -> "Replay":
        """Itself, with its arrays on a device."""
        self.arrays = {name: array.to(where) for name, array in self.arrays.items()}
        return self

    def gather(self, index: Int[Tensor, " b"]) -> Transitions:
        """The transitions at these indices in [0, len)."""
        taken = {name: array.index_select(0, index) for name, array in self.arrays.items()}
        return Transitions(**taken, discount=taken["reward"].new_full((len(index),), self.discount))

    def state(self) -> dict[str, Tensor]:
        """What is stored, without the empty part, and how much was ever added."""
        stored = {name: array[: len(self)].clone() for name, array in self.arrays.items()}
        return stored | {"added": torch.tensor(self.added)}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Put back what `state` gave."""
        self.added = int(state["added"])
        for name, array in self.arrays.items():
            array[: len(self)] = state[name]
