"""SRDP on four quadrants of states with a wedge cut out of each: how near are the actions in the wedges?

Imitation only, with the reconstruction and without it, over seeds. In each quadrant the data's actions are a mixture
of two; the measure is the two-way Chamfer distance, for each quadrant, between one sample per unseen state and as many
true draws.
"""

import argparse
import math
from dataclasses import replace
from statistics import mean
from typing import Any

import torch
from torch import Generator, Tensor

from ornstein.data.episodes import Episodes
from ornstein.fit import Run
from ornstein.noise import draw, generator
from ornstein.systems.policies import srdp
from ornstein.types import Transitions
from recipes.common import interval, say, write

STATES, HELD_OUT, STD = 4000, 300, 0.05
CUT, SEEN = math.radians(15), math.radians(12)
"""Half the angle of the wedges that are cut out, and of those that are tested."""


def actions(state: Tensor, source: Generator) -> Tensor:
    """A draw of the behaviour: 0.6 along the quadrant's diagonal, 0.35 to one of its sides, and noise."""
    diagonal = state.sign() / math.sqrt(2)
    normal = torch.stack([-diagonal[:, 1], diagonal[:, 0]], 1)
    side = torch.randint(2, (len(state), 1), generator=source) * 2.0 - 1.0
    return 0.6 * diagonal + 0.35 * side * normal + STD * torch.randn(len(state), 2, generator=source)


def data() -> Episodes:
    """One-step episodes from states in [-1, 1]^2 outside of the wedges."""
    source = generator("wedges")
    state = torch.rand(3 * STATES, 2, generator=source) * 2 - 1
    off = (torch.atan2(state[:, 1].abs(), state[:, 0].abs()) - math.pi / 4).abs()
    state = state[off > CUT][:STATES]
    return Episodes.from_transitions(
        state, actions(state, source), torch.zeros(STATES), next_obs=state.clone(),
        terminal=torch.ones(STATES, dtype=torch.bool), action_low=(-1.0, -1.0), action_high=(1.0, 1.0),
    )  # fmt: skip


def unseen(quadrant: int, source: Generator) -> Tensor:
    """States inside of a quadrant's wedge."""
    angle = math.pi / 4 + math.pi / 2 * quadrant + SEEN * (2 * torch.rand(HELD_OUT, generator=source) - 1)
    radius = 0.3 + 0.9 * torch.rand(HELD_OUT, generator=source)
    return (radius * torch.stack([angle.cos(), angle.sin()])).T.contiguous()


def chamfer(a: Tensor, b: Tensor) -> float:
    """The mean distance to the nearest of the other set, there and back."""
    distance = torch.cdist(a, b)
    return float(distance.min(1).values.mean() + distance.min(0).values.mean())


@torch.no_grad()
def measure(agent: Any) -> tuple[float, float]:
    """The mean Chamfer distance over quadrants, and the error of the reconstruction in the wedges."""
    source, distances, errors = generator("unseen"), [], []
    for quadrant in range(4):
        state = unseen(quadrant, source)
        true = actions(state, source)
        distances.append(chamfer(agent.actor(state, draw(agent.actor.needs(), HELD_OUT, source)), true))
        zero = torch.zeros(HELD_OUT)
        batch = Transitions(state, true.clamp(-1, 1), zero, state, zero, zero)
        errors.append(float(agent.errors(batch, draw(agent.actor.draws, HELD_OUT, source))[1]))
    return round(mean(distances), 4), round(mean(errors), 6)


def main(seeds: int = 3, steps: int | None = None) -> dict[str, Any]:
    """Distances of every seed with and without the reconstruction, and their ratio."""
    torch.set_num_threads(1)
    config, found = srdp.PRESETS["bandit"], {}
    for weight in (1.0, 0.0):
        measured = []
        for seed in range(seeds):
            say(f"reconstruction {weight:g}, seed {seed}")
            run = Run(None, seeds=(seed,), steps=steps, quiet=True)
            measured.append(measure(srdp.SYSTEM.run(replace(config, reconstruction=weight), data(), run)[0]))
        found[weight] = tuple(zip(*measured, strict=True))
    (near, errors), (far, _) = found[1.0], found[0.0]
    return {
        "steps": steps or config.steps,
        "chamfer": list(near),
        "chamfer_without": list(far),
        "ratio": round(mean(near) / mean(far), 4),
        "difference": interval([a - b for a, b in zip(near, far, strict=True)]),
        "reconstruction_error": list(errors),
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    write("srdp", main(parser.parse_args().seeds))
