"""Data sets of made rows: what was computed from episodes once, and the stored candidates beside their transitions."""

from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, device

from ornstein.data.episodes import Episodes, ragged
from ornstein.data.transitions import TransitionData


@dataclass(frozen=True, eq=False)
class Rows:
    """A NamedTuple of tensors with one row per example, sampled as such tuples."""

    columns: Any

    def __len__(self) -> int:
        return len(self.columns[0])

    def gather(self, index: Int[Tensor, " b"]) -> Any:
        """The rows at these indices."""
        return type(self.columns)(*(column.index_select(0, index) for column in self.columns))

    def to(self, where: device | str) -> "Rows":
        """The same data on a device."""
        return Rows(type(self.columns)(*(column.to(where) for column in self.columns)))


class Supported(NamedTuple):
    """A batch of steps with k stored actions for each observation and each next one."""

    obs: Float[Tensor, " b obs"]
    action: Float[Tensor, " b act"]
    reward: Float[Tensor, " b"]
    next_obs: Float[Tensor, " b obs"]
    terminal: Float[Tensor, " b"]
    discount: Float[Tensor, " b"]
    stored: Float[Tensor, " b k act"]
    next_stored: Float[Tensor, " b k act"]


@dataclass(frozen=True, eq=False)
class SupportedData:
    """Transitions beside actions that were stored once for every row of their observations."""

    transitions: TransitionData
    stored: Float[Tensor, " rows k act"]
    row: Int[Tensor, " steps"]
    next_row: Int[Tensor, " steps"]

    def __len__(self) -> int:
        return len(self.row)

    def gather(self, index: Int[Tensor, " b"]) -> Supported:
        """The transitions at these indices, and what is stored for both of their ends."""
        ends = self.stored[self.row[index]], self.stored[self.next_row[index]]
        return Supported(*self.transitions.gather(index), *ends)

    def to(self, where: device | str) -> "SupportedData":
        """The same data on a device."""
        tensors = (self.stored.to(where), self.row.to(where), self.next_row.to(where))
        return SupportedData(self.transitions.to(where), *tensors)


def supported(transitions: TransitionData, stored: Float[Tensor, " rows k act"]) -> SupportedData:
    """Transitions with the actions stored for the rows of their observations."""
    if len(stored) != len(transitions.obs):
        raise ValueError(f"actions stored for {len(stored)} observations, of which there are {len(transitions.obs)}")
    counted = torch.arange(len(stored), dtype=torch.float64).unsqueeze(1)
    ends = replace(transitions, obs=counted).gather(torch.arange(len(transitions)))  # observations that say their row
    return SupportedData(transitions, stored, ends.obs[:, 0].long(), ends.next_obs[:, 0].long())


def acted(episodes: Episodes) -> Float[Tensor, " steps obs"]:
    """The observation at which each step's action was taken: all rows but each episode's last."""
    return episodes.obs[ragged(episodes.rows, episodes.lengths)]
