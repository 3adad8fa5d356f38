"""The demonstration's code on the large maze of PointMaze, with more data, a longer plan and a wider network."""

import argparse
from typing import Any

import torch

from ornstein.demo import Settings, compare, record, summarise, untrained
from ornstein.envs.point import PointMaze
from ornstein.fit import Run
from ornstein.noise import generator
from ornstein.systems.planners.diffuser import SYSTEM
from recipes.common import write

SETTINGS = Settings(maze="large", preset="maze-large-fast", record_steps=500_000, stay=520, max_steps=800)


def main(steps: int | None = None, seed: int = 0, settings: Settings = SETTINGS) -> dict[str, Any]:
    """The figures of the demonstration, for the large maze."""
    torch.set_num_threads(1)
    episodes = record(settings, seed)
    config = SYSTEM.preset(settings.preset)
    planner: Any = SYSTEM.run(config, episodes, Run(None, seeds=(seed,), steps=steps))[0]
    pairs = PointMaze(settings.maze).maze.pairs(settings.pairs, generator("demo pairs", seed), ratio=settings.ratio)
    results = compare(planner, untrained(config, planner, episodes, seed), pairs, settings, seed)
    return {"steps": steps or config.steps, "seed": seed} | summarise(results, planner, pairs, settings)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=None)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    write("large_maze", main(options.steps, options.seed))
