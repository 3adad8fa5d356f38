"""IDQL: a diffusion clone of the data, and values of the data's own actions, which meet in the choice of an action.

What tells it apart: the actor is pure imitation, the critics never see a sampled action, and all improvement happens
when one of N samples is chosen: the best by the target critics, or one drawn by the weights of the policy that the
value loss implies. The actor is a residual network with LayerNorm and dropout, averaged at 0.001; its chain has five
steps, with the forward step's variance, and clips x itself after every step.

Two releases of the official code exist. As in that of April 2023, the paper's, the network is the one with Mish and 64
features, V has no LayerNorm, and no weight decays. From that of December are one batch of 512 for all, one actor step
per critic step and 3 M of both; in April it was to be two actor steps of 1,024 rows per critic step on 256 rows, and
1.5 M of the latter.
Deviates: but for the actor's first and last layer, first weights are torch's usual ones instead of Xavier's, or flax's
inside its blocks. D4RL's mazes are learned with the goal in the observation.
"""

from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ornstein.actor import DiffusionActor, fit_transitions
from ornstein.data.episodes import Episodes
from ornstein.data.normalize import Gaussian
from ornstein.data.reward import Transform
from ornstein.diffusion.constrain import clipped
from ornstein.diffusion.process import DiscreteVP
from ornstein.diffusion.sampler import drawn_level
from ornstein.diffusion.solver import DDPM
from ornstein.fit import Run
from ornstein.nets.mlp import LayerNormResidualMLP, dropped
from ornstein.rl.action import ActionBox
from ornstein.rl.average import frozen
from ornstein.rl.critic import Critics, StateValues, candidate_values
from ornstein.rl.implicit import Asymmetry, implicit_weight, in_sample_critic_loss, in_sample_value_loss
from ornstein.rl.select import best, draw_by_value
from ornstein.source import Source
from ornstein.system import System
from ornstein.types import Adam, Average, Descend, Draw, Metrics, Noise, NoiseSpec, Phase, Spaces, Transitions

SOURCE = Source(
    title="IDQL: Implicit Q-Learning as an Actor-Critic Method with Diffusion Policies",
    authors="Hansen-Estruch, Philippe and Kostrikov, Ilya and Janner, Michael and Kuba, Jakub Grudzien and "
    "Levine, Sergey",
    year=2023,
    venue="arXiv preprint",
    arxiv="2304.10573",
    repository="https://github.com/philippe-eecs/IDQL",
)


@dataclass(frozen=True)
class Config:
    """Settings; the defaults are those for locomotion, lengths and batch those of the later release."""

    value_loss: Asymmetry = "expectile"
    level: float = 0.7  # of the value loss: the expectile, the quantile, or the exponent's factor; 0.9 for AntMaze
    candidates: int = 64  # actions among which acting chooses
    choice: Literal["best", "implicit"] = "best"  # of the target critics, or drawn by the implied policy's weights
    reward: Transform = "locomotion-iql"
    train_actor: bool = True  # off: the critics alone, as in fine-tuning
    lr: float = 3e-4  # of all networks
    schedule: Literal["constant", "cosine"] = "cosine"  # of the actor's rate
    value_schedule: Literal["constant", "cosine"] = "constant"  # of the rates of V and Q
    diffusion_steps: int = 5
    discount: float = 0.99
    n_step: int = 1
    ema_rate: float = 0.005  # share of the new weights in the target critics
    actor_ema_rate: float = 0.001
    dropout: float = 0.1
    standardize: bool = False  # observations to mean 0 and deviation 1 over the data
    width: int = 256
    blocks: int = 3
    activation: str = "mish"  # of the actor
    batch_size: int = 512  # of actor and critics; 1,024 and 256 in the first release
    steps: int = 3_000_000  # of both; 1.5 M of the critics in the first release


class IDQL(nn.Module):
    """The learner and the policy."""

    def __init__(self, config: Config, spaces: Spaces) -> None:
        super().__init__()
        self.config, self.spaces, c = config, spaces, config
        size = spaces.obs + spaces.goal
        network = LayerNormResidualMLP(spaces.act, size, width=c.width, blocks=c.blocks, activation=c.activation)
        self.actor = DiffusionActor(
            network, DiscreteVP(c.diffusion_steps, "vp"), spaces.act,
            solver=DDPM("large"), bound=None, constrain=clipped(-1.0, 1.0),
        )  # fmt: skip
        self.actor_ema = frozen(self.actor)
        self.critics = Critics(size, spaces.act, width=c.width, depth=2, activation="relu")
        self.critics_target = frozen(self.critics)
        self.values = StateValues(size, width=c.width)
        self.inputs, self.box = Gaussian(size), ActionBox(spaces)
        choice: NoiseSpec = {"choice": Draw("uniform", (c.candidates,))} if c.choice == "implicit" else {}
        self.noise = {**self.actor.needs(c.candidates), **choice}

    def phases(self) -> tuple[Phase, ...]:
        """Actor, V, Q and the averages, in the official order; all on one batch, as in the later release."""
        c = self.config
        value = Adam(c.lr, schedule=c.value_schedule)
        drops = {"drop": Draw("uniform", (c.blocks, c.width))} if c.dropout else {}
        actor = (
            Descend(
                "actor", self.actor, self.actor_loss, Adam(c.lr, schedule=c.schedule), {**self.actor.draws, **drops}
            ),
            Average(self.actor_ema.denoiser, self.actor.denoiser, c.actor_ema_rate),
        )
        return (
            *(actor if c.train_actor else ()),
            Descend("value", self.values, self.value_loss, value, {}),
            Descend("critic", self.critics, self.critic_loss, value, {}),
            Average(self.critics_target, self.critics, c.ema_rate),
        )

    def actor_loss(self, batch: Transitions, noise: Noise) -> tuple[Float[Tensor, ""], Metrics]:
        """The squared error of the predicted noise, summed over the action's entries, with dropout while training."""
        action, actor = self.box.to_unit(batch.action), self.actor
        if not (self.training and self.config.dropout):
            return actor.cloning(batch.obs, action, noise).sum(1).mean(), {}
        cond, level = (
            dropped(batch.obs, noise["drop"], self.config.dropout),
            drawn_level(actor.process, noise["t"], action),
        )
        return actor.denoiser.regression(action, level, noise["eps"], cond).sum(1).mean(), {}

    def value_loss(self, batch: Transitions, noise: Noise) -> tuple[Float[Tensor, ""], Metrics]:
        """V against the smaller target critic at the data's actions (eq. 2 of the paper)."""
        c, batch = self.config, batch._replace(action=self.box.to_unit(batch.action))
        return in_sample_value_loss(self.values, self.critics_target, batch, level=c.level, kind=c.value_loss)

    def critic_loss(self, batch: Transitions, noise: Noise) -> tuple[Float[Tensor, ""], Metrics]:
        """Both critics against r + gamma V(s'), with the V just updated (eq. 3 of the paper)."""
        batch = batch._replace(action=self.box.to_unit(batch.action))
        return in_sample_critic_loss(self.critics, self.values, batch)

    def start(self, n_envs: int) -> tuple[()]:
        """Nothing is remembered."""
        return ()

    def act(self, obs: Float[Tensor, " n obs"], carry: Any, noise: Noise) -> tuple[Float[Tensor, " n act"], Any]:
        """The averaged actor's best candidate, or one drawn by the implied weights (theorem 4.1 of the paper)."""
        obs = self.inputs(obs)
        action = self.actor_ema.candidates(obs, noise)
        q = candidate_values(self.critics_target, obs, action).amin(0)
        if self.config.choice == "best":
            return self.box.to_env(best(action, q)), carry
        c, advantage = self.config, q - self.values(obs)[0].unsqueeze(1)
        weight = implicit_weight(advantage, c.value_loss, level=c.level)
        return self.box.to_env(draw_by_value(action, torch.log(weight), noise["choice"])), carry


def train(config: Config, episodes: Episodes, run: Run) -> list[nn.Module]:
    """One stage, on transformed rewards: both halves side by side, neither knowing of the other."""
    return fit_transitions(lambda e: IDQL(config, e.spaces), config, episodes, run)


BASE = Config()
PRESETS = {
    "locomotion": BASE,
    "antmaze": replace(BASE, level=0.9, reward="antmaze-iql"),
    "replay-cpu": replace(  # tens of thousands of transitions, minutes of one core
        BASE, standardize=True,
        candidates=32,
        dropout=0.0,
        activation="silu",
        blocks=2,
        lr=1e-3,
        value_schedule="cosine",
        n_step=5,
        ema_rate=0.01,
        actor_ema_rate=0.01,
        width=128,
        batch_size=128,
        steps=5_000,
    ),
    "bandit": replace(
        BASE, candidates=32, reward="none", lr=1e-3, diffusion_steps=20, actor_ema_rate=0.01, dropout=0.0, width=128,
        blocks=2, batch_size=256, steps=4_000,
    ),
}  # fmt: skip
TARGETS: dict[str, str | float] = {
    "halfcheetah-medium": 51.0, "hopper-medium": 65.4, "walker2d-medium": 82.5,
    "halfcheetah-medium-replay": 45.9, "hopper-medium-replay": 92.1, "walker2d-medium-replay": 85.1,
    "halfcheetah-medium-expert": 95.9, "hopper-medium-expert": 108.6, "walker2d-medium-expert": 112.7,
    "antmaze-umaze": 94.0, "antmaze-umaze-diverse": 80.2, "antmaze-medium-play": 84.5,
    "antmaze-medium-diverse": 84.8, "antmaze-large-play": 63.5, "antmaze-large-diverse": 67.9,
}  # fmt: skip
SYSTEM = System(SOURCE, Config, PRESETS, TARGETS, IDQL, train)
