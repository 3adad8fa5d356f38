"""D2SAC: scores for a discrete choice, refined from noise by a short chain that only the critics train.

Nothing teaches the network to denoise: the chain is a deep stochastic network from noise and observation to scores,
whose softmax is the policy of a discrete soft actor-critic. What tells it apart: the gradient of that policy reaches
every one of the five calls and the noise they start from; every act draws the chain's noise anew, also where the most
probable choice is taken; entropy, at a fixed temperature, is in the policy's loss but not in the target; targets come
from averaged actor and critics after three steps.

Deviates: one update follows each step of the environment, where the official code takes turns of 1000, and the first
steps are random choices, there the untrained network's. Prioritised replay, an option there, is left out. The
crash-time accounting of the environment is `ornstein.envs.edge`'s.
"""

from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ornstein.actor import DiffusionActor, fit_transitions
from ornstein.data.episodes import Episodes
from ornstein.diffusion.process import DiscreteVP
from ornstein.fit import Run
from ornstein.nets.score import ScoreMLP
from ornstein.rl.action import ActionChoice
from ornstein.rl.average import frozen
from ornstein.rl.discrete import ChoiceCritics, choice_loss, choice_regression, expected
from ornstein.rl.select import perturbed
from ornstein.rl.target import td_target
from ornstein.source import Source
from ornstein.system import System
from ornstein.types import Adam, Average, Descend, Draw, Metrics, Noise, Phase, Spaces, Transitions

SOURCE = Source(
    title="Diffusion-based Reinforcement Learning for Edge-enabled AI-Generated Content Services",
    authors="Du, Hongyang and Li, Zonghang and Niyato, Dusit and Kang, Jiawen and Xiong, Zehui and Huang, Huawei "
    "and Mao, Shiwen",
    year=2024,
    venue="IEEE Transactions on Mobile Computing",
    arxiv="2303.13052",
    repository="https://github.com/Lizonghang/AGOD",
)


@dataclass(frozen=True)
class Config:
    """Settings; the defaults are those of the official code for 20 content providers."""

    temperature: float = 0.05  # weight of the entropy, fixed
    imitation: float = 0.0  # share of the denoising error on one-hot choices in the policy's loss
    diffusion_steps: int = 5  # of the chain
    lr: float = 1e-4  # of the actor
    critic_lr: float = 1e-3
    weight_decay: float = 1e-4
    schedule: Literal["constant", "cosine"] = "constant"  # of both rates
    discount: float = 0.95
    n_step: int = 3  # length of returns before the bootstrap
    ema_rate: float = 0.005  # share of the new weights in both averages
    width: int = 256
    activation: str = "mish"
    batch_size: int = 512
    steps: int = 1_000_000  # updates


class D2SAC(nn.Module):
    """The learner and the policy."""

    def __init__(self, config: Config, spaces: Spaces) -> None:
        super().__init__()
        self.config, self.spaces, self.choice = config, spaces, ActionChoice(spaces)
        size, net = spaces.obs + spaces.goal, {"width": config.width, "activation": config.activation}
        network = ScoreMLP(spaces.act, size, **net)
        self.actor = DiffusionActor(network, DiscreteVP(config.diffusion_steps, "vp"), spaces.act, bound=None)
        self.actor_target = frozen(self.actor)
        self.critics = ChoiceCritics(size, spaces.act, **net)
        self.critics_target = frozen(self.critics)
        self.noise = dict(self.actor.needs())
        self.explore_noise = self.noise | {"choice": Draw("uniform", (spaces.act,))}

    def phases(self) -> tuple[Phase, ...]:
        """Critics, actor, both averages."""
        c, chain = self.config, self.noise
        adam = {"weight_decay": c.weight_decay, "schedule": c.schedule}
        draws = chain | (dict(self.actor.draws) if c.imitation else {})
        return (
            Descend("critic", self.critics, self.critic_loss, Adam(c.critic_lr, **adam), chain),
            Descend("actor", self.actor, self.actor_loss, Adam(c.lr, **adam), draws),
            Average(self.actor_target, self.actor, c.ema_rate),
            Average(self.critics_target, self.critics, c.ema_rate),
        )

    def critic_loss(self, batch: Transitions, noise: Noise) -> tuple[Float[Tensor, ""], Metrics]:
        """Both critics' squared error against r + gamma sum_a pi'(a|s') min Q'(s', a), without an entropy."""
        with torch.no_grad():
            law = self.actor_target(batch.next_obs, noise).log_softmax(-1)
            value = expected(self.critics_target(batch.next_obs), law)
            target = td_target(batch.reward, batch.terminal, batch.discount, value)
        return choice_regression(self.critics, batch.obs, self.choice.to_unit(batch.action), target)

    def actor_loss(self, batch: Transitions, noise: Noise) -> tuple[Float[Tensor, ""], Metrics]:
        """- (temperature H(pi) + sum_a pi(a|s) min Q(s, a)) through all steps of the chain, mixed with imitation."""
        law, share = self.actor(batch.obs, noise).log_softmax(-1), self.config.imitation
        improve, metrics = choice_loss(self.critics, batch.obs, law, self.config.temperature)
        if share == 0:
            return improve, metrics
        imitate = self.imitation(batch, noise)
        return (1 - share) * improve + share * imitate, metrics | {"imitation": imitate}

    def imitation(self, batch: Transitions, noise: Noise) -> Float[Tensor, ""]:
        """The absolute error of the predicted noise on one-hot choices."""
        chosen = self.choice.to_unit(batch.action)
        x_t, level = self.actor.noised(chosen, noise)
        return (self.actor.denoiser.output(x_t, level, batch.obs) - noise["eps"]).abs().mean()

    def start(self, n_envs: int) -> tuple[()]:
        """Nothing is remembered."""
        return ()

    def act(self, obs: Float[Tensor, " n obs"], carry: Any, noise: Noise) -> tuple[Float[Tensor, " n act"], Any]:
        """The most probable choice under the chain's noise."""
        return self.choice.to_env(self.actor(obs, noise)), carry

    def explore(self, obs: Float[Tensor, " n obs"], carry: Any, noise: Noise) -> tuple[Float[Tensor, " n act"], Any]:
        """A draw of the policy."""
        law = self.actor(obs, noise).log_softmax(-1)
        return self.choice.to_env(perturbed(law, noise["choice"])), carry


def train(config: Config, episodes: Episodes, run: Run) -> list[nn.Module]:
    """One stage on recorded episodes; online it is at home."""
    return fit_transitions(lambda e: D2SAC(config, e.spaces), config, episodes, run)


BASE = Config()
PRESETS = {
    "providers": BASE,
    "providers-small": replace(BASE, lr=5e-4, width=128, batch_size=128, steps=15_000),  # five providers, minutes
    "queues": replace(BASE, n_step=1, width=128, activation="relu", batch_size=64, steps=10_000),
}
TARGETS: dict[str, str | float] = {
    "providers": "more than seven other learners and close to the prophet; the paper's numbers are not known to us"
}
SYSTEM = System(SOURCE, Config, PRESETS, TARGETS, D2SAC, train)
