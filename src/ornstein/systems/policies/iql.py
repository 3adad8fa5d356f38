"""IQL: values of the data's own actions, and a Gaussian policy cloned from the better ones among them.

The baseline of in-sample learning. What tells it apart: V is an expectile of Q over the data's actions and Q is
regressed on V, so that no action outside of the data is ever valued; the policy is a regression on the data's actions,
weighted by exp(temperature (Q - V)), and no gradient of Q reaches it; its std does not depend on the observation.

Deviates: no dropout (the official code has it for Adroit and the kitchen only), torch's usual first weights instead of
orthogonal ones, and D4RL's mazes are learned with the goal in the observation.
"""

from dataclasses import dataclass, replace
from typing import Any, Literal

from jaxtyping import Float
from torch import Tensor, nn

from ornstein.actor import fit_transitions
from ornstein.data.episodes import Episodes
from ornstein.data.normalize import Gaussian
from ornstein.data.reward import Transform
from ornstein.fit import Run
from ornstein.rl.action import ActionBox
from ornstein.rl.actor import GaussianActor
from ornstein.rl.average import frozen
from ornstein.rl.critic import Critics, StateValues
from ornstein.rl.implicit import advantage, in_sample_critic_loss, in_sample_value_loss
from ornstein.rl.weight import exponential_weight
from ornstein.source import Source
from ornstein.system import System
from ornstein.types import Adam, Average, Descend, Metrics, Noise, NoiseSpec, Phase, Spaces, Transitions

SOURCE = Source(
    title="Offline Reinforcement Learning with Implicit Q-Learning",
    authors="Kostrikov, Ilya and Nair, Ashvin and Levine, Sergey",
    year=2022,
    venue="International Conference on Learning Representations",
    arxiv="2110.06169",
    repository="https://github.com/ikostrikov/implicit_q_learning",
)


@dataclass(frozen=True)
class Config:
    """Settings; the defaults are the paper's for locomotion (its appendix B)."""

    expectile: float = 0.7  # 0.9 for AntMaze
    temperature: float = 3.0  # inverse: 0 clones all actions alike; 10 for AntMaze, 0.5 for Adroit and the kitchen
    largest_weight: float = 100.0
    reward: Transform = "locomotion-iql"
    lr: float = 3e-4
    schedule: Literal["constant", "cosine"] = "cosine"  # of the policy's rate
    value_schedule: Literal["constant", "cosine"] = "constant"  # of the rates of V and Q
    discount: float = 0.99
    n_step: int = 1
    ema_rate: float = 0.005  # share of the new weights in the target critics
    standardize: bool = False  # observations to mean 0 and deviation 1 over the data
    width: int = 256
    depth: int = 2
    batch_size: int = 256
    steps: int = 1_000_000


class IQL(nn.Module):
    """The learner and the policy."""

    def __init__(self, config: Config, spaces: Spaces) -> None:
        super().__init__()
        self.config, self.spaces = config, spaces
        size, c = spaces.obs + spaces.goal, config
        self.actor = GaussianActor(size, spaces.act, width=c.width, depth=c.depth)
        self.critics = Critics(size, spaces.act, width=c.width, depth=c.depth, activation="relu")
        self.critics_target = frozen(self.critics)
        self.values = StateValues(size, width=c.width, depth=c.depth)
        self.inputs, self.box = Gaussian(size), ActionBox(spaces)
        self.noise: NoiseSpec = {}

    def phases(self) -> tuple[Phase, ...]:
        """V, policy, Q, target critics: the official order."""
        c = self.config
        policy, value = Adam(c.lr, schedule=c.schedule), Adam(c.lr, schedule=c.value_schedule)
        return (
            Descend("value", self.values, self.value_loss, value, {}),
            Descend("actor", self.actor, self.actor_loss, policy, {}),
            Descend("critic", self.critics, self.critic_loss, value, {}),
            Average(self.critics_target, self.critics, c.ema_rate),
        )

    def value_loss(self, batch: Transitions, noise: Noise) -> tuple[Float[Tensor, ""], Metrics]:
        """The expectile loss of V against the target critics at the data's actions (eq. 5 of the paper)."""
        return in_sample_value_loss(self.values, self.critics_target, self.scaled(batch), level=self.config.expectile)

    def actor_loss(self, batch: Transitions, noise: Noise) -> tuple[Float[Tensor, ""], Metrics]:
        """- mean exp(temperature (Q - V)) log pi(a | s), with the V just updated (eq. 7 of the paper)."""
        batch, c = self.scaled(batch), self.config
        gain = advantage(self.values, self.critics_target, batch)
        weight = exponential_weight(gain, temperature=c.temperature, largest=c.largest_weight)
        return -(weight * self.actor.log_prob(batch.obs, batch.action)).mean(), {"weight": weight.mean()}

    def critic_loss(self, batch: Transitions, noise: Noise) -> tuple[Float[Tensor, ""], Metrics]:
        """Both critics' squared error against r + gamma V(s') (eq. 6 of the paper)."""
        return in_sample_critic_loss(self.critics, self.values, self.scaled(batch))

    def scaled(self, batch: Transitions) -> Transitions:
        """The batch with its actions in [-1, 1]."""
        return batch._replace(action=self.box.to_unit(batch.action))

    def start(self, n_envs: int) -> tuple[()]:
        """Nothing is remembered."""
        return ()

    def act(self, obs: Float[Tensor, " n obs"], carry: Any, noise: Noise) -> tuple[Float[Tensor, " n act"], Any]:
        """The policy's mean."""
        obs = self.inputs(obs)
        return self.box.to_env(self.actor(obs)), carry


def train(config: Config, episodes: Episodes, run: Run) -> list[nn.Module]:
    """One stage, on transformed rewards, to whose scale the temperature refers."""
    return fit_transitions(lambda e: IQL(config, e.spaces), config, episodes, run)


BASE = Config()
PRESETS = {
    "locomotion": BASE,
    "antmaze": replace(BASE, expectile=0.9, temperature=10.0, reward="antmaze-iql"),
    "adroit": replace(BASE, temperature=0.5, reward="none"),
    "kitchen": replace(BASE, temperature=0.5, reward="none"),
    "replay-cpu": replace(  # tens of thousands of transitions, minutes of one core
        BASE,
        standardize=True,
        lr=1e-3,
        value_schedule="cosine",
        n_step=5,
        ema_rate=0.01,
        width=128,
        batch_size=128,
        steps=5_000,
    ),
    "bandit": replace(BASE, reward="none", lr=1e-3, width=128, steps=3_000),
}
TARGETS: dict[str, str | float] = {
    "halfcheetah-medium": 47.4, "hopper-medium": 66.3, "walker2d-medium": 78.3,
    "halfcheetah-medium-replay": 44.2, "hopper-medium-replay": 94.7, "walker2d-medium-replay": 73.9,
    "halfcheetah-medium-expert": 86.7, "hopper-medium-expert": 91.5, "walker2d-medium-expert": 109.6,
    "antmaze-umaze": 87.5, "antmaze-umaze-diverse": 62.2, "antmaze-medium-play": 71.2,
    "antmaze-medium-diverse": 70.0, "antmaze-large-play": 39.6, "antmaze-large-diverse": 47.5,
    "kitchen-complete": 62.5, "kitchen-partial": 46.3, "kitchen-mixed": 51.0, "pen-human": 71.5, "pen-cloned": 37.3,
}  # fmt: skip
SYSTEM = System(SOURCE, Config, PRESETS, TARGETS, IQL, train)
