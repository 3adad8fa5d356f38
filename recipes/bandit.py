"""Diffusion-QL's toy: four corners, one state. Cloning keeps all corners; the Q term must find the best and stay on it.

Four arms on the same data: cloning; Diffusion-QL; Diffusion-QL without its Q term (eta 0); and a deterministic actor
under the same two losses, which the regulariser pulls into the empty middle.
"""

import argparse
from dataclasses import replace
from typing import Any

import torch

from ornstein.data.episodes import Episodes
from ornstein.envs.toy import corner_shares, four_corners
from ornstein.evaluate import draw_rows
from ornstein.fit import Run
from ornstein.noise import generator
from ornstein.systems.policies import diffusion_cloning, diffusion_ql, td3_bc
from recipes.common import say, write

ROWS = 2000


def data(seed: int = 0, *, rows: int = 10_000) -> Episodes:
    """So many one-step episodes."""
    b = four_corners(rows, generator("bandit", seed))
    return Episodes.from_transitions(
        b.obs, b.action, b.reward, next_obs=b.next_obs, terminal=b.terminal > 0.5,
        action_low=(-1.0, -1.0), action_high=(1.0, 1.0),
    )  # fmt: skip


def acted(policy: Any, rows: int = ROWS) -> dict[str, Any]:
    """Shares of `act` at the four corners and outside."""
    with torch.no_grad():
        noise = draw_rows(policy.noise, [generator("act", i) for i in range(rows)])
        action, _ = policy.act(torch.zeros(rows, 1), policy.start(rows), noise)
    return shares(action)


def single(agent: diffusion_ql.DiffusionQL, rows: int = ROWS) -> dict[str, Any]:
    """Shares of single samples of the actor, without selection."""
    with torch.no_grad():
        spec = agent.actor.needs(1)
        noise = draw_rows(spec, [generator("single", i) for i in range(rows)])
        return shares(agent.actor.candidates(torch.zeros(rows, 1), noise)[:, 0])


def shares(action: torch.Tensor) -> dict[str, Any]:
    """The corners' shares by name."""
    *corners, outside = corner_shares(action)
    return {"corners": [round(c, 4) for c in corners], "best": round(corners[3], 4), "outside": round(outside, 4)}


def main(steps: int = 3000, seed: int = 0) -> dict[str, Any]:
    """The shares of every arm."""
    torch.set_num_threads(1)
    episodes, run = data(), Run(None, seeds=(seed,), steps=steps)
    say("cloning")
    cloning = diffusion_cloning.SYSTEM.run(diffusion_cloning.PRESETS["bandit"], episodes, run)[0]
    config = diffusion_ql.PRESETS["bandit"]
    say("Diffusion-QL")
    agent: Any = diffusion_ql.SYSTEM.run(config, episodes, run)[0]
    say("Diffusion-QL, eta 0")
    control: Any = diffusion_ql.SYSTEM.run(replace(config, eta=0.0), episodes, run)[0]
    say("deterministic actor")
    flat = td3_bc.SYSTEM.run(replace(td3_bc.BASE, q_weight=config.eta, lr=config.lr, width=128), episodes, run)[0]
    return {
        "steps": steps,
        "seed": seed,
        "cloning": acted(cloning),
        "diffusion_ql_single": single(agent),
        "diffusion_ql_act": acted(agent),
        "eta_0_single": single(control),
        "deterministic": acted(flat, 1),
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    write("bandit", main(options.steps, options.seed))
