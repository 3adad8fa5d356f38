"""Goals that belong to episodes: one per episode where it stays the same, one per observation where it moves."""

from dataclasses import replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ornstein.data.check import DataError
from ornstein.data.episodes import Episodes


def goal_per_episode(
    goal: Float[Tensor, " rows goal"], lengths: Int[Tensor, " episodes"]
) -> Float[Tensor, " episodes_or_rows goal"]:
    """One goal per episode if it stays the same within each; else one per observation, as given."""
    own = goal[lengths.cumsum(0) - lengths + torch.arange(len(lengths))]
    return own if torch.equal(own[torch.repeat_interleave(lengths + 1)], goal) else goal


def append_goal(episodes: Episodes) -> Episodes:
    """The same episodes with the goal appended to each observation, for learners that know nothing of goals."""
    if "goal" not in episodes.extras:
        raise DataError(f"no extra 'goal' among {sorted(episodes.extras) or 'none'}, but one is expected: add it")
    goal, kind = episodes.extras["goal"], episodes.belongs_to("goal")
    episode = torch.repeat_interleave(episodes.lengths + 1)
    step = torch.minimum(torch.arange(len(episode)) - episode, (episodes.lengths.cumsum(0) - 1)[episode])
    row = {"episode": episode, "step": step, "row": torch.arange(len(episode))}[kind]  # the final row keeps its step's
    extras = {name: values for name, values in episodes.extras.items() if name != "goal"}
    return replace(episodes, obs=torch.cat([episodes.obs, goal[row].to(episodes.obs.dtype)], 1), extras=extras)


def joined(episodes: Episodes) -> Episodes:
    """The episodes as a policy sees them: with the goal at the end of each observation, where there is a goal."""
    return append_goal(episodes) if "goal" in episodes.extras else episodes
