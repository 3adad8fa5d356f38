"""Discrete SAC: a softmax over choices by a plain network, which maximises return and entropy from its own experience.

The comparison of D2SAC and FDEdge. What tells it apart: expectations over all choices in place of samples, a critic
that gives a value to every choice, and a temperature that holds the entropy to a share of the largest one. Exploring
draws from the policy; acting takes its most probable choice.
"""

from dataclasses import dataclass, replace
from math import log
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ornstein.actor import fit_transitions
from ornstein.data.episodes import Episodes
from ornstein.fit import Run
from ornstein.rl.action import ActionChoice
from ornstein.rl.actor import Actor
from ornstein.rl.average import frozen
from ornstein.rl.discrete import ChoiceCritics, choice_loss, choice_regression, entropy, expected
from ornstein.rl.select import perturbed
from ornstein.rl.target import td_target
from ornstein.rl.temperature import Temperature
from ornstein.source import Source
from ornstein.system import System
from ornstein.types import Adam, Average, Descend, Draw, Metrics, Noise, NoiseSpec, Phase, Spaces, Transitions

SOURCE = Source(
    title="Soft Actor-Critic for Discrete Action Settings",
    authors="Christodoulou, Petros",
    year=2019,
    venue="arXiv",
    arxiv="1910.07207",
    repository="https://github.com/p-christ/Deep-Reinforcement-Learning-Algorithms-with-PyTorch",
)


@dataclass(frozen=True)
class Config:
    """Settings; the defaults are the paper's."""

    lr: float = 3e-4  # of policy and critics
    temperature_lr: float = 3e-4  # 0 keeps the first temperature
    temperature: float = 1.0  # the first one
    hold: float = 0.98  # the entropy is held to this share of the largest, log(choices)
    discount: float = 0.99
    n_step: int = 1  # length of returns before the bootstrap
    ema_rate: float = 0.005  # share of the new weights in the target critics
    width: int = 256
    depth: int = 2
    activation: str = "relu"
    batch_size: int = 64
    steps: int = 100_000


class SACDiscrete(nn.Module):
    """The learner and the policy."""

    def __init__(self, config: Config, spaces: Spaces) -> None:
        super().__init__()
        self.config, self.spaces, self.choice = config, spaces, ActionChoice(spaces)
        net = {"width": config.width, "depth": config.depth, "activation": config.activation}
        self.actor = Actor(spaces.obs + spaces.goal, spaces.act, squash=False, **net)
        self.critics = ChoiceCritics(spaces.obs + spaces.goal, spaces.act, **net)
        self.critics_target = frozen(self.critics)
        self.temperature = Temperature(config.temperature)
        self.noise: NoiseSpec = {}
        self.explore_noise: NoiseSpec = {"choice": Draw("uniform", (spaces.act,))}

    def phases(self) -> tuple[Phase, ...]:
        """Critics, policy, temperature, target critics; nothing is drawn."""
        adam = Adam(self.config.lr)
        return (
            Descend("critic", self.critics, self.critic_loss, adam, {}),
            Descend("actor", self.actor, self.actor_loss, adam, {}),
            Descend("temperature", self.temperature, self.temperature_loss, Adam(self.config.temperature_lr), {}),
            Average(self.critics_target, self.critics, self.config.ema_rate),
        )

    def critic_loss(self, batch: Transitions, noise: Noise) -> tuple[Float[Tensor, ""], Metrics]:
        """Both critics' squared error against r + gamma (sum_a pi(a|s') min Q'(s', a) + temperature H(pi))."""
        with torch.no_grad():
            law = self.law(batch.next_obs)
            soft = expected(self.critics_target(batch.next_obs), law) + self.temperature() * entropy(law)
            target = td_target(batch.reward, batch.terminal, batch.discount, soft)
        return choice_regression(self.critics, batch.obs, self.choice.to_unit(batch.action), target)

    def actor_loss(self, batch: Transitions, noise: Noise) -> tuple[Float[Tensor, ""], Metrics]:
        """- (temperature H(pi) + sum_a pi(a|s) min Q(s, a))."""
        return choice_loss(self.critics, batch.obs, self.law(batch.obs), self.temperature())

    def temperature_loss(self, batch: Transitions, noise: Noise) -> tuple[Float[Tensor, ""], Metrics]:
        """The temperature rises while the entropy is below its share of log(choices)."""
        return self.temperature.loss(entropy(self.law(batch.obs)), self.config.hold * log(self.spaces.act))

    def law(self, obs: Float[Tensor, " b obs"]) -> Float[Tensor, " b act"]:
        """Log-probabilities."""
        return self.actor(obs).log_softmax(-1)

    def start(self, n_envs: int) -> tuple[()]:
        """Nothing is remembered."""
        return ()

    def act(self, obs: Float[Tensor, " n obs"], carry: Any, noise: Noise) -> tuple[Float[Tensor, " n act"], Any]:
        """The most probable choice."""
        return self.choice.to_env(self.actor(obs)), carry

    def explore(self, obs: Float[Tensor, " n obs"], carry: Any, noise: Noise) -> tuple[Float[Tensor, " n act"], Any]:
        """A draw of the policy."""
        return self.choice.to_env(perturbed(self.law(obs), noise["choice"])), carry


def train(config: Config, episodes: Episodes, run: Run) -> list[nn.Module]:
    """One stage on recorded episodes; online it is at home."""
    return fit_transitions(lambda e: SACDiscrete(config, e.spaces), config, episodes, run)


BASE = Config()
FIXED = replace(BASE, temperature=0.05, temperature_lr=0.0, discount=0.95)
PRESETS = {
    "discrete": BASE,
    "providers": replace(FIXED, n_step=3, activation="mish", batch_size=512, steps=1_000_000),
    "providers-small": replace(FIXED, lr=5e-4, n_step=3, width=128, activation="mish", batch_size=128, steps=15_000),
    "queues": replace(FIXED, temperature_lr=3e-4, hold=0.0, width=128, steps=10_000),
}
TARGETS: dict[str, str | float] = {}
SYSTEM = System(SOURCE, Config, PRESETS, TARGETS, SACDiscrete, train)
