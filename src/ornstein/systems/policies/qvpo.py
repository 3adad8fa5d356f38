"""QVPO: a diffusion policy that clones the best of its own samples, each by how much better it is than the others.

At every stored state the policy draws many actions; the one of highest Q is kept and becomes a target of the denoising
loss, weighted by max(Q - V, 0), V being the mean over the samples. What tells it apart: that weight, which makes the
denoising loss a bound of the policy's improvement without any gradient of Q; an entropy term, the same loss at uniform
actions, by which modes that were lost come back; and the best of several samples in exploring, in targets and, of many
more, in acting.

Deviates: the entropy term is a mean over its uniform actions beside the mean over kept ones, as in the paper's
objective; the official code puts all eleven actions of a state into one mean, each uniform one with 0.02 times the
weight of the kept one, which is 0.2 here. `entropy` stays, where the official code lets it fall to a tenth over the
run. Inside, the time network is 64 wide, not 256. First weights are the library's, and Adam's epsilon is 1e-8. Online,
values go on beyond a time limit, at which the official code ends them.
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
from ornstein.nets.mlp import ConditionalMLP
from ornstein.rl.action import ActionBox
from ornstein.rl.average import frozen
from ornstein.rl.critic import Critics, candidate_values, regression
from ornstein.rl.select import best
from ornstein.rl.target import td_target
from ornstein.rl.weight import positive_weight
from ornstein.source import Source
from ornstein.system import System
from ornstein.types import Adam, Average, Descend, Draw, Metrics, Noise, NoiseSpec, Phase, Spaces, Transitions

SOURCE = Source(
    title="Diffusion-based Reinforcement Learning via Q-weighted Variational Policy Optimization",
    authors="Ding, Shutong and Hu, Ke and Zhang, Zhenhao and Ren, Kan and Zhang, Weinan and Yu, Jingyi "
    "and Wang, Jingya and Shi, Ye",
    year=2024,
    venue="Advances in Neural Information Processing Systems",
    arxiv="2405.16173",
    repository="https://github.com/wadx2019/qvpo",
)


@dataclass(frozen=True)
class Config:
    """Settings; the defaults are those of the official code."""

    samples: int = 64  # of the policy at every state, of which the best is cloned
    uniform: int = 10  # actions of the entropy term at every state
    entropy: float = 0.2  # of that term, beside 1: 0.02 for each of ten in the official code, where it falls to a tenth
    explored: int = 4  # samples of which exploring and targets take the best
    candidates: int = 32  # samples of which acting takes the best
    weighted: bool = True  # off: the kept actions count alike, the control arm
    diffusion_steps: int = 20
    noise_schedule: Literal["cosine", "vp"] = "cosine"
    clip: float = 2.0  # largest gradient norm; 0: none
    lr: float = 1e-4  # of the actor
    critic_lr: float = 3e-4
    discount: float = 0.99
    n_step: int = 1
    ema_rate: float = 0.005  # share of the new weights in both averages
    width: int = 256
    time: int = 32  # width of the time features
    activation: str = "mish"
    batch_size: int = 256
    steps: int = 1_000_000


class QVPO(nn.Module):
    """The learner and the policy."""

    def __init__(self, config: Config, spaces: Spaces) -> None:
        super().__init__()
        self.config, self.spaces, c, size = config, spaces, config, spaces.obs + spaces.goal
        network = ConditionalMLP(spaces.act, size, width=c.width, activation=c.activation, time=c.time)
        self.actor = DiffusionActor(network, DiscreteVP(c.diffusion_steps, c.noise_schedule), spaces.act)
        self.actor_ema = frozen(self.actor)
        self.critics = Critics(size, spaces.act, width=c.width, activation=c.activation)
        self.critics_target = frozen(self.critics)
        self.box = ActionBox(spaces)
        self.noise = dict(self.actor.needs(c.candidates))
        self.explore_noise = dict(self.actor.needs(c.explored))

    def phases(self) -> tuple[Phase, ...]:
        """Critics, actor, both averages."""
        c, rows, act = self.config, 1 + self.config.uniform, self.spaces.act
        draws: NoiseSpec = {
            "t": Draw("uniform", (rows,)), "eps": Draw("normal", (rows, act)),
            "uniform": Draw("uniform", (c.uniform, act)), **self.actor.needs(c.samples),
        }  # fmt: skip
        return (
            Descend("critic", self.critics, self.critic_loss, Adam(c.critic_lr, clip=c.clip), self.explore_noise),
            Descend("actor", self.actor, self.actor_loss, Adam(c.lr, clip=c.clip), draws),
            Average(self.actor_ema.denoiser, self.actor.denoiser, c.ema_rate),
            Average(self.critics_target, self.critics, c.ema_rate),
        )

    def critic_loss(self, batch: Transitions, noise: Noise) -> tuple[Float[Tensor, ""], Metrics]:
        """Both critics' squared error against r + gamma max_k min_i Q_i'(s', a_k), a_k from the averaged actor."""
        with torch.no_grad():
            action = self.actor_ema.candidates(batch.next_obs, noise)
            value = candidate_values(self.critics_target, batch.next_obs, action).amin(0).amax(1)
            target = td_target(batch.reward, batch.terminal, batch.discount, value)
        return regression(self.critics, batch.obs, self.box.to_unit(batch.action), target)

    def actor_loss(self, batch: Transitions, noise: Noise) -> tuple[Float[Tensor, ""], Metrics]:
        """The weighted denoising loss at kept samples, and `entropy` times that at uniform actions (eq. 9 and 13)."""
        c, rows = self.config, 1 + self.config.uniform
        kept, weight = self.kept(batch.obs, noise)
        action = torch.cat((kept.unsqueeze(1), 2 * noise["uniform"] - 1), 1).flatten(0, 1)
        drawn = {"t": noise["t"].flatten(), "eps": noise["eps"].flatten(0, 1)}
        error = self.actor.cloning(batch.obs.repeat_interleave(rows, 0), action, drawn).mean(1).unflatten(0, (-1, rows))
        spread = error[:, 1:].sum(1) / max(1, c.uniform)
        return (weight * (error[:, 0] + c.entropy * spread)).mean(), {"weight": weight.mean()}

    @torch.no_grad()
    def kept(self, obs: Float[Tensor, " b obs"], noise: Noise) -> tuple[Float[Tensor, " b act"], Float[Tensor, " b"]]:
        """The best of the policy's samples by the smaller critic, and its weight."""
        action = self.actor.candidates(obs, noise)
        q = candidate_values(self.critics, obs, action).amin(0)
        weight = positive_weight(q).amax(1)
        return best(action, q), weight if self.config.weighted else torch.ones_like(weight)

    def best_of(self, obs: Float[Tensor, " n obs"], noise: Noise) -> Float[Tensor, " n act"]:
        """The best of as many samples as the noise holds, by the smaller critic."""
        action = self.actor.candidates(obs, noise)
        return self.box.to_env(best(action, candidate_values(self.critics, obs, action).amin(0)))

    def start(self, n_envs: int) -> tuple[()]:
        """Nothing is remembered."""
        return ()

    def act(self, obs: Float[Tensor, " n obs"], carry: Any, noise: Noise) -> tuple[Float[Tensor, " n act"], Any]:
        """The best of `candidates` samples."""
        return self.best_of(obs, noise), carry

    def explore(self, obs: Float[Tensor, " n obs"], carry: Any, noise: Noise) -> tuple[Float[Tensor, " n act"], Any]:
        """The best of `explored` samples."""
        return self.best_of(obs, noise), carry


def train(config: Config, episodes: Episodes, run: Run) -> list[nn.Module]:
    """One stage on recorded episodes, where nothing holds it to them; online it is at home."""
    return fit_transitions(lambda e: QVPO(config, e.spaces), config, episodes, run)


BASE = Config()
SMALL = replace(
    BASE, samples=16, uniform=4, entropy=0.02, clip=0.0, time=16, candidates=16, diffusion_steps=8, lr=1e-3,
    critic_lr=1e-3, activation="silu", width=128, batch_size=128, steps=10_000,
)  # fmt: skip
PRESETS = {
    "locomotion": BASE,
    "online-cpu": SMALL,
    "doors": replace(SMALL, samples=32, candidates=32, entropy=0.1, width=64, batch_size=64),
}
TARGETS: dict[str, str | float] = {}
SYSTEM = System(SOURCE, Config, PRESETS, TARGETS, QVPO, train)
