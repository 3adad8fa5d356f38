"""Diffusion behaviour cloning: Diffusion-QL's denoising network and chain with no critic at all.

With `path` "flow", the velocity of straight paths is learned instead, and Euler's method draws.
The control arm of every guided policy, on all of the data or on its best episodes (`best_share`, as in the "best 10
%" column of offline tables). What tells it apart: actions are drawn from the data's law, however many modes that has,
and no value is learned.

Deviates from the cloning baseline of the paper's code: an averaged network acts, by one draw, gradients are clipped,
and there are half the steps.
"""

from dataclasses import dataclass, replace
from typing import Any, Literal

from jaxtyping import Float
from torch import Tensor, nn

from ornstein.actor import DiffusionActor, best_episodes, fit_transitions
from ornstein.data.episodes import Episodes
from ornstein.data.normalize import Gaussian
from ornstein.diffusion.denoiser import Continuous, Velocity
from ornstein.diffusion.grid import uniform
from ornstein.diffusion.process import DiscreteVP, Flow
from ornstein.diffusion.solver import Euler
from ornstein.fit import Run
from ornstein.nets.mlp import ConditionalMLP
from ornstein.rl.action import ActionBox
from ornstein.rl.average import frozen
from ornstein.source import Source
from ornstein.system import System
from ornstein.types import Adam, Average, Descend, Metrics, Noise, Phase, Spaces, Transitions

SOURCE = Source(
    title="Diffusion Policies as an Expressive Policy Class for Offline Reinforcement Learning",
    authors="Wang, Zhendong and Hunt, Jonathan J and Zhou, Mingyuan",
    arxiv="2208.06193",
    year=2023,
    venue="International Conference on Learning Representations",
    repository="https://github.com/Zhendong-Wang/Diffusion-Policies-for-Offline-RL",
)


@dataclass(frozen=True)
class Config:
    """Settings; rates and sizes are those of the cloning baseline in the paper's code."""

    best_share: float = 1.0  # share of the episodes, highest returns first, that is cloned
    lr: float = 3e-4
    schedule: Literal["constant", "cosine"] = "constant"
    clip: float = 5.0  # largest gradient norm; 0: none
    path: Literal["vp", "flow"] = "vp"  # Diffusion-QL's chain, or a flow along straight paths
    diffusion_steps: int = 5  # of the chain, or of Euler's method
    ema_rate: float = 0.005
    ema_every: int = 5
    ema_after: int = 1000  # updates before which the averaged network is a copy
    standardize: bool = False  # observations to mean 0 and deviation 1 over the data
    width: int = 256
    activation: str = "mish"
    batch_size: int = 256
    steps: int = 1_000_000


class DiffusionCloning(nn.Module):
    """The learner and the policy."""

    def __init__(self, config: Config, spaces: Spaces) -> None:
        super().__init__()
        self.config, self.spaces = config, spaces
        network = ConditionalMLP(spaces.act, spaces.obs + spaces.goal, width=config.width, activation=config.activation)
        self.actor = (diffusion if config.path == "vp" else flow)(network, config.diffusion_steps, spaces.act)
        self.actor_ema = frozen(self.actor)
        self.inputs, self.box = Gaussian(spaces.obs + spaces.goal), ActionBox(spaces)
        self.noise = self.actor.needs()

    def phases(self) -> tuple[Phase, ...]:
        """The network and its average."""
        c, actor = self.config, self.actor
        average = {"every": c.ema_every, "after": c.ema_after}
        return (
            Descend("actor", actor, self.actor_loss, Adam(c.lr, clip=c.clip, schedule=c.schedule), actor.draws),
            Average(self.actor_ema.denoiser, actor.denoiser, c.ema_rate, before="copy", **average),
        )

    def actor_loss(self, batch: Transitions, noise: Noise) -> tuple[Float[Tensor, ""], Metrics]:
        """The squared error of the predicted noise, all steps of the chain weighted alike."""
        return self.actor.cloning(batch.obs, self.box.to_unit(batch.action), noise).mean(), {}

    def start(self, n_envs: int) -> tuple[()]:
        """Nothing is remembered."""
        return ()

    def act(self, obs: Float[Tensor, " n obs"], carry: Any, noise: Noise) -> tuple[Float[Tensor, " n act"], Any]:
        """One draw of the averaged network's chain."""
        obs = self.inputs(obs)
        return self.box.to_env(self.actor_ema(obs, noise)), carry


def diffusion(network: nn.Module, steps: int, act: int) -> DiffusionActor:
    """Diffusion-QL's actor: the noise is predicted, ancestral steps."""
    return DiffusionActor(network, DiscreteVP(steps, "vp"), act)


def flow(network: nn.Module, steps: int, act: int) -> DiffusionActor:
    """The velocity is predicted, Euler steps."""
    path = {"grid": uniform(Flow(), steps), "solver": Euler(), "predict": Velocity(), "clock": Continuous(10.0)}
    return DiffusionActor(network, Flow(), act, bound=None, **path)


def train(config: Config, episodes: Episodes, run: Run) -> list[nn.Module]:
    """One stage, on the best share of the episodes."""
    chosen = best_episodes(episodes, config.best_share)
    return fit_transitions(lambda e: DiffusionCloning(config, e.spaces), config, chosen, run)


BASE = Config()
CPU = replace(  # tens of thousands of transitions, minutes of one core
    BASE,
    standardize=True,
    activation="silu",
    clip=4.0,
    lr=1e-3,
    schedule="cosine",
    ema_rate=0.01,
    width=128,
    batch_size=128,
    steps=5_000,
)
PRESETS = {
    "locomotion": BASE,
    "best-10-percent": replace(BASE, best_share=0.1),
    "flow": replace(BASE, path="flow", diffusion_steps=10),
    "fast": replace(BASE, activation="silu", steps=30_000),
    "replay-cpu": CPU,
    "replay-cpu-best-10-percent": replace(CPU, best_share=0.1),
    "bandit": replace(BASE, lr=1e-3, clip=0.0, diffusion_steps=20, width=128, ema_after=0, steps=3_000),
}
TARGETS: dict[str, str | float] = {}
SYSTEM = System(SOURCE, Config, PRESETS, TARGETS, DiffusionCloning, train)
