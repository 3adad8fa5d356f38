"""IDQL on four corners: imitation keeps them all, the choice among candidates goes where the critics send it.

Two arms share one actor: the critics learn the bandit's rewards, then, alone, rewards whose best corner is
another one. The same networks also act by the implied weights at the expectile 0.9, and without any choice.
"""

import argparse
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from ornstein.data.episodes import Episodes
from ornstein.envs.toy import CORNERS, REWARDS, corner_of, corner_shares, four_corners
from ornstein.evaluate import draw_rows
from ornstein.fit import Run
from ornstein.noise import generator
from ornstein.systems.policies import idql
from recipes.common import say, write

ROWS = 1500
OTHER = (5.0, 1.5, 0.0, 3.0)
"""Rewards of the second arm: the corner left up is the best one."""


def data(rewards: tuple[float, ...] = REWARDS) -> Episodes:
    """10,000 one-step episodes; other rewards move each row by the difference at its corner."""
    b = four_corners(10_000, generator("bandit", 0))
    moved = (torch.tensor(rewards) - torch.tensor(REWARDS))[corner_of(b.action).clamp(min=0)]
    return Episodes.from_transitions(
        b.obs, b.action, b.reward + moved, next_obs=b.next_obs, terminal=b.terminal > 0.5,
        action_low=(-1.0, -1.0), action_high=(1.0, 1.0),
    )  # fmt: skip


def expectile(values: tuple[float, ...], level: float) -> float:
    """The expectile of equally likely values, by bisection."""
    x, (low, high) = torch.tensor(values, dtype=torch.float64), (min(values), max(values))
    for _ in range(60):
        middle = (low + high) / 2
        pull = torch.where(x > middle, level, 1 - level) * (x - middle)
        low, high = (middle, high) if pull.sum() > 0 else (low, middle)
    return low


def acted(agent: Any, config: idql.Config) -> list[float]:
    """The shares at the four corners, and outside, of the acts of one agent under another way to choose."""
    other = idql.SYSTEM.build(config, agent.spaces)
    other.load_state_dict(agent.state_dict())
    policy: Any = other.eval()
    with torch.no_grad():
        noise = draw_rows(policy.noise, [generator("act", i) for i in range(ROWS)])
        action, _ = policy.act(torch.zeros(ROWS, 1), policy.start(ROWS), noise)
    return [round(share, 4) for share in corner_shares(action)]


def main(steps: int = 4000) -> dict[str, Any]:
    """The shares of every way to choose, the values, and whether the second arm left the actor alone."""
    torch.set_num_threads(1)
    config = idql.PRESETS["bandit"]
    with tempfile.TemporaryDirectory() as folder:
        say("both halves")
        agent: Any = idql.SYSTEM.run(config, data(), Run(Path(folder) / "first", steps=steps))[0]
        say("the critics alone, on other rewards")
        critics = replace(config, train_actor=False)
        second = Run(Path(folder) / "second", steps=steps, init_from=Path(folder) / "first")
        other: Any = idql.SYSTEM.run(critics, data(OTHER), second)[0]
        say("the critics alone, at the expectile 0.9")
        sharp = replace(critics, level=0.9)
        third = Run(Path(folder) / "third", steps=steps, init_from=Path(folder) / "first")
        implied: Any = idql.SYSTEM.run(sharp, data(), third)[0]
    actors = zip(agent.actor_ema.parameters(), other.actor_ema.parameters(), strict=True)
    with torch.no_grad():
        q = agent.critics_target(torch.zeros(4, 1), torch.tensor(CORNERS)).amin(0)
        value = [float(a.values(torch.zeros(1, 1))) for a in (agent, implied)]
    return {
        "steps": steps,
        "single": acted(agent, replace(config, candidates=1)),
        "best_of_32": acted(agent, config),
        "best_of_32_other_rewards": acted(other, config),
        "actor_untouched": all(torch.equal(a, b) for a, b in actors),
        "implicit_0.9_of_64": acted(implied, replace(sharp, choice="implicit", candidates=64)),
        "q_at_corners": [round(x, 3) for x in q.tolist()],
        "value_0.7": value[0],
        "value_0.9": value[1],
        "exact_value_0.7": expectile(REWARDS, 0.7),
        "exact_value_0.9": expectile(REWARDS, 0.9),
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=4000)
    write("idql", main(parser.parse_args().steps))
