"""How a window of an episode is laid out as the array that a planner denoises: actions first, then observations."""

from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from ornstein.data.episodes import Episodes
from ornstein.data.normalize import normalizer
from ornstein.data.windows import windows
from ornstein.types import Segments, Spaces

Kind = Literal["gaussian", "limits"]


class Layout(nn.Module):
    """Normalised trajectories (b, horizon, act + obs), and which of their entries a planner is given.

    `known`: the first observation, and with `goal` also the last; never actions. `weight`: 1, and `first_action` for
    the first action. Source: Janner et al. 2022 (2205.09991), official code.
    """

    known: Tensor
    weight: Tensor

    def __init__(
        self, spaces: Spaces, horizon: int, kind: Kind, *, goal: bool = False, first_action: float = 1.0
    ) -> None:
        super().__init__()
        if goal and not 0 < spaces.goal <= spaces.obs:
            raise ValueError(
                f"a goal of size {spaces.goal} for observations of size {spaces.obs}: it must be their first entries"
            )
        self.spaces, self.horizon, self.channels = spaces, horizon, spaces.act + spaces.obs
        self.normalizer = normalizer("min_max" if kind == "limits" else kind, self.channels)
        known: Bool[Tensor, " horizon channels"] = torch.zeros(horizon, self.channels, dtype=torch.bool)
        known[0, spaces.act :] = True
        known[-1, spaces.act :] |= goal
        weight = torch.ones(horizon, self.channels)
        weight[0, : spaces.act] = first_action
        self.register_buffer("known", known, persistent=False)
        self.register_buffer("weight", weight, persistent=False)

    def fit(self, episodes: Episodes) -> None:
        """Fit the normaliser to every step of the episodes."""
        steps = windows(episodes, 1).gather(torch.arange(episodes.n_steps))
        self.normalizer.fit(torch.cat((steps.action[:, 0], steps.obs[:, 0]), dim=1))

    def pack(self, batch: Segments) -> Float[Tensor, " b horizon channels"]:
        """Windows as normalised trajectories."""
        return self.normalizer(torch.cat((batch.action, batch.obs), dim=-1))

    def unpack(
        self, x: Float[Tensor, " *b horizon channels"]
    ) -> tuple[Float[Tensor, " *b horizon act"], Float[Tensor, " *b horizon obs"]]:
        """Actions and observations of normalised trajectories, in the environment's units."""
        action, obs = self.normalizer.inverse(x).split((self.spaces.act, self.spaces.obs), dim=-1)
        return action, obs

    def ends(self, obs: Float[Tensor, " b obs"]) -> Float[Tensor, " b horizon channels"]:
        """Normalised trajectories that hold the known entries: the state first; last the goal, at rest.

        `obs`: the state, and behind it the goal, where there is one.
        """
        s, rows = self.spaces, obs.new_zeros(len(obs), self.horizon, self.channels)
        rows[:, 0, s.act :] = obs[:, : s.obs]
        rows[:, -1, s.act : s.act + s.goal] = obs[:, s.obs :]
        return self.normalizer(rows)
