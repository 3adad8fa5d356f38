"""CPQL: a consistency policy; one call takes noise to an action, in training, in targets and in acting.

The critic is only ever asked about clean actions, and its gradient goes through a single call. What tells it apart: the
consistency parameterisation, which is the identity at the lowest noise; a regulariser on the way from noise to the
data's action; the Q term normalised by the other critic's mean magnitude, roles by a coin; targets by the online actor.

Two regularisers carry the paper's name. "consistency" trains neighbouring levels to agree, so that one call draws from
the data's law. "reconstruction", which the paper argues for and its code optimises, pulls every level to the data's
action: its one-call answer is the conditional MEAN, so the released method is close to a deterministic actor.
Deviates: averages with "consistency" move at every update (`ema_every` 1), as training without a teacher needs. Online,
values go on beyond a time limit, at which the official code ends them. D4RL's mazes are learned with the goal in the
observation. The mode of the official code whose targets come from an expectile V ("CPIQL") is not here.
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
from ornstein.diffusion.consistency import Boundary, Renoise, adjacent, consistency_error
from ornstein.diffusion.denoiser import LogSigma
from ornstein.diffusion.grid import at, karras
from ornstein.diffusion.process import Karras, corrupt
from ornstein.diffusion.sampler import Sampler
from ornstein.fit import Run
from ornstein.nets.mlp import ConditionalMLP
from ornstein.rl.action import ActionBox
from ornstein.rl.average import frozen
from ornstein.rl.critic import Critics, regression, scaled_value
from ornstein.source import Source
from ornstein.system import System
from ornstein.types import Adam, Average, Descend, Draw, Metrics, Noise, Phase, Point, Spaces, Transitions

SOURCE = Source(
    title="Boosting Continuous Control with Consistency Policy",
    authors="Chen, Yuhui and Li, Haoran and Zhao, Dongbin",
    year=2024,
    venue="International Conference on Autonomous Agents and Multiagent Systems",
    arxiv="2310.06343",
    repository="https://github.com/cccedric/cpql",
)


@dataclass(frozen=True)
class Config:
    """Settings; the defaults are the offline ones of the official code."""

    regulariser: Literal["reconstruction", "consistency"] = "reconstruction"
    weight: Literal["karras", "uniform"] = "karras"  # of a level: 1 / sigma^2 + 1 / sigma_data^2, or 1
    clamp: bool = True  # clamp the denoised action inside the loss too
    entries: Literal["mean", "sum"] = "mean"  # of its squared error over the action's; "sum": the paper's norm
    regulariser_weight: float = 1.0  # 0.05 online
    eta: float = 1.0  # weight of the Q term
    scaled: bool = True  # divide Q by the other critic's mean magnitude; online the plain minimum is climbed
    levels: int = 40  # of training, by Karras' rule from 80 to 0.002
    sampling: tuple[float, ...] = (
        80.0,
    )  # noise levels of the calls of one sample; the official many: 80, 80, 2.24, .002
    clip: float = 5.0  # largest gradient norm; 0: none
    lr: float = 3e-4
    critic_lr: float = 3e-4
    schedule: Literal["constant", "cosine"] = "constant"
    discount: float = 0.99
    n_step: int = 1
    backup_candidates: int = 1  # actions per next state in the target; 10 for sparse tasks
    candidates: int = 50  # actions among which acting draws
    ema_rate: float = 0.005  # share of the new weights in both averages
    ema_every: int = 5
    ema_after: int = 1000
    layer_norm: bool = True  # in the critics; off online
    reward: Transform = "none"  # how rewards are changed
    standardize: bool = False  # observations to mean 0 and deviation 1 over the data
    width: int = 256
    activation: str = "mish"
    batch_size: int = 256
    steps: int = 2_000_000


class CPQL(nn.Module):
    """The learner and the policy."""

    def __init__(self, config: Config, spaces: Spaces) -> None:
        super().__init__()
        self.config, self.spaces, path = config, spaces, Karras()
        size, net = spaces.obs + spaces.goal, {"width": config.width, "activation": config.activation}
        calls = at(path, path.time(-torch.tensor(config.sampling).log()))
        self.actor = DiffusionActor(
            ConditionalMLP(spaces.act, size, **net), path, spaces.act, grid=calls, solver=Renoise(path.sigma_min),
            predict=Boundary(), clock=LogSigma(250.0), scale=config.sampling[0],
        )  # fmt: skip
        self.levels = Sampler(karras(path, config.levels))
        self.actor_ema = frozen(self.actor)
        self.critics = Critics(size, spaces.act, layer_norm=config.layer_norm, **net)
        self.critics_target = frozen(self.critics)
        self.inputs, self.box = Gaussian(size), ActionBox(spaces)
        self.noise = choice_noise(self.actor, config.candidates)

    def phases(self) -> tuple[Phase, ...]:
        """Critic, actor, both averages."""
        c, actor = self.config, self.actor
        adam = {"clip": c.clip, "schedule": c.schedule}
        draws = {**actor.draws, "coin": Draw("uniform", per="update"), **actor.needs()}
        ask = actor.needs(c.backup_candidates)
        return (
            Descend("critic", self.critics, self.critic_loss, Adam(c.critic_lr, **adam), ask),
            Descend("actor", actor, self.actor_loss, Adam(c.lr, **adam), draws),
            Average(self.actor_ema.denoiser, actor.denoiser, c.ema_rate, every=c.ema_every, after=c.ema_after),
            Average(self.critics_target, self.critics, c.ema_rate, every=c.ema_every, after=c.ema_after),
        )

    def critic_loss(self, batch: Transitions, noise: Noise) -> tuple[Float[Tensor, ""], Metrics]:
        """Both critics' squared error against r + gamma min_i max_k Q_i'(s', a_k), a_k from the online actor."""
        target = candidate_target(self.critics_target, self.actor, batch, noise)
        return regression(self.critics, batch.obs, self.box.to_unit(batch.action), target)

    def actor_loss(self, batch: Transitions, noise: Noise) -> tuple[Float[Tensor, ""], Metrics]:
        """The weighted regulariser - eta Q at one-call actions."""
        c = self.config
        keep = self.regulariser(batch.obs, self.box.to_unit(batch.action), noise)
        if c.eta == 0:
            return c.regulariser_weight * keep, {"regulariser": keep}
        q = self.critics(batch.obs, self.actor(batch.obs, noise))
        improve = -(scaled_value(q, noise["coin"]) if c.scaled else q.amin(0).mean())
        return c.regulariser_weight * keep + c.eta * improve, {"regulariser": keep, "improve": improve}

    def regulariser(
        self, obs: Float[Tensor, " b obs"], action: Float[Tensor, " b act"], noise: Noise
    ) -> Float[Tensor, ""]:
        """The mean over rows of the weighted squared error, whose entries are averaged or summed."""
        noisier, cleaner = adjacent(self.levels.grid, noise["t"], action)
        student = lambda x, level: self.answer(self.actor, x, level, obs)  # noqa: E731
        if self.config.regulariser == "consistency":
            target = lambda x, level: self.answer(self.actor_ema, x, level, obs)  # noqa: E731
            error = consistency_error(student, target, action, noise["eps"], levels=(noisier, cleaner))
        else:
            error = (student(corrupt(action, noisier, noise["eps"]), noisier) - action).square()
        if self.config.weight == "karras":
            error = error * (noisier.sigma**-2 + Boundary().sigma_data ** -2)
        return error.mean() if self.config.entries == "mean" else error.sum(-1).mean()

    def answer(self, actor: DiffusionActor, x: Tensor, level: Point, obs: Tensor) -> Tensor:
        """The action to which an actor takes x, clamped or not."""
        if self.config.clamp:
            return actor.denoiser(x, level, obs)
        return actor.denoiser.predict.x0(actor.denoiser.output(x, level, obs), x, level)

    def start(self, n_envs: int) -> tuple[()]:
        """Nothing is remembered."""
        return ()

    def act(self, obs: Float[Tensor, " n obs"], carry: Any, noise: Noise) -> tuple[Float[Tensor, " n act"], Any]:
        """One of the online actor's candidates, drawn by a softmax of the target critics' minimum."""
        obs = self.inputs(obs)
        return self.box.to_env(drawn_action(self.actor, self.critics_target, obs, noise)), carry


def train(config: Config, episodes: Episodes, run: Run) -> list[nn.Module]:
    """One stage: both networks together."""
    return fit_transitions(lambda e: CPQL(config, e.spaces), config, episodes, run)


BASE = Config()
MANY = (80.0, 80.0, 2.24, 0.002)  # the official levels 0, 20 and 40 after the first call
MAZE = replace(BASE, backup_candidates=10, sampling=MANY, reward="antmaze-cql", steps=1_000_000)
ONLINE = replace(BASE, regulariser_weight=0.05, scaled=False, clip=2.0, layer_norm=False, steps=1_000_000)
QUICK = replace(  # averages that follow within thousands of updates, not within millions
    ONLINE, entries="sum", activation="silu", lr=1e-3, critic_lr=1e-3, ema_every=1, ema_after=0, candidates=10,
    width=128, batch_size=128,
)  # fmt: skip
AGREEING = replace(
    BASE, regulariser="consistency", weight="uniform", clamp=False, entries="sum", ema_every=1, ema_after=0
)
PRESETS = {
    "locomotion": BASE,
    "halfcheetah-medium": replace(BASE, eta=2.0, clip=9.0),
    "halfcheetah-medium-replay": replace(BASE, eta=2.0, clip=2.0),
    "halfcheetah-medium-expert": replace(BASE, clip=8.0),
    "hopper-medium": replace(BASE, eta=2.0, clip=9.0),
    "hopper-medium-replay": replace(BASE, clip=4.0),
    "hopper-medium-expert": replace(BASE, eta=0.5),
    "walker2d-medium": replace(BASE, clip=1.0),
    "walker2d-medium-replay": replace(BASE, clip=4.0),
    "walker2d-medium-expert": BASE,
    "antmaze-umaze": replace(MAZE, clip=2.0),
    "antmaze-umaze-diverse": replace(MAZE, eta=2.0, clip=3.0),
    "antmaze-medium-play": replace(MAZE, eta=4.0, clip=2.0, lr=1e-3),
    "antmaze-medium-diverse": replace(MAZE, eta=3.0, clip=1.0),
    "antmaze-large-play": replace(MAZE, eta=4.5, clip=10.0),
    "antmaze-large-diverse": replace(MAZE, eta=3.5, clip=7.0),
    "pen-human": replace(BASE, lr=3e-5, eta=0.15, clip=7.0, steps=1_000_000),
    "pen-cloned": replace(BASE, lr=3e-5, eta=0.1, clip=8.0, steps=1_000_000),
    "online": ONLINE,
    "online-cpu": replace(QUICK, steps=10_000),
    "doors": replace(  # the law of all that was tried, from which the softmax of values, four times as large, chooses
        QUICK, regulariser="consistency", weight="uniform", clamp=False, regulariser_weight=1.0, eta=0.004, width=64,
        reward="antmaze-cql", steps=7_500,
    ),
    "replay-cpu": replace(  # tens of thousands of transitions, minutes of one core
        AGREEING, standardize=True,
        eta=0.1, activation="silu", clip=4.0, lr=1e-3, critic_lr=1e-3, schedule="cosine", n_step=5,
        ema_rate=0.01, width=128, batch_size=128, steps=5_000,
    ),
    "bandit": replace(
        AGREEING,
        eta=0.4,  # at 0.1 most of what one call draws is not the best action: results/cpql.json
        # (the regulariser sums two entries: with their mean, as in the official code, this is an eta of 0.2)
        lr=1e-3, critic_lr=1e-3, clip=0.0, width=128, ema_rate=0.05, layer_norm=False, steps=3_000,
    ),
}  # fmt: skip
TARGETS: dict[str, str | float] = {  # spreads are not known to us, and these means not checked against the paper
    "halfcheetah-medium": 56.9, "hopper-medium": 99.9, "walker2d-medium": 82.1, "halfcheetah-medium-replay": 46.6,
    "hopper-medium-replay": 97.7, "walker2d-medium-replay": 93.6, "halfcheetah-medium-expert": 97.8,
    "hopper-medium-expert": 110.4, "walker2d-medium-expert": 110.9,
}  # fmt: skip
SYSTEM = System(SOURCE, Config, PRESETS, TARGETS, CPQL, train)
