"""FQL's toy: four corners, one state. The flow keeps all corners; its one-step student leaves them for the best.

Arms on the same data: the student; the flow that it is distilled from; a student that is pulled to the flow fifty times
as hard, which stops between the corners; and one without that pull, which follows the critic out of the data. Actions
outside of all corners earn nothing.
"""

import argparse
from dataclasses import replace
from typing import Any

import torch

from ornstein.envs.toy import REWARDS
from ornstein.fit import Run
from ornstein.noise import draw, generator
from ornstein.systems.policies import fql
from recipes.bandit import ROWS, acted, data, shares
from recipes.common import say, write

CONFIG = fql.PRESETS["bandit"]
HELD = 50 * CONFIG.distill_weight


def judged(found: dict[str, Any]) -> dict[str, Any]:
    """The shares of the corners, and the mean reward of actions at these."""
    return found | {"reward": round(sum(a * b for a, b in zip(found["corners"], REWARDS, strict=True)), 3)}


def main(steps: int = CONFIG.steps, seed: int = 0) -> dict[str, Any]:
    """The shares and mean rewards of every arm."""
    torch.set_num_threads(1)
    agents: dict[str, Any] = {}
    episodes, run = data(), Run(None, seeds=(seed,), steps=steps)
    for name, weight in (("student", CONFIG.distill_weight), ("held", HELD), ("without_distillation", 0.0)):
        say(name)
        agents[name] = fql.SYSTEM.run(replace(CONFIG, distill_weight=weight), episodes, run)[0]
    flow: Any = agents["student"].flow
    with torch.no_grad():
        cloned = flow(torch.zeros(ROWS, 1), draw(flow.needs(), ROWS, generator("flow"))).clamp(-1, 1)
    found = {name: judged(acted(agent)) for name, agent in agents.items()}
    return {"steps": steps, "seed": seed, "flow": judged(shares(cloned))} | found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=CONFIG.steps)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    write("fql", main(options.steps, options.seed))
