"""QSM on two modes whose law is known: what the released and the scaled target do with an exact Q.

One state, Q = log(0.3 N(-0.5, 0.15^2) + 0.7 N(0.5, 0.2^2)), known to the learner, so that only the actor is judged: a
policy at temperature 1 would be the mixture. Stored actions are uniform. A law holds both modes if its Wasserstein
distance to the mixture is below 0.06, its mass left of 0 is 0.3 +- 0.06 and its standard deviation the mixture's
+- 10 %. Beside the two targets: a denoising clone of actions drawn from the mixture itself, once in the same chain and
once in one that clamps the denoised action in place of every iterate, which says what network and steps can hold.
"""

import argparse
import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from ornstein.fit import Run, fit
from ornstein.noise import draw, generator
from ornstein.systems.policies import qsm
from ornstein.types import Adam, Descend, Spaces
from recipes.common import say, write

WEIGHT, MEAN, STD = torch.tensor([0.3, 0.7]), torch.tensor([-0.5, 0.5]), torch.tensor([0.15, 0.2])
ROWS = 20_000
CONFIG = replace(
    qsm.BASE, q_scale=1.0, diffusion_steps=20, explore_std=0.0, width=64, depth=3, lr=1e-3,
    steps=12_000,
)  # fmt: skip


class Mixture(nn.Module):
    """Both critics: the log-density of the mixture at every action."""

    def forward(self, obs: Tensor, action: Tensor) -> Tensor:
        """The log-density."""
        z = (action - MEAN) / STD
        log = WEIGHT.log() - STD.log() - 0.5 * math.log(2 * math.pi) - 0.5 * z.square()
        return log.logsumexp(-1).expand(2, *action.shape[:-1])


class Informed(qsm.QSM):
    """QSM that knows its critics, or a clone with its network and chain."""

    def __init__(self, config: qsm.Config, clone: bool) -> None:
        super().__init__(config, Spaces(obs=1, act=1))
        self.critics, self.clone = Mixture(), clone  # pyright: ignore

    def unclipped(self) -> "Informed":
        """Itself, with the denoised action clamped in place of the iterates."""
        self.actor.constrain, self.actor.denoiser.bound = None, 1.0
        return self

    def phases(self) -> tuple[Descend, ...]:
        """The actor alone."""
        loss = self.cloning if self.clone else self.actor_loss
        return (Descend("actor", self.actor, loss, Adam(self.config.lr, schedule="cosine"), self.actor.draws),)

    def cloning(self, batch: Any, noise: Any) -> Any:
        """The denoising loss."""
        return self.actor.cloning(batch.obs, batch.action, noise).mean(), {}


def mixture(n: int, *names: object) -> Tensor:
    """Draws of the mixture."""
    source = generator("mixture", *names)
    mode = (torch.rand(n, generator=source) < WEIGHT[1]).long()
    return MEAN[mode] + STD[mode] * torch.randn(n, generator=source)


class Actions:
    """Stored actions at the one state."""

    def __init__(self, action: Tensor) -> None:
        self.action = action

    def __len__(self) -> int:
        return len(self.action)

    def gather(self, index: Tensor) -> Any:
        """A batch of them."""
        zeros = torch.zeros(len(index))
        return qsm.Transitions(zeros[:, None], self.action[index, None], zeros, zeros[:, None], zeros, zeros)

    def to(self, where: Any) -> "Actions":
        """Itself."""
        return self


def measured(agent: qsm.QSM) -> dict[str, Any]:
    """Distance, left mass, mean and spread of the agent's samples, and whether they hold both modes."""
    with torch.no_grad():
        action = agent.actor(torch.zeros(ROWS, 1), draw(agent.actor.needs(), ROWS, generator("made")))[:, 0]
    fresh = mixture(ROWS, "fresh")
    w1 = float((action.sort().values - fresh.sort().values).abs().mean())
    left, std, wanted = float((action < 0).float().mean()), float(action.std()), float(fresh.std())
    holds = w1 < 0.06 and abs(left - 0.3) <= 0.06 and abs(std / wanted - 1) <= 0.1
    found: dict[str, Any] = {"w1": w1, "left": left, "mean": float(action.mean()), "std": std, "std_wanted": wanted}
    found = {name: round(value, 4) for name, value in found.items()}
    for name, side in (("left_of_0", action[action < 0]), ("right_of_0", action[action >= 0])):
        found[name] = {"mean": round(float(side.mean()), 3), "std": round(float(side.std()), 3)}
    return found | {"holds": holds}


def arms() -> Iterator[tuple[str, qsm.Config, bool]]:
    """Name, configuration and whether it clones."""
    yield "released", CONFIG, False
    yield "scaled", replace(CONFIG, target="scaled"), False
    yield "clone", CONFIG, True


def main(steps: int = CONFIG.steps, seed: int = 0) -> dict[str, Any]:
    """What every arm's samples are like."""
    torch.set_num_threads(1)
    found: dict[str, Any] = {"steps": steps, "seed": seed}
    uniform = 2 * torch.rand(50_000, generator=generator("stored", seed)) - 1
    for name, config, clone in arms():
        run = Run(None, seeds=(seed,), steps=steps, quiet=True)
        agents: list[Any] = run.build(lambda config=config, clone=clone: Informed(config, clone))
        data = Actions(mixture(50_000, "stored", seed).clamp(-1, 1) if clone else uniform)
        fit(agents, data, steps=steps, batch_size=config.batch_size, run=run)
        found[name] = measured(agents[0])
        if clone:
            found["clone_bounded"] = measured(agents[0].unclipped())
        say(f"{name}: {found[name]}")
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=CONFIG.steps)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    write("qsm", main(options.steps, options.seed))
