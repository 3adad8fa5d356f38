"""What the recipes of the edge environments share: environments that count, tests of a policy, learning curves."""

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import gymnasium
import numpy as np

from ornstein.data.episodes import Episodes
from ornstein.envs.make import make
from ornstein.evaluate import evaluate
from ornstein.fit import Run
from ornstein.online import Online, train_online
from recipes.common import say


class Counted(gymnasium.Wrapper):
    """Counts crashes, and keeps the rewards of each episode that was finished, and how many there were."""

    def __init__(self, env: Any, blind: bool = False) -> None:
        super().__init__(env)
        self.crashes, self.blind = 0, blind
        self.finished: list[tuple[float, int]] = []

    def reset(self, **options: Any) -> Any:
        """A new episode."""
        self.total, self.length = 0.0, 0
        obs, info = self.env.reset(**options)
        return self._shown(obs), info

    def step(self, action: Any) -> Any:
        """The environment's step, counted."""
        obs, reward, terminal, truncated, info = self.env.step(action)
        self.total, self.length = self.total + float(reward), self.length + 1
        self.crashes += int(info.get("crashed", False))
        if terminal or truncated:
            self.finished.append((self.total, self.length))
        return self._shown(obs), reward, terminal, truncated, info

    def _shown(self, obs: Any) -> Any:
        return np.zeros_like(obs) if self.blind else obs


def tested(policy: Any, env: str, *, episodes: int = 10, seed: int = 1, blind: bool = False) -> dict[str, float]:
    """Mean return, crashes an episode and mean reward a task, over episodes that no training saw."""
    made: list[Counted] = []

    def factory() -> Counted:
        made.append(Counted(make(env, flatten=False), blind))
        return made[-1]

    found = evaluate(policy, factory, episodes=episodes, n_envs=episodes, seed=seed)
    return {
        "return": round(float(np.mean(found.returns)), 2),
        "return_std": round(float(np.std(found.returns)), 2),
        "crashes": sum(env.crashes for env in made) / episodes,
        "per_task": round(sum(found.returns) / sum(found.lengths), 4),
    }


def learned(
    system: Any, config: Any, env: Callable[[], Any], online: Online, *, every: int, seed: int = 0,
    score: Callable[[Any], dict[str, float]] | None = None, prior: Episodes | None = None, weights: Path | None = None,
) -> tuple[Any, list[dict[str, float]]]:  # fmt: skip
    """A policy trained online, and its score after every so many updates; it may begin with records and weights."""
    points: list[dict[str, float]] = []

    def note(policy: Any) -> float:
        assert score is not None
        points.append({"updates": (len(points) + 1) * every, **score(policy)})
        say(f"{system.name} {points[-1]}")
        return 0.0

    with TemporaryDirectory() as folder:
        run = Run(
            Path(folder), seeds=(seed,), checkpoint_every=every, score=None if score is None else note, quiet=True,
            init_from=weights,
        )  # fmt: skip
        return train_online(system, config, env, run, online=online, prior=prior), points
