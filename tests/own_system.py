"""Behaviour cloning by least squares: the smallest system there can be, outside of the package as a user has it."""

from dataclasses import dataclass, replace
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from ornstein.data.episodes import Episodes
from ornstein.data.transitions import transitions
from ornstein.fit import Run, fit
from ornstein.source import Source
from ornstein.system import System
from ornstein.types import Adam, Descend, Draw, Metrics, Noise, NoiseSpec, Phase, Spaces, Transitions

SOURCE = Source(
    title="ALVINN: An Autonomous Land Vehicle in a Neural Network", authors="Pomerleau", year=1988, venue="NIPS"
)


@dataclass(frozen=True)
class Config:
    """Settings."""

    lr: float = 1e-2  # of Adam
    jitter: float = 0.0  # standard deviation of the noise on inputs
    batch_size: int = 16
    steps: int = 30


class Cloning(nn.Module):
    """The learner and the policy."""

    def __init__(self, config: Config, spaces: Spaces) -> None:
        super().__init__()
        self.config, self.spaces = config, spaces
        self.policy = nn.Linear(spaces.obs + spaces.goal, spaces.act)
        self.noise: NoiseSpec = {}

    def phases(self) -> tuple[Phase, ...]:
        """One step down the squared error."""
        draws = {"jitter": Draw("normal", (self.spaces.obs + self.spaces.goal,))}
        return (Descend("policy", self.policy, self.loss, Adam(self.config.lr), draws),)

    def loss(self, batch: Transitions, noise: Noise) -> tuple[Float[Tensor, ""], Metrics]:
        """Mean squared error of the action."""
        guess = self.policy(batch.obs + self.config.jitter * noise["jitter"])
        return (guess - batch.action).square().mean(), {}

    def start(self, n_envs: int) -> tuple[()]:
        """Nothing is remembered."""
        return ()

    def act(self, obs: Float[Tensor, " n obs"], carry: Any, noise: Noise) -> tuple[Float[Tensor, " n act"], Any]:
        """The cloned action."""
        return self.policy(obs).clamp(-1.0, 1.0), carry


def train(config: Config, episodes: Episodes, run: Run) -> list[nn.Module]:
    """One stage."""
    agents = run.build(lambda: Cloning(config, episodes.spaces))
    data, held_out = run.batches(episodes, transitions)
    fit(agents, data, steps=config.steps, batch_size=config.batch_size, run=run, validation=held_out)
    return agents


PRESETS = {"plain": Config(), "noisy": replace(Config(), jitter=0.1)}
TARGETS: dict[str, str | float] = {"plain": 12.5}
SYSTEM = System(SOURCE, Config, PRESETS, TARGETS, Cloning, train)
