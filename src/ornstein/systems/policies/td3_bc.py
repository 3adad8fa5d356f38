"""TD3+BC: a deterministic policy that climbs the critic while a squared error holds it to the data's actions.

The minimalist baseline of every offline table, and the learner that synthetic data are judged by. What tells it
apart: TD3 as it is, plus one cloning term; the Q term is scaled by its own mean magnitude; observations are
standardised over the data set.

Deviates: observations are divided by their standard deviation, not by that + 0.001, and constant ones by 1.
"""

from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ornstein.actor import fit_transitions
from ornstein.data.episodes import Episodes
from ornstein.data.normalize import Gaussian
from ornstein.fit import Run
from ornstein.rl.action import ActionBox
from ornstein.rl.actor import Actor
from ornstein.rl.average import frozen
from ornstein.rl.critic import Critics
from ornstein.rl.target import td_target
from ornstein.source import Source
from ornstein.system import System
from ornstein.types import Adam, Average, Descend, Draw, Metrics, Noise, NoiseSpec, Phase, Spaces, Transitions

SOURCE = Source(
    title="A Minimalist Approach to Offline Reinforcement Learning",
    authors="Fujimoto, Scott and Gu, Shixiang Shane",
    year=2021,
    venue="Advances in Neural Information Processing Systems",
    arxiv="2106.06860",
    repository="https://github.com/sfujim/TD3_BC",
)


@dataclass(frozen=True)
class Config:
    """Settings; the defaults are the paper's (its appendix C), the same for every task."""

    q_weight: float = 2.5  # the paper's alpha: weight of the Q term after it is scaled by mean |Q|
    lr: float = 3e-4
    schedule: Literal["constant", "cosine"] = "constant"
    discount: float = 0.99
    n_step: int = 1
    rate: float = 0.005  # share of the new weights in the target networks
    policy_noise: float = 0.2  # standard deviation of the noise on target actions, in units of [-1, 1]
    noise_clip: float = 0.5
    policy_every: int = 2  # critic updates per policy and target update
    layer_norm: bool = False  # in the critics
    standardize: bool = True  # observations to mean 0 and deviation 1 over the data; online without any: False
    width: int = 256
    depth: int = 2
    batch_size: int = 256
    steps: int = 1_000_000


class TD3BC(nn.Module):
    """The learner and the policy."""

    def __init__(self, config: Config, spaces: Spaces) -> None:
        super().__init__()
        self.config, self.spaces = config, spaces
        size, c = spaces.obs + spaces.goal, config
        net: dict[str, Any] = {"width": c.width, "depth": c.depth}
        self.actor = Actor(size, spaces.act, **net)
        self.actor_target = frozen(self.actor)
        self.critics = Critics(size, spaces.act, activation="relu", layer_norm=c.layer_norm, **net)
        self.critics_target = frozen(self.critics)
        self.inputs, self.box = Gaussian(size), ActionBox(spaces)
        self.noise: NoiseSpec = {}

    def phases(self) -> tuple[Phase, ...]:
        """The critics at every update; the actor and all targets at every `policy_every`-th."""
        c = self.config
        adam = Adam(c.lr, schedule=c.schedule)
        return (
            Descend("critic", self.critics, self.critic_loss, adam, {"action": Draw("normal", (self.spaces.act,))}),
            Descend("actor", self.actor, self.actor_loss, adam, {}, every=c.policy_every),
            Average(self.actor_target, self.actor, c.rate, every=c.policy_every),
            Average(self.critics_target, self.critics, c.rate, every=c.policy_every),
        )

    def critic_loss(self, batch: Transitions, noise: Noise) -> tuple[Float[Tensor, ""], Metrics]:
        """Both critics' squared error against r + gamma min Q'(s', a'), with a' the target actor's, smoothed by
        clipped noise.
        """
        c = self.config
        with torch.no_grad():
            smooth = (c.policy_noise * noise["action"]).clamp(-c.noise_clip, c.noise_clip)
            next_action = (self.actor_target(batch.next_obs) + smooth).clamp(-1.0, 1.0)
            next_value = self.critics_target(batch.next_obs, next_action).amin(0)
            target = td_target(batch.reward, batch.terminal, batch.discount, next_value)
        q = self.critics(batch.obs, self.box.to_unit(batch.action))
        return (q - target).square().mean(1).sum(), {"q": q.mean()}

    def actor_loss(self, batch: Transitions, noise: Noise) -> tuple[Float[Tensor, ""], Metrics]:
        """- lambda mean Q_1(s, pi(s)) + mean (pi(s) - a)^2, with lambda = q_weight / mean |Q_1| (eq. 5 of the
        paper).
        """
        action = self.actor(batch.obs)
        q = self.critics(batch.obs, action)[0]
        cloning = (action - self.box.to_unit(batch.action)).square().mean()
        return cloning - self.config.q_weight * q.mean() / q.detach().abs().mean(), {"cloning": cloning}

    def start(self, n_envs: int) -> tuple[()]:
        """Nothing is remembered."""
        return ()

    def act(self, obs: Float[Tensor, " n obs"], carry: Any, noise: Noise) -> tuple[Float[Tensor, " n act"], Any]:
        """The actor's action."""
        return self.box.to_env(self.actor(self.inputs(obs))), carry


def train(config: Config, episodes: Episodes, run: Run) -> list[nn.Module]:
    """One stage: both networks together."""
    return fit_transitions(lambda e: TD3BC(config, e.spaces), config, episodes, run)


BASE = Config()
PRESETS = {
    "locomotion": BASE,
    "cloning": replace(BASE, q_weight=0.0),
    "fast": replace(BASE, steps=30_000),
    "replay-cpu": replace(  # tens of thousands of transitions, minutes of one core
        BASE, lr=1e-3, schedule="cosine", n_step=5, rate=0.01, width=128, batch_size=128, steps=5_000
    ),
}
TARGETS: dict[str, str | float] = {
    "halfcheetah-medium": "48.3 +- 0.3", "hopper-medium": "59.3 +- 4.2", "walker2d-medium": "83.7 +- 2.1",
    "halfcheetah-medium-replay": "44.6 +- 0.5", "hopper-medium-replay": "60.9 +- 18.8",
    "walker2d-medium-replay": "81.8 +- 5.5",
    "halfcheetah-medium-expert": "90.7 +- 4.3", "hopper-medium-expert": "98.0 +- 9.4",
    "walker2d-medium-expert": "110.1 +- 0.5",
}  # fmt: skip
SYSTEM = System(SOURCE, Config, PRESETS, TARGETS, TD3BC, train)
