"""Diffusion behaviour cloning: Diffusion-QL's denoising network and chain with no critic at all.

The control arm of every guided policy, on all of the data or on its best episodes (`best_share`, as in the "best 10
%" column of offline tables). What tells it apart: actions are drawn from the data's law, however many modes that has,
and no value is learned. One draw per act, from the averaged network.
"""

from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Any, Literal

from jaxtyping import Float
from torch import Tensor, nn

from ornstein.data.episodes import Episodes
from ornstein.data.goal import joined
from ornstein.data.transitions import transitions
from ornstein.diffusion.denoiser import Denoiser, Eps, Index
from ornstein.diffusion.grid import uniform
from ornstein.diffusion.process import DiscreteVP
from ornstein.diffusion.sampler import Sampler, drawn_level
from ornstein.diffusion.solver import DDPM
from ornstein.fit import Run, fit
from ornstein.nets.mlp import ConditionalMLP
from ornstein.rl.action import ActionBox
from ornstein.source import Source
from ornstein.system import System
from ornstein.types import Adam, Average, Descend, Draw, Metrics, Noise, NoiseSpec, Phase, Spaces, Transitions

SOURCE = Source(
    title="Diffusion Policies as an Expressive Policy Class for Offline Reinforcement Learning",
    authors="Wang, Zhendong and Hunt, Jonathan J and Zhou, Mingyuan",
    year=2023,
    venue="International Conference on Learning Representations",
    arxiv="2208.06193",
    repository="https://github.com/Zhendong-Wang/Diffusion-Policies-for-Offline-RL",
)


@dataclass(frozen=True)
class Config:
    """Settings; the defaults are those of the cloning baseline in the paper's code."""

    best_share: float = 1.0  # share of the episodes, highest returns first, that is cloned
    lr: float = 3e-4
    schedule: Literal["constant", "cosine"] = "constant"
    clip: float = 5.0  # largest gradient norm; 0: none
    diffusion_steps: int = 5
    ema_rate: float = 0.005
    ema_every: int = 5
    ema_after: int = 1000  # updates before which the averaged network is a copy
    width: int = 256
    activation: str = "mish"
    batch_size: int = 256
    steps: int = 1_000_000


class DiffusionCloning(nn.Module):
    """The learner and the policy."""

    def __init__(self, config: Config, spaces: Spaces) -> None:
        super().__init__()
        self.config, self.spaces = config, spaces
        self.chain = chain = DiscreteVP(config.diffusion_steps, "vp")
        network = ConditionalMLP(spaces.act, spaces.obs + spaces.goal, width=config.width, activation=config.activation)
        self.actor = Denoiser(network, chain, Eps(), clock=Index(config.diffusion_steps), bound=1.0)
        self.actor_ema = deepcopy(self.actor).requires_grad_(False)
        self.sampler = Sampler(uniform(chain, config.diffusion_steps), DDPM())
        self.box = ActionBox(spaces)
        self.noise: NoiseSpec = self.sampler.needs((spaces.act,))

    def phases(self) -> tuple[Phase, ...]:
        """The network and its average."""
        c = self.config
        draws = {"t": Draw("uniform"), "eps": Draw("normal", (self.spaces.act,))}
        return (
            Descend("actor", self.actor, self.actor_loss, Adam(c.lr, clip=c.clip, schedule=c.schedule), draws),
            Average(self.actor_ema, self.actor, c.ema_rate, every=c.ema_every, after=c.ema_after, before="copy"),
        )

    def actor_loss(self, batch: Transitions, noise: Noise) -> tuple[Float[Tensor, ""], Metrics]:
        """The squared error of the predicted noise, all steps of the chain weighted alike."""
        action = self.box.to_unit(batch.action)
        error = self.actor.regression(action, drawn_level(self.chain, noise["t"], action), noise["eps"], batch.obs)
        return error.mean(), {}

    def start(self, n_envs: int) -> tuple[()]:
        """Nothing is remembered."""
        return ()

    def act(self, obs: Float[Tensor, " n obs"], carry: Any, noise: Noise) -> tuple[Float[Tensor, " n act"], Any]:
        """One draw of the averaged network's chain."""
        return self.box.to_env(self.sampler(self.actor_ema.given(obs), noise)), carry


def train(config: Config, episodes: Episodes, run: Run) -> list[nn.Module]:
    """One stage, on the best share of the episodes."""
    episodes = joined(episodes)
    keep = max(1, round(config.best_share * episodes.n_episodes))
    chosen = episodes if config.best_share >= 1 else episodes.select(episodes.returns.argsort(descending=True)[:keep])
    agents = run.build(lambda: DiffusionCloning(config, episodes.spaces))
    data, held_out = run.batches(chosen, transitions)
    fit(agents, data, steps=config.steps, batch_size=config.batch_size, run=run, validation=held_out)
    return agents


BASE = Config()
PRESETS = {
    "locomotion": BASE,
    "best-10-percent": replace(BASE, best_share=0.1),
    "fast": replace(BASE, activation="silu", steps=30_000),
    "bandit": replace(BASE, lr=1e-3, clip=0.0, diffusion_steps=20, width=128, ema_after=0, steps=3_000),
}
TARGETS: dict[str, str | float] = {}
SYSTEM = System(SOURCE, Config, PRESETS, TARGETS, DiffusionCloning, train)
