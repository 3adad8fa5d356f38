"""Windows of episodes as batches: index arithmetic over the episodes' own arrays; nothing is stored per window."""

from dataclasses import dataclass, fields, replace
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, device

from ornstein.data.check import DataError
from ornstein.data.episodes import Episodes
from ornstein.data.returns import returns_to_go
from ornstein.types import Segments

BLOCK = 16
"""Returns-to-go are stored at every BLOCK-th step only; the steps between are summed when they are asked for."""


@dataclass(frozen=True, eq=False)
class WindowData:
    """All windows of some episodes; indices count them in order. Made by `windows`."""

    obs: Float[Tensor, " rows obs"]
    action: Float[Tensor, " steps act"]
    reward: Float[Tensor, " steps"]
    terminal: Bool[Tensor, " steps"]
    usable: Int[Tensor, " episodes"]  # windows up to and including each episode
    shift: Int[Tensor, " episodes"]  # from a window's index to its first step
    ends: Int[Tensor, " episodes"]  # the step after the last one of each episode
    milestones: Float[Tensor, " blocks"]  # return-to-go of steps 0, BLOCK, 2 BLOCK, ...
    factors: Float[Tensor, " powers"]  # 1, gamma, ..., gamma^BLOCK
    ahead: Int[Tensor, " horizon"]  # 0, stride, ..., (horizon - 1) stride
    penalty: Float[Tensor, ""]

    def __len__(self) -> int:
        return int(self.usable[-1])

    @property
    def horizon(self) -> int:
        """Rows of a window."""
        return len(self.ahead)

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays, those shared with the episodes included."""
        arrays = (getattr(self, entry.name) for entry in fields(self))
        return sum(array.numel() * array.element_size() for array in arrays)

    @property
    def skipped(self) -> int:
        """How many episodes are too short to have a window (only with pad="none")."""
        return int((torch.diff(self.usable, prepend=self.usable.new_zeros(1)) == 0).sum())

    def to(self, where: device | str) -> "WindowData":
        """The same data on a device."""
        return replace(self, **{entry.name: getattr(self, entry.name).to(where) for entry in fields(self)})

    def gather(self, index: Int[Tensor, " b"]) -> Segments:
        """The windows at these indices in [0, len)."""
        episode = torch.searchsorted(self.usable, index, right=True)
        start, end = index + self.shift[episode], self.ends[episode]
        wanted = start[:, None] + self.ahead
        step = torch.minimum(wanted, end[:, None] - 1)
        mask = (wanted < end[:, None]).to(self.reward.dtype)
        flat = step.flatten()
        shape = (len(index), self.horizon, -1)
        return Segments(
            obs=self.obs.index_select(0, (step + episode[:, None]).flatten()).view(shape),
            action=self.action.index_select(0, flat).view(shape),
            reward=self._reward(flat).view(step.shape) * mask,
            mask=mask,
            returns=self._returns(start, end),
        )

    def _reward(self, step: Int[Tensor, " some"]) -> Float[Tensor, " some"]:
        return self.reward.index_select(0, step) + self.penalty * self.terminal.index_select(0, step)

    def _returns(self, start: Int[Tensor, " b"], end: Int[Tensor, " b"]) -> Float[Tensor, " b"]:
        """Rewards up to the next milestone one by one, then the return-to-go that is stored there."""
        near = torch.arange(BLOCK, device=start.device)
        stop = torch.minimum((start // BLOCK + 1) * BLOCK, end)
        wanted = start[:, None] + near
        rewards = self._reward(torch.minimum(wanted, end[:, None] - 1).flatten()).view(wanted.shape)
        direct = (torch.where(wanted < stop[:, None], rewards, 0.0) * self.factors[:-1]).sum(1)
        stored = self.milestones[torch.clamp(stop // BLOCK, max=len(self.milestones) - 1)] * self.factors[stop - start]
        return direct + torch.where(stop < end, stored, 0.0)


def windows(
    episodes: Episodes,
    horizon: int,
    *,
    discount: float = 0.99,
    stride: int = 1,
    pad: Literal["last", "none"] = "last",
    termination_penalty: float = 0.0,
) -> WindowData:
    """The windows of `horizon` rows, `stride` environment steps apart, each inside one episode.

    pad="last": a window starts at each step; rows after the end repeat the episode's last step, with mask 0, reward 0.
    pad="none": only windows that lie wholly inside; shorter episodes are left out (`skipped` counts them).
    A row is a step, so the observation after the last step is in no window. `reward` is that of the row's own step;
    `returns` sums all steps from the window's first to the END OF THE EPISODE, discounted, whatever horizon and stride;
    a truncated episode counts as far as it was recorded. `termination_penalty` (at most 0) is added to the reward of
    terminal steps (Janner et al. 2022, 2205.09991: -100 in locomotion).
    """
    if horizon < 1 or stride < 1 or not 0.0 <= discount <= 1.0:
        raise DataError(
            f"horizon {horizon}, stride {stride}, discount {discount}: give at least 1, 1 and one in [0, 1]"
        )
    if pad not in ("last", "none"):
        raise DataError(f"pad = '{pad}' is unknown: use 'last' or 'none'")
    if termination_penalty > 0.0:
        raise DataError(
            f"termination_penalty = {termination_penalty} would reward an end, as it is added: give at most 0"
        )
    ends = episodes.lengths.cumsum(0)
    span = (horizon - 1) * stride + 1
    count = episodes.lengths if pad == "last" else torch.clamp(episodes.lengths - span + 1, min=0)
    if int(count.sum()) == 0:
        longest = int(episodes.lengths.argmax())
        raise DataError(
            f"horizon {horizon} with stride {stride} spans {span} steps, but the longest episode ({longest}) has "
            f"{int(episodes.lengths[longest])}: use a shorter horizon, a smaller stride or pad='last'"
        )
    usable = count.cumsum(0)
    penalised = episodes.reward + termination_penalty * episodes.terminal
    return WindowData(
        obs=episodes.obs,
        action=episodes.action,
        reward=episodes.reward,
        terminal=episodes.terminal,
        usable=usable,
        shift=episodes.offsets - (usable - count),
        ends=ends,
        milestones=returns_to_go(penalised, episodes.lengths, discount)[::BLOCK].float(),
        factors=(discount ** torch.arange(BLOCK + 1, dtype=torch.float64)).float(),
        ahead=torch.arange(horizon) * stride,
        penalty=torch.tensor(termination_penalty),
    )
