"""SAC: a Gaussian policy that maximises return and entropy, from its own experience.

The baseline of learning online. What tells it apart: the policy is one squashed Gaussian, improved through the critics
by the reparameterised sample; entropy enters targets and policy with a temperature that holds it to a level. Exploring
samples the policy; acting takes its mean.

Deviates: the log of the standard deviation lies in [-5, 2], not [-20, 2]. The temperature's loss is linear in its log,
as in most code, where the paper's is linear in the temperature itself.
"""

from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ornstein.actor import fit_transitions
from ornstein.data.episodes import Episodes
from ornstein.fit import Run
from ornstein.rl.action import ActionBox
from ornstein.rl.actor import SquashedGaussianActor
from ornstein.rl.average import frozen
from ornstein.rl.critic import Critics, regression
from ornstein.rl.target import td_target
from ornstein.rl.temperature import Temperature
from ornstein.source import Source
from ornstein.system import System
from ornstein.types import Adam, Average, Descend, Draw, Metrics, Noise, NoiseSpec, Phase, Spaces, Transitions

SOURCE = Source(
    title="Soft Actor-Critic Algorithms and Applications",
    authors="Haarnoja, Tuomas and Zhou, Aurick and Hartikainen, Kristian and Tucker, George and Ha, Sehoon "
    "and Tan, Jie and Kumar, Vikash and Zhu, Henry and Gupta, Abhishek and Abbeel, Pieter and Levine, Sergey",
    year=2018,
    venue="arXiv",
    arxiv="1812.05905",
    repository="https://github.com/rail-berkeley/softlearning",
)


@dataclass(frozen=True)
class Config:
    """Settings; the defaults are the paper's (its appendix D)."""

    lr: float = 3e-4  # of policy, critics and temperature
    schedule: Literal["constant", "cosine"] = "constant"
    discount: float = 0.99
    entropy: float = 1.0  # the policy's entropy is held to minus this times the number of actions
    temperature: float = 1.0  # the first one
    ema_rate: float = 0.005  # share of the new weights in the target critics
    width: int = 256
    depth: int = 2
    batch_size: int = 256
    steps: int = 1_000_000


class SAC(nn.Module):
    """The learner and the policy."""

    def __init__(self, config: Config, spaces: Spaces) -> None:
        super().__init__()
        self.config, self.spaces = config, spaces
        size, net = spaces.obs + spaces.goal, {"width": config.width, "depth": config.depth, "activation": "relu"}
        self.actor = SquashedGaussianActor(size, spaces.act, **net)
        self.critics = Critics(size, spaces.act, **net)
        self.critics_target = frozen(self.critics)
        self.temperature = Temperature(config.temperature)
        self.box = ActionBox(spaces)
        self.noise: NoiseSpec = {}
        self.explore_noise: NoiseSpec = {"action": Draw("normal", (spaces.act,))}

    def phases(self) -> tuple[Phase, ...]:
        """Critics, policy, temperature, target critics."""
        adam, draws = Adam(self.config.lr, schedule=self.config.schedule), self.explore_noise
        return (
            Descend("critic", self.critics, self.critic_loss, adam, draws),
            Descend("actor", self.actor, self.actor_loss, adam, draws),
            Descend("temperature", self.temperature, self.temperature_loss, adam, draws),
            Average(self.critics_target, self.critics, self.config.ema_rate),
        )

    def critic_loss(self, batch: Transitions, noise: Noise) -> tuple[Float[Tensor, ""], Metrics]:
        """Both critics' squared error against r + gamma (min Q'(s', a') - temperature log pi(a'))."""
        with torch.no_grad():
            action, log_prob = self.actor.sample(batch.next_obs, noise["action"])
            soft = self.critics_target(batch.next_obs, action).amin(0) - self.temperature() * log_prob
            target = td_target(batch.reward, batch.terminal, batch.discount, soft)
        return regression(self.critics, batch.obs, self.box.to_unit(batch.action), target)

    def actor_loss(self, batch: Transitions, noise: Noise) -> tuple[Float[Tensor, ""], Metrics]:
        """Temperature log pi(a) - min Q(s, a), a drawn by the policy."""
        action, log_prob = self.actor.sample(batch.obs, noise["action"])
        q = self.critics(batch.obs, action).amin(0)
        return (self.temperature() * log_prob - q).mean(), {"entropy": -log_prob.mean()}

    def temperature_loss(self, batch: Transitions, noise: Noise) -> tuple[Float[Tensor, ""], Metrics]:
        """- log temperature (log pi(a) + target entropy): the temperature rises while the entropy is too low."""
        with torch.no_grad():
            _, log_prob = self.actor.sample(batch.obs, noise["action"])
        excess = (log_prob - self.config.entropy * self.spaces.act).mean()
        return -self.temperature.log[0] * excess, {"temperature": self.temperature()}

    def start(self, n_envs: int) -> tuple[()]:
        """Nothing is remembered."""
        return ()

    def act(self, obs: Float[Tensor, " n obs"], carry: Any, noise: Noise) -> tuple[Float[Tensor, " n act"], Any]:
        """The policy's mean."""
        return self.box.to_env(self.actor(obs)), carry

    def explore(self, obs: Float[Tensor, " n obs"], carry: Any, noise: Noise) -> tuple[Float[Tensor, " n act"], Any]:
        """A draw of the policy."""
        return self.box.to_env(self.actor.sample(obs, noise["action"])[0]), carry


def train(config: Config, episodes: Episodes, run: Run) -> list[nn.Module]:
    """One stage on recorded episodes, where it over-estimates what it cannot try; online it is at home."""
    return fit_transitions(lambda e: SAC(config, e.spaces), config, episodes, run)


BASE = Config()
PRESETS = {"locomotion": BASE, "pendulum": replace(BASE, lr=1e-3, width=128, steps=10_000)}
TARGETS: dict[str, str | float] = {}
SYSTEM = System(SOURCE, Config, PRESETS, TARGETS, SAC, train)
