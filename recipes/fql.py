"""FQL's toy: four corners, one state. The flow keeps all corners; its one-step student deserts the poor ones.

Arms on the same data: the student; the flow that it is distilled from; and a student without the pull to the flow,
which follows the critic out of the data.
"""

import argparse
from dataclasses import replace
from typing import Any

import torch

from ornstein.fit import Run
from ornstein.noise import draw, generator
from ornstein.systems.policies import fql
from recipes.bandit import ROWS, acted, data, shares
from recipes.common import say, write


def main(steps: int = 4000, seed: int = 0) -> dict[str, Any]:
    """The shares of every arm."""
    torch.set_num_threads(1)
    episodes, run, config = data(), Run(None, seeds=(seed,), steps=steps), fql.PRESETS["bandit"]
    say("FQL")
    agent: Any = fql.SYSTEM.run(config, episodes, run)[0]
    say("without distillation")
    free: Any = fql.SYSTEM.run(replace(config, distill_weight=0.0), episodes, run)[0]
    with torch.no_grad():
        cloned = agent.flow(torch.zeros(ROWS, 1), draw(agent.flow.needs(), ROWS, generator("flow"))).clamp(-1, 1)
    return {
        "steps": steps,
        "seed": seed,
        "student": acted(agent),
        "flow": shares(cloned),
        "without_distillation": acted(free),
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    write("fql", main(options.steps, options.seed))
