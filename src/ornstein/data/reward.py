"""The changes of reward that published results rest on, by name."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Literal

from ornstein.data.check import DataError
from ornstein.data.episodes import Episodes

Transform = Literal["none", "antmaze-iql", "antmaze-cql", "locomotion-iql"]

TRANSFORMS: Mapping[str, str] = {
    "none": "rewards as recorded",
    "antmaze-iql": "r - 1, so that each step costs (Kostrikov et al. 2022, 2110.06169)",
    "antmaze-cql": "4 (r - 0.5) (Kumar et al. 2020, 2006.04779)",
    "locomotion-iql": "1000 r / (largest - smallest return of an episode) (Kostrikov et al. 2022, 2110.06169)",
}


def transform_reward(episodes: Episodes, name: Transform) -> Episodes:
    """The same episodes with changed rewards; `TRANSFORMS` tells what each name does and where it comes from.

    The returns of "locomotion-iql" are those of the recorded episodes, a last one that was cut short included.
    """
    if name not in TRANSFORMS:
        raise DataError(f"reward transform '{name}' is unknown: use one of {', '.join(TRANSFORMS)}")
    if name == "none":
        return episodes
    if name == "antmaze-iql":
        return replace(episodes, reward=episodes.reward - 1.0)
    if name == "antmaze-cql":
        return replace(episodes, reward=(episodes.reward - 0.5) * 4.0)
    spread = float(episodes.returns.max() - episodes.returns.min())
    if spread <= 0.0:
        raise DataError(f"all {episodes.n_episodes} returns are equal, but 'locomotion-iql' divides by their range")
    return replace(episodes, reward=episodes.reward * (1000.0 / spread))
