"""The changes of reward that published results rest on, by name; each is a scale and a shift."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Literal

from ornstein.data.check import DataError
from ornstein.data.episodes import Episodes

Transform = Literal["none", "antmaze-iql", "antmaze-cql", "locomotion-iql", "standardized", "min-max"]

TRANSFORMS: Mapping[str, str] = {
    "none": "rewards as recorded",
    "antmaze-iql": "r - 1, so that each step costs (Kostrikov et al. 2022, 2110.06169)",
    "antmaze-cql": "4 (r - 0.5) (Kumar et al. 2020, 2006.04779)",
    "locomotion-iql": "1000 r / (largest - smallest return of an episode) (Kostrikov et al. 2022, 2110.06169)",
    "standardized": "mean 0 and deviation 1 over the recorded steps (Wang et al. 2023, 2208.06193)",
    "min-max": "from -1, the smallest recorded, to 1, the largest (Kang et al. 2023, 2305.20081)",
}

FIXED: Mapping[str, tuple[float, float]] = {"none": (1.0, 0.0), "antmaze-iql": (1.0, -1.0), "antmaze-cql": (4.0, -2.0)}
"""Scale and shift of the transforms that need no data."""


def transform_reward(episodes: Episodes, name: Transform) -> Episodes:
    """The same episodes with changed rewards; `TRANSFORMS` tells what each name does and where it comes from.

    The returns of "locomotion-iql" are those of the recorded episodes, a last one that was cut short included.
    """
    if name == "none":
        return episodes
    scale, shift = reward_map(name, episodes)
    return replace(episodes, reward=episodes.reward * scale + shift)


def reward_map(name: Transform, episodes: Episodes | None) -> tuple[float, float]:
    """The scale and shift of a transform; most are measured on the recorded episodes."""
    if name not in TRANSFORMS:
        raise DataError(f"reward transform '{name}' is unknown: use one of {', '.join(TRANSFORMS)}")
    if name in FIXED:
        return FIXED[name]
    if episodes is None:
        raise DataError(
            f"reward = '{name}' is measured on recorded episodes, and there are none: give some, or reward = 'none'"
        )
    reward = episodes.reward.double()
    if name == "locomotion-iql":
        spread, what = float(episodes.returns.max() - episodes.returns.min()), f"{episodes.n_episodes} returns"
        scale, shift = 1000.0, 0.0
    elif name == "standardized":
        spread, what = float(reward.std(correction=0)), "rewards"
        scale, shift = 1.0, -float(reward.mean())
    else:
        spread, what = float(reward.max() - reward.min()), "rewards"
        scale, shift = 2.0, -float(reward.max() + reward.min())
    if spread <= 0.0:
        raise DataError(f"all {what} are equal, but '{name}' divides by their spread: use reward = 'none'")
    return scale / spread, shift / spread
