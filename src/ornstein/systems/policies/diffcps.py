"""DiffCPS: a diffusion policy that climbs the critic under a bound on its own denoising loss.

Constrained policy search without a density: the cross-entropy of the data under the policy is bounded by the
denoising loss, so the problem becomes max E Q subject to L_c <= kappa, solved by primal and dual steps. What tells it
apart: the multiplier stands before the denoising loss, not before the Q term, and is learned against kappa, in units
of the error of the predicted noise; actor and multiplier move at every second or fourth critic update. All else is
Diffusion-QL: with the multiplier held at 1 / eta its gradient is Diffusion-QL's, divided by eta.

A kappa below what cloning alone reaches cannot be met: the multiplier then rises until its largest value. The floor
depends on the chain and the data (on the toy of `recipes/diffcps.py` it is measured first).

Deviates: at an end of its range the stored multiplier stops; the official code clamps it in use only, so that it
falls on unseen and needs as many steps to come back. The multiplier's step measures the loss on draws of its own,
after the actor's step, not on those of that step. Actions are scaled to [-1, 1] by the environment's box. The
learning rate is constant: the official decay is advanced once per 50 epochs. D4RL's mazes are learned with the goal in
the observation. Where paper and code differ, this is the code: targets by the averaged actor (the paper: by the current
one), Q scaled by the other online critic (a target critic). The paper's table picks the best evaluation by true return;
and its halfcheetah-medium is far above all others of its table.
"""

from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ornstein.actor import DiffusionActor, candidate_target, choice_noise, drawn_action, fit_transitions
from ornstein.data.episodes import Episodes
from ornstein.data.normalize import Gaussian
from ornstein.data.reward import Transform
from ornstein.diffusion import DiscreteVP
from ornstein.fit import Run
from ornstein.nets.mlp import ConditionalMLP
from ornstein.rl.action import ActionBox
from ornstein.rl.average import frozen
from ornstein.rl.critic import Critics, regression, scaled_value
from ornstein.rl.multiplier import Multiplier
from ornstein.source import Source
from ornstein.system import System
from ornstein.types import Adam, Average, Descend, Draw, Metrics, Noise, Phase, Spaces, Transitions

SOURCE = Source(
    title="DiffCPS: Diffusion Model based Constrained Policy Search for Offline Reinforcement Learning",
    authors="He, Longxiang and Zhang, Linrui and Tan, Junbo and Wang, Xueqian",
    year=2023,
    venue="arXiv preprint",
    arxiv="2310.05333",
    repository="https://github.com/felix-thu/DiffCPS",
)


@dataclass(frozen=True)
class Config:
    """Settings; the defaults are those of the paper's locomotion tasks."""

    kappa: float = 0.05  # largest denoising loss, the mean squared error of the predicted noise
    multiplier: float = 1.0  # of the denoising loss, at the start
    least_multiplier: float = 0.0
    largest_multiplier: float = 100.0
    multiplier_lr: float = 3e-5  # Adam's: about the change per actor step, whatever the violation
    policy_every: int = 2  # critic updates per step of actor and multiplier
    lr: float = 3e-4  # of the actor
    critic_lr: float = 3e-4
    schedule: Literal["constant", "cosine"] = "constant"  # of actor and critic
    clip: float = 5.0  # largest gradient norm; 0: none
    diffusion_steps: int = 5  # of the chain; more were worse (the paper's ablation)
    discount: float = 0.99
    n_step: int = 1
    backup_candidates: int = 1  # actions per next state in the target; 10 for most mazes
    candidates: int = 50  # among which acting draws
    ema_rate: float = 0.005
    ema_every: int = 5
    ema_after: int = 1000  # updates before which the averaged actor keeps its first weights
    reward: Transform = "none"  # how rewards are changed
    standardize: bool = False  # observations to mean 0 and deviation 1 over the data
    layer_norm: bool = False  # in the critics
    width: int = 256
    activation: str = "mish"
    batch_size: int = 256
    steps: int = 2_000_000  # critic updates


class DiffCPS(nn.Module):
    """The learner and the policy."""

    def __init__(self, config: Config, spaces: Spaces) -> None:
        super().__init__()
        self.config, self.spaces = config, spaces
        c, obs, net = config, spaces.obs + spaces.goal, {"width": config.width, "activation": config.activation}
        chain = DiscreteVP(c.diffusion_steps, "vp")
        self.actor = DiffusionActor(ConditionalMLP(spaces.act, obs, **net), chain, spaces.act)
        self.actor_ema = frozen(self.actor)
        self.critics = Critics(obs, spaces.act, layer_norm=config.layer_norm, **net)
        self.critics_target = frozen(self.critics)
        self.multiplier = Multiplier(c.multiplier, c.kappa, least=c.least_multiplier, largest=c.largest_multiplier)
        self.inputs, self.box = Gaussian(spaces.obs + spaces.goal), ActionBox(spaces)
        self.noise = choice_noise(self.actor, c.candidates)

    def phases(self) -> tuple[Phase, ...]:
        """The critics at every update, actor and multiplier at every `policy_every`-th, then the averages."""
        c, actor, price = self.config, self.actor, self.multiplier
        target = actor.needs(c.backup_candidates)
        draws = {**actor.draws, "coin": Draw("uniform", per="update"), **actor.needs()}
        step, dual = Adam(c.lr, clip=c.clip, schedule=c.schedule), Adam(c.multiplier_lr, clip=c.clip)
        return (
            Descend("critic", self.critics, self.critic_loss, replace(step, lr=c.critic_lr), target),
            Descend("actor", actor, self.actor_loss, step, draws, every=c.policy_every),
            Descend("multiplier", price, self.multiplier_loss, dual, actor.draws, every=c.policy_every),
            Average(self.actor_ema.denoiser, actor.denoiser, c.ema_rate, every=c.ema_every, after=c.ema_after),
            Average(self.critics_target, self.critics, c.ema_rate),
        )

    def critic_loss(self, batch: Transitions, noise: Noise) -> tuple[Float[Tensor, ""], Metrics]:
        """As in Diffusion-QL: r + gamma min_i max_k Q_i'(s', a_k), with a_k from the averaged actor."""
        target = candidate_target(self.critics_target, self.actor_ema, batch, noise)
        return regression(self.critics, batch.obs, self.box.to_unit(batch.action), target)

    def actor_loss(self, batch: Transitions, noise: Noise) -> tuple[Float[Tensor, ""], Metrics]:
        """The Lagrangian, multiplier L_c + L_q: L_c the denoising loss, L_q = - mean Q_i(s, a) / mean |Q_j(s, a)|."""
        cost = self.actor.cloning(batch.obs, self.box.to_unit(batch.action), noise).mean()
        improve = -scaled_value(self.critics(batch.obs, self.actor(batch.obs, noise)), noise["coin"])
        return self.multiplier() * cost + improve, {"cost": cost, "improve": improve}

    def multiplier_loss(self, batch: Transitions, noise: Noise) -> tuple[Float[Tensor, ""], Metrics]:
        """(kappa - L_c) multiplier, with nothing but the multiplier to learn."""
        with torch.no_grad():
            cost = self.actor.cloning(batch.obs, self.box.to_unit(batch.action), noise).mean()
        return self.multiplier.loss(cost), {"cost": cost, "value": self.multiplier()}

    def start(self, n_envs: int) -> tuple[()]:
        """Nothing is remembered."""
        return ()

    def act(self, obs: Float[Tensor, " n obs"], carry: Any, noise: Noise) -> tuple[Float[Tensor, " n act"], Any]:
        """As in Diffusion-QL: a candidate of the online actor, drawn by a softmax of the target critics' minimum."""
        obs = self.inputs(obs)
        return self.box.to_env(drawn_action(self.actor, self.critics_target, obs, noise)), carry


def train(config: Config, episodes: Episodes, run: Run) -> list[nn.Module]:
    """One stage: actor, critics and multiplier together."""
    return fit_transitions(lambda e: DiffCPS(config, e.spaces), config, episodes, run)


BASE = Config()
MAZE = replace(BASE, kappa=0.2, least_multiplier=0.3, backup_candidates=10, reward="antmaze-cql", steps=1_000_000)
PRESETS = {
    "locomotion": BASE,
    "replay-cpu": replace(  # tens of thousands of transitions; the dual rate is raised, for so short a run
        BASE, standardize=True, layer_norm=True,
        multiplier=10.0, multiplier_lr=1e-3, activation="silu", clip=4.0, lr=1e-3, critic_lr=1e-3,
        schedule="cosine", n_step=5, ema_rate=0.01, width=128, batch_size=128, steps=5_000,
    ),
    "halfcheetah-medium": replace(BASE, kappa=0.06, clip=9.0),
    "halfcheetah-medium-replay": replace(BASE, kappa=0.06, clip=2.0),
    "halfcheetah-medium-expert": replace(BASE, kappa=0.04, clip=7.0),
    "hopper-medium": replace(BASE, kappa=0.05, clip=9.0),
    "hopper-medium-replay": replace(BASE, kappa=0.03, clip=4.0),
    "hopper-medium-expert": replace(BASE, kappa=0.03, clip=5.0),
    "walker2d-medium": replace(BASE, kappa=0.03, clip=1.0),
    "walker2d-medium-replay": replace(BASE, kappa=0.03, clip=4.0),
    "walker2d-medium-expert": replace(BASE, kappa=0.04, clip=5.0),
    "antmaze-umaze": replace(MAZE, multiplier=3.0, clip=2.0, backup_candidates=1),
    "antmaze-umaze-diverse": replace(MAZE, multiplier=3.0, kappa=0.09, clip=3.0),
    "antmaze-medium-play": replace(MAZE, kappa=0.3, clip=2.0, lr=1e-3),
    "antmaze-medium-diverse": replace(MAZE, clip=1.0),
    "antmaze-large-play": replace(MAZE, multiplier=0.5, clip=10.0, policy_every=4),
    "antmaze-large-diverse": replace(MAZE, multiplier=0.5, clip=7.0, policy_every=4),
    "bandit": replace(
        BASE, kappa=0.3, multiplier_lr=3e-4, lr=1e-3, clip=0.0, width=128, ema_after=0, steps=4_000
    ),
}  # fmt: skip
TARGETS: dict[str, str | float] = {
    "halfcheetah-medium": "71.0 +- 0.5", "hopper-medium": "100.1 +- 3.5", "walker2d-medium": "90.9 +- 1.6",
    "halfcheetah-medium-replay": "50.5 +- 0.6", "hopper-medium-replay": "101.1 +- 0.2",
    "walker2d-medium-replay": "91.3 +- 0.7",
    "halfcheetah-medium-expert": "100.3 +- 4.1", "hopper-medium-expert": "112.1 +- 0.6",
    "walker2d-medium-expert": "113.1 +- 1.8",
    "antmaze-umaze": "97.4 +- 3.7", "antmaze-umaze-diverse": "87.4 +- 3.8", "antmaze-medium-play": "88.2 +- 2.2",
    "antmaze-medium-diverse": "87.8 +- 6.5", "antmaze-large-play": "65.6 +- 3.6",
    "antmaze-large-diverse": "63.6 +- 3.9",
}  # fmt: skip
SYSTEM = System(SOURCE, Config, PRESETS, TARGETS, DiffCPS, train)
