"""DPPO: policy gradients through a diffusion policy, each denoising step being an action of its own.

A policy that was cloned from demonstrations is improved in the environment by PPO on a process of two layers:
environment steps, and within each the last denoising steps, Gaussian laws whose densities are known. What tells it
apart: no gradient goes through the chain or a critic; only the last steps are tuned, by a copy of the network that
is frozen for those before; the advantage comes from a value of the environment's states alone, discounted towards the
noisier steps, where the policy may also move less; and a least standard deviation in draws AND densities keeps the
ratios finite. Log-densities are clamped and averaged over the action's entries. Paths keep the last draw as it is, so
that its density is exact, and the box clips what is executed. Frozen and tuned network begin as the clone's average.

Actions are chunks of length 1. The variant with DDIM steps and a learned eta is not built.
Deviates: a batch holds the whole chains of some environment steps, where the official code shuffles all pairs of
environment and denoising step. A batch on which the policy has drifted beyond the target KL is not stepped on; there
it is the last one. Sums of advantages end where a time limit does. Actions are scaled to [-1, 1] by the environment's
box, officially by the data's least and largest.
"""

from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ornstein.actor import DiffusionActor, fit_transitions
from ornstein.data.episodes import Episodes
from ornstein.data.normalize import MinMax
from ornstein.data.rows import acted
from ornstein.diffusion.chain import Chain
from ornstein.diffusion.process import DiscreteVP
from ornstein.fit import Run
from ornstein.nets.mlp import ConditionalMLP
from ornstein.rl.action import ActionBox
from ornstein.rl.average import frozen
from ornstein.rl.critic import StateValues
from ornstein.rl.proximal import clipped_gain, drift, rising_reach, standardised
from ornstein.source import Source
from ornstein.system import System
from ornstein.types import Adam, Average, Denoise, Descend, Metrics, Noise, Phase, Rolled, Rollouts, Spaces, Transitions

SOURCE = Source(
    title="Diffusion Policy Policy Optimization",
    authors="Ren, Allen Z. and Lidard, Justin and Ankile, Lars L. and Simeonov, Anthony and Agrawal, Pulkit "
    "and Majumdar, Anirudha and Burchfiel, Benjamin and Dai, Hongkai and Simchowitz, Max",
    year=2025,
    venue="International Conference on Learning Representations",
    arxiv="2409.00588",
    repository="https://github.com/irom-princeton/dppo",
)


@dataclass(frozen=True)
class Config:
    """Settings; those of tuning are the paper's for locomotion, those of the clone and the networks' sizes are ours."""

    diffusion_steps: int = 20  # of the chain
    noise_schedule: Literal["cosine", "vp"] = "cosine"  # the paper's, or Diffusion-QL's for few steps
    tuned_steps: int = 10  # of these, the last ones
    least_std: float = 0.1  # of all steps in rollouts, in draws and densities
    noise_clip: float = 3.0  # of the steps' unit noise
    log_prob_range: tuple[float, float] = (-5.0, 2.0)  # to which the log-density of an entry is clamped
    denoising_discount: float = 0.99  # of the advantage, per step away from the action
    reach: float = 0.01  # of the ratio around 1, at the last step
    first_reach: float = 0.01  # at the first tuned step; between them it grows by exp(reach_rate u)
    reach_rate: float = 3.0
    n_envs: int = 40
    n_steps: int = 500  # of each environment in a rollout
    epochs: int = 5  # in which a rollout is gone through
    discount: float = 0.99
    trace: float = 0.95  # lambda of the advantage
    scale_rewards: bool = True  # by the running spread of discounted returns
    target_kl: float = 1.0  # beyond which a rollout is given up; 0: never
    actor_lr: float = 1e-4
    critic_lr: float = 1e-3
    clip: float = 0.0  # largest gradient norm of actor and critic; 0: none
    tune_batch_size: int = 5_000  # environment steps, each with its tuned steps: 50,000 pairs
    tune_steps: int = 20_000  # updates: 1,000 rollouts
    lr: float = 1e-3  # of the clone, falling to 0 by a cosine
    weight_decay: float = 1e-6  # of the clone
    ema_rate: float = 0.005  # share of the new weights in the clone's average
    ema_after: int = 1000  # updates before which the average is a copy
    width: int = 512  # of the policy
    critic_width: int = 256
    activation: str = "mish"  # of both
    batch_size: int = 128  # of the clone
    steps: int = 200_000  # of the clone


class DPPO(nn.Module):
    """The learner, cloning until it is told to `begin`, and the policy."""

    fade: Tensor
    reach: Tensor

    def __init__(self, config: Config, spaces: Spaces) -> None:
        super().__init__()
        self.config, self.spaces, c = config, spaces, config
        size, process = spaces.obs + spaces.goal, DiscreteVP(c.diffusion_steps, c.noise_schedule)
        self.clone = DiffusionActor(
            ConditionalMLP(spaces.act, size, width=c.width, activation=c.activation), process, spaces.act
        )
        self.base, self.actor = frozen(self.clone), deepcopy(self.clone)
        self.chain = Chain(process, c.tuned_steps, least_std=c.least_std, clip=c.noise_clip)
        self.critic = StateValues(size, width=c.critic_width, activation=c.activation)
        self.normalizer, self.box = MinMax(size), ActionBox(spaces)
        fade = c.denoising_discount ** torch.arange(c.tuned_steps - 1, -1, -1, dtype=torch.float64)
        reach = rising_reach(c.first_reach, c.reach, c.tuned_steps, rate=c.reach_rate)
        for name, values in (("fade", fade.float()), ("reach", reach)):
            self.register_buffer(name, values, persistent=False)
        self.noise = self.roll_noise = self.chain.needs((spaces.act,))
        self.tuning = False

    def begin(self) -> None:
        """From now on the phases are those of tuning."""
        self.tuning = True

    def phases(self) -> tuple[Phase, ...]:
        """The clone, its average and the copy that will be tuned; or, after `begin`, actor and critic."""
        c = self.config
        if self.tuning:
            return (
                Descend("actor", self.actor, self.actor_loss, Adam(c.actor_lr, clip=c.clip), {}),
                Descend("critic", self.critic, self.critic_loss, Adam(c.critic_lr, clip=c.clip), {}),
            )
        adam = Adam(c.lr, schedule="cosine", weight_decay=c.weight_decay)
        return (
            Descend("clone", self.clone, self.clone_loss, adam, self.clone.draws),
            Average(self.base, self.clone, c.ema_rate, after=c.ema_after, before="copy"),
            Average(self.actor, self.base, 1.0),
        )

    def clone_loss(self, batch: Transitions, noise: Noise) -> tuple[Float[Tensor, ""], Metrics]:
        """The squared error of the predicted noise, all steps of the chain weighted alike."""
        obs = self.normalizer(batch.obs)
        return self.clone.cloning(obs, self.box.to_unit(batch.action), noise).mean(), {}

    def actor_loss(self, batch: Rolled, noise: Noise) -> tuple[Float[Tensor, ""], Metrics]:
        """- mean min(ratio w, clamp(ratio) w) over steps of both layers, w the advantage, discounted to the step."""
        log_ratio = self.log_prob(batch.obs, batch.path) - batch.log_prob
        weight = standardised(batch.advantage).unsqueeze(-1) * self.fade
        gain = clipped_gain(log_ratio, weight, self.reach)
        beyond = (log_ratio.expm1().abs() > self.reach).to(gain.dtype).mean()
        return -gain.mean(), {"drift": drift(log_ratio), "beyond": beyond}

    def critic_loss(self, batch: Rolled, noise: Noise) -> tuple[Float[Tensor, ""], Metrics]:
        """Half the squared error of the value of the environment's state."""
        value = self.value(batch.obs)
        return 0.5 * (value - batch.target).square().mean(), {"value": value.mean()}

    def log_prob(self, obs: Float[Tensor, " b obs"], path: Float[Tensor, " b states act"]) -> Float[Tensor, " b k"]:
        """The log-density of each tuned step, clamped and averaged over the action's entries."""
        late = self.actor.denoiser.given(self.normalizer(obs).repeat_interleave(self.chain.tuned, 0))
        return self._averaged(self.chain.log_prob(late, path))

    def value(self, obs: Float[Tensor, " b obs"]) -> Float[Tensor, " b"]:
        """The discounted sum of scaled rewards that is expected from a state."""
        return self.critic(self.normalizer(obs))[0]

    def drift(self, batch: Rolled) -> Float[Tensor, ""]:
        """The divergence from the policy that drew the batch, per denoising step and entry."""
        return drift(self.log_prob(batch.obs, batch.path) - batch.log_prob)

    def roll(
        self, obs: Float[Tensor, " n obs"], noise: Noise
    ) -> tuple[Float[Tensor, " n act"], Float[Tensor, " n states act"], Float[Tensor, " n k"]]:
        """Actions drawn with the least standard deviation, the paths to them, and the densities of these."""
        path, log_prob = self.chain.walk(*self._denoisers(obs), noise)
        return self.box.to_env(path[:, -1]), path, self._averaged(log_prob)

    def start(self, n_envs: int) -> tuple[()]:
        """Nothing is remembered."""
        return ()

    def act(self, obs: Float[Tensor, " n obs"], carry: Any, noise: Noise) -> tuple[Float[Tensor, " n act"], Any]:
        """One draw of the chain, its noise that of the process, and none at its end."""
        return self.box.to_env(self.chain.draw(*self._denoisers(obs), noise)), carry

    def _denoisers(self, obs: Tensor) -> tuple[Denoise, Denoise]:
        seen = self.normalizer(obs)
        return self.base.denoiser.given(seen), self.actor.denoiser.given(seen)

    def _averaged(self, log_prob: Tensor) -> Tensor:
        return log_prob.clamp(*self.config.log_prob_range).mean(-1)


def train(config: Config, episodes: Episodes, run: Run) -> list[nn.Module]:
    """One stage: the clone. Tuning follows in an environment."""

    def build(known: Episodes) -> DPPO:
        agent = DPPO(config, known.spaces)
        agent.normalizer.fit(acted(known))
        return agent

    return fit_transitions(build, config, episodes, run)


def rollouts(config: Config) -> Rollouts:
    """How tuning gathers its steps."""
    c = config
    sizes = (c.n_envs, c.n_steps, c.epochs, c.tune_batch_size, c.tune_steps)
    return Rollouts(*sizes, c.discount, c.trace, c.scale_rewards, c.target_kl)


BASE = Config()
PENDULUM = replace(  # one core, a minute: 50,000 environment steps
    BASE, diffusion_steps=5, tuned_steps=3, noise_schedule="vp", reach=0.2, first_reach=0.1, n_envs=20, n_steps=100,
    epochs=10, discount=0.9, actor_lr=1e-3, tune_batch_size=500, tune_steps=1_000, lr=3e-3, ema_after=0, width=64,
    critic_width=64, activation="silu", batch_size=256, steps=6_000,
)  # fmt: skip
PRESETS = {
    "locomotion": BASE,
    "pendulum": PENDULUM,
    "hopper-cpu": replace(  # as many steps, after two minutes of cloning
        PENDULUM, reach=0.1, first_reach=0.03, epochs=5, discount=0.99, n_envs=10, n_steps=500, actor_lr=3e-4, lr=1e-3,
        tune_steps=500, width=128, critic_width=128, steps=20_000,
    ),
}  # fmt: skip
TARGETS: dict[str, str | float] = {}
SYSTEM = System(SOURCE, Config, PRESETS, TARGETS, DPPO, train, rollouts)
