"""Diffuser's stitching: plans through a U from pieces of which none is longer than half of the way.

A point mass in the U maze; data are short pieces of smooth rides. With start and goal inpainted, plans must join the
two ends without crossing a wall or jumping; without the goal they end anywhere; a tracker that follows the plans must
reach the goal.
"""

import argparse
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from ornstein.data.episodes import Episodes
from ornstein.envs.mass import PointMass, crosses_wall, segments
from ornstein.envs.maze import Pair, maze
from ornstein.evaluate import evaluate
from ornstein.fit import Run
from ornstein.noise import draw, generator
from ornstein.systems.planners import diffuser
from recipes.common import say, write

PLANS, ROWS, STRIDE = 50, 32, 4
CONFIG = replace(diffuser.PRESETS["maze-fast"], horizon=2 * ROWS, stride=STRIDE, calls=64, replan=0)


def ends(n: int, source: torch.Generator) -> list[Pair]:
    """Pairs from one arm of the U to the other: the whole way around."""
    return maze("umaze").pairs(n, source, ratio=1.5, apart=0.9)


def main(steps: int = 4000, seed: int = 0) -> dict[str, Any]:
    """Shares of plans that join the ends, of executions that arrive, and of plans without a goal that end near it."""
    torch.set_num_threads(1)
    ground = maze("umaze")
    pieces = segments(ground, 4000, generator("pieces", seed), steps=ROWS, stride=STRIDE)
    count = len(pieces.obs)
    episodes = Episodes.from_lists(
        list(pieces.obs), list(pieces.action), [torch.zeros(ROWS)] * count, terminal=[False] * count,
        extras={"goal": pieces.obs[:, -1, :2].clone()},
    )  # fmt: skip
    longest = float((pieces.obs[:, 1:, :2] - pieces.obs[:, :-1, :2]).norm(dim=-1).max())
    short = replace(CONFIG, horizon=ROWS, stride=1)  # trained on the pieces, whose rows are strided already
    agent: Any = diffuser.SYSTEM.run(short, episodes, Run(None, seeds=(seed,), steps=steps))[0]
    planner: Any = diffuser.SYSTEM.build(CONFIG, episodes.spaces).eval()
    planner.load_state_dict(agent.state_dict())
    pairs = ends(PLANS, generator("pairs", seed))
    question = torch.tensor([[*p.start, 0.0, 0.0, *p.goal] for p in pairs])
    say("planning")
    with torch.no_grad():
        noise = draw(planner.noise, PLANS, generator("plans", seed))
        plan = planner.plan(question, planner.start(PLANS), noise).obs[..., :2]
        planner.layout.known[-1] = False  # the start alone is given
        loose = planner.plan(question, planner.start(PLANS), noise).obs[..., :2]
        planner.layout.known[-1] = agent.layout.known[-1]
    options = [pair.options for pair in pairs]
    ridden = evaluate(
        planner, lambda: PointMass("umaze", max_episode_steps=500), episodes=PLANS, seed=seed, options=options
    )
    step = (plan[:, 1:] - plan[:, :-1]).norm(dim=-1).amax(1)
    clear = [not crosses_wall(ground, path.numpy()) for path in plan]
    joined = [bool(c and s <= 1.5 * longest) for c, s in zip(clear, step, strict=True)]
    goal = question[:, 4:]
    return {
        "steps": steps,
        "seed": seed,
        "longest_piece": round(
            float(max(np.linalg.norm(np.diff(o[:, :2], axis=0), axis=1).sum() for o in pieces.obs.numpy())), 3
        ),
        "shortest_way": round(min(pair.geodesic for pair in pairs), 3),
        "joined": float(np.mean(joined)),
        "clear_of_walls": float(np.mean(clear)),
        "executed": float(np.mean(ridden.success or 0.0)),
        "without_goal_near": float(((loose[:, -1] - goal).norm(dim=-1) < 0.1).double().mean()),
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    write("stitching", main(options.steps, options.seed))
