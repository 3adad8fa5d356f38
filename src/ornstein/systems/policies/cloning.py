"""Behaviour cloning by maximum likelihood: a Gaussian, or a mixture of Gaussians, of the data's actions.

The baseline under every policy, on all of the data or on its best episodes (`best_share`). What tells it apart: no
value is learned, and the law of the action is one that can be written down: a Gaussian merges what a mixture keeps
apart. Acting takes the mean, of the Gaussian or of one component drawn by its weight, as robot learning does; `sample`
draws from the law itself.
"""

from dataclasses import dataclass, replace
from typing import Any, Literal

from jaxtyping import Float
from torch import Tensor, nn

from ornstein.actor import best_episodes, fit_transitions
from ornstein.data.episodes import Episodes
from ornstein.data.normalize import Gaussian
from ornstein.fit import Run
from ornstein.rl.action import ActionBox
from ornstein.rl.actor import MixtureActor
from ornstein.source import Source
from ornstein.system import System
from ornstein.types import Adam, Descend, Draw, Metrics, Noise, NoiseSpec, Phase, Spaces, Transitions

SOURCE = Source(
    title="What Matters in Learning from Offline Human Demonstrations for Robot Manipulation",
    authors="Mandlekar, Ajay and Xu, Danfei and Wong, Josiah and Nasiriany, Soroush and Wang, Chen and Kulkarni, Rohun "
    "and Fei-Fei, Li and Savarese, Silvio and Zhu, Yuke and Martin-Martin, Roberto",
    year=2021,
    venue="Conference on Robot Learning",
    arxiv="2108.03298",
    repository="https://github.com/ARISE-Initiative/robomimic",
)


@dataclass(frozen=True)
class Config:
    """Settings."""

    components: int = 1  # of the mixture; 1 is a Gaussian
    sample: bool = False  # draw actions from the law, instead of the mean of a component
    best_share: float = 1.0  # share of the episodes, highest returns first, that is cloned
    lr: float = 3e-4
    schedule: Literal["constant", "cosine"] = "cosine"
    clip: float = 0.0  # largest gradient norm; 0: none
    standardize: bool = False  # observations to mean 0 and deviation 1 over the data
    width: int = 256
    depth: int = 2
    activation: str = "relu"
    batch_size: int = 256
    steps: int = 1_000_000


class Cloning(nn.Module):
    """The learner and the policy."""

    def __init__(self, config: Config, spaces: Spaces) -> None:
        super().__init__()
        self.config, self.spaces = config, spaces
        net = {"width": config.width, "depth": config.depth, "activation": config.activation}
        self.actor = MixtureActor(spaces.obs + spaces.goal, spaces.act, components=config.components, **net)
        self.inputs, self.box = Gaussian(spaces.obs + spaces.goal), ActionBox(spaces)
        self.noise: NoiseSpec = {"component": Draw("uniform", (config.components,))}
        if config.sample:
            self.noise = {**self.noise, "action": Draw("normal", (spaces.act,))}

    def phases(self) -> tuple[Phase, ...]:
        """The actor alone."""
        adam = Adam(self.config.lr, clip=self.config.clip, schedule=self.config.schedule)
        return (Descend("actor", self.actor, self.actor_loss, adam, {}),)

    def actor_loss(self, batch: Transitions, noise: Noise) -> tuple[Float[Tensor, ""], Metrics]:
        """The negative log-likelihood of the data's actions."""
        return -self.actor.log_prob(batch.obs, self.box.to_unit(batch.action)).mean(), {}

    def start(self, n_envs: int) -> tuple[()]:
        """Nothing is remembered."""
        return ()

    def act(self, obs: Float[Tensor, " n obs"], carry: Any, noise: Noise) -> tuple[Float[Tensor, " n act"], Any]:
        """A component's mean, or a draw of the law."""
        obs = self.inputs(obs)
        normal = noise["action"] if self.config.sample else obs.new_zeros(len(obs), self.spaces.act)
        return self.box.to_env(self.actor.sample(obs, noise["component"], normal)), carry


def train(config: Config, episodes: Episodes, run: Run) -> list[nn.Module]:
    """One stage, on the best share of the episodes."""
    chosen = best_episodes(episodes, config.best_share)
    return fit_transitions(lambda e: Cloning(config, e.spaces), config, chosen, run)


GAUSSIAN = Config()
MIXTURE = replace(GAUSSIAN, components=5)
CPU = replace(
    GAUSSIAN, standardize=True, lr=1e-3, clip=4.0, width=128, batch_size=128, steps=5_000
)  # tens of thousands of transitions
PRESETS = {
    "gaussian": GAUSSIAN,
    "mixture": MIXTURE,
    "best-10-percent": replace(GAUSSIAN, best_share=0.1),
    "replay-cpu": CPU,
    "replay-cpu-mixture": replace(CPU, components=5),
    "replay-cpu-best-10-percent": replace(CPU, best_share=0.1),
    "bandit": replace(MIXTURE, lr=1e-3, width=128, sample=True, steps=2_000),
}
TARGETS: dict[str, str | float] = {}
SYSTEM = System(SOURCE, Config, PRESETS, TARGETS, Cloning, train)
