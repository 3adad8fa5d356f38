"""Steps of episodes as batches: index arithmetic over the episodes' own arrays; nothing is stored per step."""

from dataclasses import dataclass, fields, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, device

from ornstein.data.check import DataError
from ornstein.data.episodes import Episodes
from ornstein.types import Transitions


@dataclass(frozen=True, eq=False)
class TransitionData:
    """All usable steps of some episodes; indices count them in order. Made by `transitions`."""

    obs: Float[Tensor, " rows obs"]
    action: Float[Tensor, " steps act"]
    reward: Float[Tensor, " steps"]
    terminal: Bool[Tensor, " steps"]
    usable: Int[Tensor, " episodes"]  # usable steps up to and including each episode
    dropped: Int[Tensor, " episodes"]  # unusable steps of all earlier episodes
    ends: Int[Tensor, " episodes"]  # the step after the last one that an n-step sum of the episode may reach
    discounts: Float[Tensor, " powers"]  # 1, gamma, ..., gamma^n

    def __len__(self) -> int:
        return int(self.usable[-1])

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays, those shared with the episodes included."""
        arrays = (getattr(self, entry.name) for entry in fields(self))
        return sum(array.numel() * array.element_size() for array in arrays)

    def to(self, where: device | str) -> "TransitionData":
        """The same data on a device."""
        return replace(self, **{entry.name: getattr(self, entry.name).to(where) for entry in fields(self)})

    def gather(self, index: Int[Tensor, " b"]) -> Transitions:
        """The transitions at these indices in [0, len)."""
        episode = torch.searchsorted(self.usable, index, right=True)
        step = index + self.dropped[episode]
        if len(self.discounts) == 2:
            return self._one_step(step, episode)
        return self._many_steps(step, episode)

    def _one_step(self, step: Int[Tensor, " b"], episode: Int[Tensor, " b"]) -> Transitions:
        row = step + episode
        obs, next_obs = self.obs.index_select(0, torch.cat([row, row + 1])).chunk(2)
        return Transitions(
            obs=obs,
            action=self.action.index_select(0, step),
            reward=self.reward.index_select(0, step),
            next_obs=next_obs,
            terminal=self.terminal.index_select(0, step).to(obs.dtype),
            discount=self.discounts[1].expand(len(step)),
        )

    def _many_steps(self, step: Int[Tensor, " b"], episode: Int[Tensor, " b"]) -> Transitions:
        n = len(self.discounts) - 1
        taken = torch.clamp(self.ends[episode] - step, max=n)  # fewer than n where the episode ends
        ahead = torch.arange(n, device=step.device)
        inside = ahead < taken[:, None]
        rewards = self.reward[torch.where(inside, step[:, None] + ahead, step[:, None])]
        row = step + episode
        obs, next_obs = self.obs.index_select(0, torch.cat([row, row + taken])).chunk(2)
        return Transitions(
            obs=obs,
            action=self.action.index_select(0, step),
            reward=(rewards.double() * inside * self.discounts[:-1].double()).sum(1).to(rewards.dtype),
            next_obs=next_obs,
            terminal=self.terminal.index_select(0, step + taken - 1).to(obs.dtype),
            discount=self.discounts[taken],
        )


def transitions(
    episodes: Episodes, *, discount: float = 0.99, n: int = 1, drop_unknown_terminal: bool = False
) -> TransitionData:
    """The n-step transitions of all steps: r_0 + gamma r_1 + ... + gamma^(m-1) r_(m-1), then obs and terminal after m.

    m = n, or less where the episode ends: sums never cross an end. `discount` of a batch is gamma^m; it is the learner
    that multiplies it by 1 - terminal, so a truncated episode bootstraps and a terminal one does not.

    Where the observation after the last step is unknown (D4RL), sums of truncated episodes stop one step earlier, and
    the last step itself is left out. A terminal last step stays, since nothing is bootstrapped from the observation
    after it: `next_obs` is then the last known one. Learners of dynamics drop these by `drop_unknown_terminal`.
    Deviates: D4RL's own `qlearning_dataset` puts the next episode's first observation there.
    """
    if n < 1 or not 0.0 <= discount <= 1.0:
        raise DataError(f"n = {n}, discount = {discount}: at least one step and a discount in [0, 1] are expected")
    last = episodes.lengths.cumsum(0)
    unknown = ~episodes.final_known
    if not drop_unknown_terminal:
        unknown = unknown & ~episodes.terminal[last - 1]
    dropped = unknown.long()
    if int(dropped.sum()) == episodes.n_steps:
        raise DataError("no step has a known next observation, but one at least is expected: read a fuller recording")
    return TransitionData(
        obs=episodes.obs,
        action=episodes.action,
        reward=episodes.reward,
        terminal=episodes.terminal,
        usable=(episodes.lengths - dropped).cumsum(0),
        dropped=dropped.cumsum(0) - dropped,
        ends=last - dropped,
        discounts=(discount ** torch.arange(n + 1, dtype=torch.float64)).float(),
    )
