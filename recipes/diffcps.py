"""DiffCPS on four corners: the denoising loss follows kappa, and the multiplier goes where that takes it.

Arms: cloning, for the least loss that this chain can reach; three values of kappa; the same with the multiplier
frozen at 1, where kappa means nothing. With `--ring`, actions on a ring, all of the same reward: a policy that keeps
to the data gives the ring back, with kappa a tenth above what cloning reaches, and regression, which is all that
advantage weights leave where no action is better, goes to its middle. A chain of 5 steps cannot draw a ring: its last
denoising step starts where the data are blurred by half the radius; so this part takes 20. Nor do networks with Mish
leave, within its 2,000 actor steps, the best linear function of the noisy action (`ornstein study expressiveness`
shows that of diffusion); so it takes ReLU.
"""

import argparse
import math
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from ornstein.data.episodes import Episodes
from ornstein.fit import Run
from ornstein.log import read_lines
from ornstein.noise import draw, generator
from ornstein.systems.policies import diffcps, diffusion_cloning, td3_bc
from recipes.bandit import data, shares
from recipes.common import say, write

ROWS, EVERY, BINS = 4000, 400, 16
CONFIG = diffcps.PRESETS["bandit"]


def ring(rows: int = 10_000) -> Episodes:
    """One-step episodes whose actions lie on the unit circle, within 0.05 or so, all of reward 1."""
    source = generator("ring")
    angle = 2 * math.pi * torch.rand(rows, generator=source)
    radius = 1 + 0.05 * torch.randn(rows, generator=source)
    action = (radius * torch.stack([angle.cos(), angle.sin()])).T.clamp(-1.3, 1.3).contiguous()
    obs = torch.zeros(rows, 1)
    return Episodes.from_transitions(
        obs, action, torch.ones(rows), next_obs=obs.clone(), terminal=torch.ones(rows, dtype=torch.bool),
        action_low=(-1.3, -1.3), action_high=(1.3, 1.3),
    )  # fmt: skip


def trained(config: diffcps.Config, episodes: Episodes, steps: int | None) -> tuple[Any, list[dict[str, Any]]]:
    """The learner, and its metrics averaged over every 400 critic steps."""
    with tempfile.TemporaryDirectory() as folder:
        run = Run(Path(folder) / "run", steps=steps, log_every=EVERY, quiet=True)
        agent: Any = diffcps.SYSTEM.run(config, episodes, run)[0]
        return agent, read_lines(Path(folder) / "run" / "metrics.jsonl")


def single(agent: Any) -> torch.Tensor:
    """Single samples of the actor, in the environment's units."""
    with torch.no_grad():
        noise = draw(agent.actor.needs(), ROWS, generator("single"))
        return agent.box.to_env(agent.actor(torch.zeros(ROWS, 1), noise))


def followed(config: diffcps.Config, steps: int | None) -> dict[str, Any]:
    """Loss and multiplier on the way (every 400 actor steps), and where single samples end."""
    agent, lines = trained(config, data(), steps)
    return {
        "cost_end": round(lines[-1]["multiplier/cost"], 4),
        "multiplier": [round(line["multiplier/value"], 4) for line in lines[1::2]],
        **shares(single(agent)),
    }


def floor(config: diffcps.Config, episodes: Episodes, steps: int | None) -> float:
    """The denoising loss of cloning with the same network and chain."""
    shape = {"diffusion_steps": config.diffusion_steps, "activation": config.activation, "steps": config.steps // 2}
    same = replace(diffusion_cloning.PRESETS["bandit"], **shape)
    agent: Any = diffusion_cloning.SYSTEM.run(same, episodes, Run(None, steps=steps, quiet=True))[0]
    with torch.no_grad():
        action = agent.box.to_unit(episodes.action)
        noise = draw(agent.actor.draws, len(action), generator("floor"))
        return round(float(agent.actor.cloning(torch.zeros(len(action), 1), action, noise).mean()), 4)


def on_the_ring(steps: int | None = None) -> dict[str, float]:
    """Radius and angles of single samples, and the radius of the regression."""
    torch.set_num_threads(1)
    config, episodes = replace(CONFIG, diffusion_steps=20, activation="relu"), ring()
    kappa = 1.1 * floor(config, episodes, steps)
    say(f"kappa {kappa:.3f}")
    agent, lines = trained(replace(config, kappa=kappa), episodes, steps)
    action = single(agent)
    angle = torch.atan2(action[:, 1], action[:, 0])
    count = torch.histc(angle, BINS, -math.pi, math.pi) / ROWS
    plain = replace(td3_bc.PRESETS["cloning"], width=128)
    flat: Any = td3_bc.SYSTEM.run(plain, episodes, Run(None, steps=steps or 1000, quiet=True))[0]
    with torch.no_grad():
        middle = flat.act(torch.zeros(1, 1), (), {})[0].norm()
    return {
        "kappa": round(kappa, 4),
        "cost_end": round(lines[-1]["multiplier/cost"], 4),
        "radius": round(float(action.norm(dim=1).mean()), 4),
        "radius_std": round(float(action.norm(dim=1).std()), 4),
        "angle_tv": round(float((count - 1 / BINS).abs().sum() / 2), 4),
        "regression_radius": round(float(middle), 4),
    }


def main(steps: int | None = None) -> dict[str, Any]:
    """The figures of every arm on the corners."""
    torch.set_num_threads(1)
    say("cloning")
    found: dict[str, Any] = {"steps": steps or CONFIG.steps, "floor": floor(CONFIG, data(), steps)}
    found |= {"kappa": {}, "frozen": {}}
    for kappa in (0.15, 0.3, 0.6):
        say(f"kappa {kappa}")
        found["kappa"][str(kappa)] = followed(replace(CONFIG, kappa=kappa), steps)
    for kappa in (0.15, 0.6):
        say(f"kappa {kappa}, multiplier frozen")
        found["frozen"][str(kappa)] = followed(replace(CONFIG, kappa=kappa, multiplier_lr=0.0), steps)
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ring", action="store_true", help="the ring instead of the corners")
    if parser.parse_args().ring:
        write("diffcps-ring", on_the_ring())
    else:
        write("diffcps", main())
