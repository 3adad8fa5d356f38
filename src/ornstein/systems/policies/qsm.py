"""QSM: the network of a diffusion policy learns the slope of the critics, and the chain climbs it.

Nothing clones an action and nothing back-propagates through the chain: stored actions only say where to look. They are
noised, the mean critic's gradient is taken at the noisy action, and the network is regressed on minus `q_scale` times
that. What tells it apart: the gradient-matched target, the only loss of the actor; critics that are asked about noisy
actions; exploration by Gaussian noise on the finished action, in acting and in the targets alike.

The released target lacks the factor sigma that turns a score into noise (`target` "released"), so that the chain
overshoots towards the peaks of Q and is nearly deterministic. With the factor ("scaled") the target is the noise of the
law exp(q_scale Q), right as sigma goes to 0 only: a noisy law's score is not Q's slope at the noisy action. Where that
slope is steep the five-step chain diverges, but for the clipping of every iterate.

Deviates: time enters by sinusoids, not by learned Fourier features through a network of its own. First weights are the
library's, not Xavier's. The cosine decay of the actor's rate ends with the run, the official one at twice its length.
`candidates` above 1, the best of several for acting, is not in the official code, which acts by one sample.
"""

from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ornstein.actor import DiffusionActor, fit_transitions
from ornstein.data.episodes import Episodes
from ornstein.diffusion.constrain import clipped
from ornstein.diffusion.guidance import gradient
from ornstein.diffusion.process import DiscreteVP
from ornstein.diffusion.schedule import Schedule
from ornstein.diffusion.solver import DDPM
from ornstein.fit import Run
from ornstein.nets.mlp import ConditionalMLP
from ornstein.rl.action import ActionBox
from ornstein.rl.average import frozen
from ornstein.rl.critic import Critics, candidate_values, regression
from ornstein.rl.select import best
from ornstein.rl.target import td_target
from ornstein.source import Source
from ornstein.system import System
from ornstein.types import Adam, Average, Descend, Draw, Metrics, Noise, NoiseSpec, Phase, Point, Spaces, Transitions

SOURCE = Source(
    title="Learning a Diffusion Model Policy from Rewards via Q-Score Matching",
    authors="Psenka, Michael and Escontrela, Alejandro and Abbeel, Pieter and Ma, Yi",
    year=2024,
    venue="International Conference on Machine Learning",
    arxiv="2312.11752",
    repository="https://github.com/Alescontrela/score_matching_rl",
)


@dataclass(frozen=True)
class Config:
    """Settings; the defaults are those of the official code."""

    q_scale: float = 50.0  # M: what the slope of Q is multiplied by; 120 for the harder tasks
    target: Literal["released", "scaled"] = "released"  # with the factor sigma or without
    diffusion_steps: int = 5
    noise_schedule: Schedule = "vp"
    variance: Literal["small", "large"] = "large"  # of the chain's steps: the posterior's, or the forward step's
    explore_std: float = 0.1  # of the noise on actions, in exploring and in targets
    candidates: int = 1  # actions among which acting takes the best by the target critics' mean
    lr: float = 3e-4  # of the actor
    critic_lr: float = 3e-4
    schedule: Literal["constant", "cosine"] = "cosine"  # of the actor's rate
    discount: float = 0.99
    n_step: int = 1
    ema_rate: float = 0.005  # share of the new weights in the target critics
    width: int = 512
    depth: int = 2
    activation: str = "mish"  # of the actor
    batch_size: int = 256
    steps: int = 1_000_000


class QSM(nn.Module):
    """The learner and the policy."""

    def __init__(self, config: Config, spaces: Spaces) -> None:
        super().__init__()
        self.config, self.spaces, c, size = config, spaces, config, spaces.obs + spaces.goal
        network = ConditionalMLP(spaces.act, size, width=c.width, depth=c.depth, activation=c.activation, time=64)
        self.actor = DiffusionActor(
            network, DiscreteVP(c.diffusion_steps, c.noise_schedule), spaces.act, solver=DDPM(c.variance), bound=None,
            constrain=clipped(-1.0, 1.0),
        )  # fmt: skip
        self.critics = Critics(size, spaces.act, width=c.width, depth=c.depth, activation="relu")
        self.critics_target = frozen(self.critics)
        self.box = ActionBox(spaces)
        self.noise = dict(self.actor.needs(c.candidates))
        self.explore_noise: NoiseSpec = {**self.actor.needs(), "jitter": Draw("normal", (spaces.act,))}

    def phases(self) -> tuple[Phase, ...]:
        """Critics, their targets, actor: the official order."""
        c, adam = self.config, Adam(self.config.lr, schedule=self.config.schedule)
        return (
            Descend("critic", self.critics, self.critic_loss, Adam(c.critic_lr), self.explore_noise),
            Average(self.critics_target, self.critics, c.ema_rate),
            Descend("actor", self.actor, self.actor_loss, adam, self.actor.draws),
        )

    def critic_loss(self, batch: Transitions, noise: Noise) -> tuple[Float[Tensor, ""], Metrics]:
        """Both critics' squared error against r + gamma min_i Q_i'(s', a'), a' as in exploring."""
        with torch.no_grad():
            value = self.critics_target(batch.next_obs, self.jittered(batch.next_obs, noise)).amin(0)
            target = td_target(batch.reward, batch.terminal, batch.discount, value)
        return regression(self.critics, batch.obs, self.box.to_unit(batch.action), target)

    def actor_loss(self, batch: Transitions, noise: Noise) -> tuple[Float[Tensor, ""], Metrics]:
        """The squared error of the network at noised actions against `slope_target` (algorithm 1)."""
        x_t, level = self.actor.noised(self.box.to_unit(batch.action), noise)
        target = self.slope_target(batch.obs, x_t, level)
        error = self.actor.denoiser.output(x_t, level, batch.obs) - target
        return error.square().mean(), {"slope": target.abs().mean()}

    @torch.no_grad()
    def slope_target(
        self, obs: Float[Tensor, " b obs"], x_t: Float[Tensor, " b act"], level: Point
    ) -> Float[Tensor, " b act"]:
        """- M grad_a Q(s, a) at the noisy action, Q the critics' mean; times sigma if the target is scaled."""
        slope = gradient(lambda x, _: self.critics(obs, x).mean(0), x_t, level)
        return -self.config.q_scale * (slope * level.sigma if self.config.target == "scaled" else slope)

    def jittered(self, obs: Float[Tensor, " n obs"], noise: Noise) -> Float[Tensor, " n act"]:
        """A sample with the noise of exploring, in [-1, 1]."""
        return (self.actor(obs, noise) + self.config.explore_std * noise["jitter"]).clamp(-1.0, 1.0)

    def start(self, n_envs: int) -> tuple[()]:
        """Nothing is remembered."""
        return ()

    def act(self, obs: Float[Tensor, " n obs"], carry: Any, noise: Noise) -> tuple[Float[Tensor, " n act"], Any]:
        """A sample, or the best of several."""
        action = self.actor.candidates(obs, noise)
        value = candidate_values(self.critics_target, obs, action).mean(0)
        return self.box.to_env(best(action, value)), carry

    def explore(self, obs: Float[Tensor, " n obs"], carry: Any, noise: Noise) -> tuple[Float[Tensor, " n act"], Any]:
        """A sample with noise."""
        return self.box.to_env(self.jittered(obs, noise)), carry


def train(config: Config, episodes: Episodes, run: Run) -> list[nn.Module]:
    """One stage on recorded episodes, where nothing holds it to them; online it is at home."""
    return fit_transitions(lambda e: QSM(config, e.spaces), config, episodes, run)


BASE = Config()
SMALL = replace(BASE, lr=1e-3, critic_lr=1e-3, activation="silu", width=128, batch_size=128, steps=10_000)
PRESETS = {
    "locomotion": BASE,
    "hard": replace(BASE, q_scale=120.0),  # quadruped and humanoid
    "online-cpu": SMALL,
    "hopper-cpu": replace(SMALL, q_scale=10.0, schedule="constant"),  # as many as 50,000 updates, not a million
    "doors": replace(  # a law at temperature 0.1; Karras' last levels are fine enough to draw its narrow mode
        SMALL,
        target="scaled",
        q_scale=10.0,
        diffusion_steps=10,
        noise_schedule="karras",
        explore_std=0.03,
        candidates=16,
        width=64,
        batch_size=64,
    ),
}
TARGETS: dict[str, str | float] = {}
SYSTEM = System(SOURCE, Config, PRESETS, TARGETS, QSM, train)
