"""The reverse diffusion guide on four corners inside of the box, the best of which is rare in the data.

Guides of several seeds on one frozen behaviour each: where they end, what the critic says of it, and how far from the
data they are. Beside each: what its critic says of the most frequent corner, and actions that climb that critic freely.
For the first seed also samples of the behaviour, and guides of half and of five times the reach; half of it for the
second seed too, whose guide goes to the rare corner (the first's stays in the middle of a frequent one, where neither
can be nearer to the data).
"""

import argparse
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ornstein.data.episodes import Episodes
from ornstein.fit import Run
from ornstein.noise import draw, generator
from ornstein.systems.policies import reverse_diffusion_guide_policy as rdgp
from recipes.common import say, write

ROWS, STD, EXPLORE = 1000, 0.05, 0.3
CENTRES = torch.tensor([[-0.5, 0.5], [-0.5, -0.5], [0.5, 0.5], [0.5, -0.5]])
REWARDS, SHARES = torch.tensor([3.0, 0.0, 1.5, 5.0]), torch.tensor([0.35, 0.35, 0.20, 0.10])
CONFIG = rdgp.PRESETS["bandit"]


def data(rows: int = 10_000) -> Episodes:
    """One-step episodes: left up, left down, right up, right down, the last one rare and best."""
    source = generator("rare corner")
    corner = torch.multinomial(SHARES, rows, replacement=True, generator=source)
    action = CENTRES[corner] + STD * torch.randn(rows, 2, generator=source)
    reward = REWARDS[corner] + 0.5 * torch.randn(rows, generator=source)
    obs, ends = torch.zeros(rows, 1), torch.ones(rows, dtype=torch.bool)
    return Episodes.from_transitions(
        obs, action, reward, next_obs=obs.clone(), terminal=ends, action_low=(-1.0, -1.0), action_high=(1.0, 1.0)
    )


def near(action: Tensor, radius: float) -> list[float]:
    """The share of actions near each corner."""
    return [round(float(share), 4) for share in (torch.cdist(action, CENTRES) <= radius).double().mean(0)]


def described(agent: Any, action: Tensor) -> dict[str, Any]:
    """Where actions are, the first critic's mean value of them, and the 95 % quantile of their distance to the data."""
    distance = torch.cdist(action, data().action).min(1).values
    with torch.no_grad():
        q = agent.critics(torch.zeros(len(action), 1), action)[0].mean()
    return {"near": near(action, 0.5), "q": round(float(q), 3), "distance": round(float(distance.quantile(0.95)), 4)}


def guided(agent: Any) -> dict[str, Any]:
    """Actions of the guide with the last stage's exploration."""
    obs = torch.zeros(ROWS, 1)
    start = EXPLORE * draw(agent.actor.needs(), ROWS, generator("guided"))["start"]
    with torch.no_grad():
        return described(agent, agent.steered(agent.guide, obs, agent.still(obs) | {"start": start}))


def ascended(agent: Any, steps: int = 300, lr: float = 0.02) -> dict[str, Any]:
    """Actions in the box that climb the first critic from random starts, with nothing to hold them."""
    action = (torch.rand(ROWS, 2, generator=generator("free")) * 2 - 1).requires_grad_()
    adam = torch.optim.Adam([action], lr=lr)
    for _ in range(steps):
        (action.grad,) = torch.autograd.grad(-agent.critics(torch.zeros(ROWS, 1), action)[0].sum(), action)
        adam.step()
        with torch.no_grad():
            action.clamp_(-1, 1)
    return described(agent, action.detach())


def trained(config: rdgp.Config, seed: int, steps: int | None) -> tuple[Any, bool]:
    """The learner, and whether its behaviour is bit for bit the one that the first stage left."""
    kept: dict[str, dict[str, Tensor]] = {}

    def note(name: str, learners: Any, batches: Any, batch_size: int) -> None:
        own = learners[0].behaviour.state_dict()
        kept.setdefault(name, {key: value.clone() for key, value in own.items()})

    agent: Any = rdgp.SYSTEM.run(config, data(), Run(None, seeds=(seed,), steps=steps, quiet=True, on_stage=note))[0]
    now = agent.behaviour.state_dict()
    return agent, all(torch.equal(now[key], value) for key, value in kept["guide 1"].items())


def arm(config: rdgp.Config, seed: int, steps: int | None) -> tuple[dict[str, Any], Any]:
    """A guide's figures beside those of free ascent and of the most frequent corner by its own critic; the learner."""
    say(f"reach {config.reach:g}, seed {seed}")
    agent, same = trained(config, seed, steps)
    frequent = described(agent, CENTRES[:1].expand(ROWS, 2))["q"]
    return guided(agent) | {"q_of_the_most_frequent": frequent, "free": ascended(agent), "frozen": same}, agent


def main(seeds: int = 4, steps: int | None = None) -> dict[str, Any]:
    """The figures of every arm."""
    torch.set_num_threads(1)
    found: dict[str, Any] = {"guides": []}
    for seed in range(seeds):
        figures, agent = arm(CONFIG, seed, steps)
        found["guides"].append(figures)
        if seed == 0:
            with torch.no_grad():
                sample = agent.behaviour(torch.zeros(ROWS, 1), draw(agent.actor.needs(), ROWS, generator("samples")))
            found["behaviour"] = near(sample, 0.25)
    found["reach_1"] = [arm(replace(CONFIG, reach=1.0), seed, steps)[0] for seed in (0, 1)]
    return found | {"reach_10": arm(replace(CONFIG, reach=10.0), 0, steps)[0]}


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__).parse_args()
    write("reverse_diffusion_guide_policy", main())
