"""QGPO: sampling from mu(a | s) exp(beta Q(s, a)) by an intermediate energy that is learned by contrast (CEP).

What tells it apart: two networks, a clone that knows nothing of reward and an energy of *noisy* actions, whose gradient
at the noisy action bends the sampler: no gradient of Q. The energy is learned by a cross-entropy among stored actions
of one state, noised to one level, under softmax(beta Q), in which the unknown normaliser cancels; so it is the exact
energy up to a constant, and not the mean energy that a regression finds (`objective="mse"`). Q is backed up by the soft
value of stored actions of the next state, and rests while the energy goes on. One sample is one action.

Deviates: the energy has a fresh optimiser when Q comes to rest. The MSE arm regresses on the stored actions, not on the
data's. The released code's third objective, "emse" (a regression of exp(-E) on exp(beta (Q - max Q))), is left out.
D4RL's mazes are learned with the goal in the observation. The sampler differs as `behaviour_model` says.
"""

from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ornstein.actor import standardized
from ornstein.behaviour import Order, behaviour_model, store
from ornstein.data.episodes import Episodes
from ornstein.data.goal import joined
from ornstein.data.normalize import Gaussian
from ornstein.data.reward import Transform, transform_reward
from ornstein.data.rows import Supported, supported
from ornstein.data.transitions import transitions
from ornstein.diffusion.guidance import contrastive_energy_loss, energy
from ornstein.diffusion.process import corrupt
from ornstein.diffusion.sampler import drawn_level
from ornstein.fit import PerSeed, Run, fit
from ornstein.nets.umlp import ScalarMLP
from ornstein.rl.action import ActionBox
from ornstein.rl.average import frozen
from ornstein.rl.critic import Critics, candidate_values, regression
from ornstein.rl.target import soft_value, td_target
from ornstein.source import Source
from ornstein.system import System
from ornstein.types import Adam, Average, Descend, Draw, Metrics, Noise, Phase, Point, Spaces, Transitions, X

SOURCE = Source(
    title="Contrastive Energy Prediction for Exact Energy-Guided Diffusion Sampling in Offline Reinforcement Learning",
    authors="Lu, Cheng and Chen, Huayu and Chen, Jianfei and Su, Hang and Li, Chongxuan and Zhu, Jun",
    year=2023,
    venue="International Conference on Machine Learning",
    arxiv="2304.12824",
    repository="https://github.com/ChenDRAG/CEP-energy-guided-diffusion",
)


@dataclass(frozen=True)
class Config:
    """Settings; the defaults are the paper's for locomotion."""

    guidance: float = 1.0  # scale of the energy; 1 is exact, the paper's scores are the best of 0 to 10 per data set
    beta: float = 3.0  # inverse temperature of the law that is sampled
    backup_beta: float = 3.0  # of the soft value in Q's targets
    objective: Literal["contrastive", "mse"] = "contrastive"
    stored: int = 16  # actions per observation; 32 for AntMaze
    reward: Transform = "locomotion-iql"
    discount: float = 0.99
    n_step: int = 1
    calls: int = 15  # of the network per sample
    order: Order = 2  # of the solver
    lr: float = 1e-4  # of the clone
    value_lr: float = 3e-4  # of Q and of the energy
    schedule: Literal["constant", "cosine"] = "constant"  # of all rates, in each stage
    ema_rate: float = 0.005  # share of the new weights in the target critics
    standardize: bool = False  # observations to mean 0 and deviation 1 over the data
    width: int = 512  # of the clone, at its widest
    value_width: int = 256
    batch_size: int = 4096
    steps: int = 600_000  # of the clone
    value_batch_size: int = 256
    value_steps: int = 500_000  # of Q and the energy
    energy_steps: int = 500_000  # of the energy alone, afterwards


class QGPO(nn.Module):
    """The learner, in the stage that it is told, and the policy."""

    def __init__(self, config: Config, spaces: Spaces) -> None:
        super().__init__()
        self.config, self.spaces, c = config, spaces, config
        size = spaces.obs + spaces.goal
        self.actor = behaviour_model(spaces, width=c.width, calls=c.calls, order=c.order, form="x0")
        self.critics = Critics(size, spaces.act, width=c.value_width, activation="relu")
        self.critics_target = frozen(self.critics)
        self.energy = ScalarMLP(spaces.act, size, width=c.value_width)
        self.inputs, self.box = Gaussian(size), ActionBox(spaces)
        self.noise = self.actor.needs()
        self.stage: Literal["behaviour", "values", "energy"] = "behaviour"

    def phases(self) -> tuple[Phase, ...]:
        """The clone; then Q, its target and the energy; then the energy alone."""
        c = self.config
        clone, value = Adam(c.lr, schedule=c.schedule), Adam(c.value_lr, schedule=c.schedule)
        if self.stage == "behaviour":
            return (Descend("actor", self.actor, self.actor_loss, clone, self.actor.draws),)
        draws = {"t": Draw("uniform"), "eps": Draw("normal", (c.stored, self.spaces.act))}
        guide = Descend("energy", self.energy, self.energy_loss, value, draws)
        if self.stage == "energy":
            return (guide,)
        critic = Descend("critic", self.critics, self.critic_loss, value, {})
        return (critic, Average(self.critics_target, self.critics, c.ema_rate), guide)

    def actor_loss(self, batch: Transitions, noise: Noise) -> tuple[Float[Tensor, ""], Metrics]:
        """The clone's squared error of the predicted noise, summed over the action's entries (eq. 3 of the paper)."""
        return self.actor.cloning(batch.obs, self.box.to_unit(batch.action), noise).sum(1).mean(), {}

    def critic_loss(self, batch: Supported, noise: Noise) -> tuple[Float[Tensor, ""], Metrics]:
        """Both critics against r + gamma sum_j softmax(beta Q')_j Q'_j over the next stored actions (eq. 12)."""
        with torch.no_grad():
            next_q = candidate_values(self.critics_target, batch.next_obs, batch.next_stored).amin(0)
            next_value = soft_value(next_q, temperature=self.config.backup_beta)
            target = td_target(batch.reward, batch.terminal, batch.discount, next_value)
        return regression(self.critics, batch.obs, self.box.to_unit(batch.action), target)

    def energy_loss(self, batch: Supported, noise: Noise) -> tuple[Float[Tensor, ""], Metrics]:
        """The cross-entropy of the energy among a state's stored actions, all at one level (eq. 11 of the paper)."""
        k = batch.stored.shape[1]
        level = drawn_level(self.actor.process, noise["t"], batch.stored)
        noisy = corrupt(batch.stored, level, noise["eps"]).flatten(0, 1)
        found = self.energy(noisy, level.t.repeat_interleave(k), batch.obs.repeat_interleave(k, 0)).unflatten(
            0, (-1, k)
        )
        with torch.no_grad():
            clean = -self.config.beta * candidate_values(self.critics_target, batch.obs, batch.stored).amin(0)
        if self.config.objective == "mse":  # the control arm
            return (found - clean).square().mean(), {}
        return contrastive_energy_loss(found, clean).mean(), {}

    def start(self, n_envs: int) -> tuple[()]:
        """Nothing is remembered."""
        return ()

    def act(self, obs: Float[Tensor, " n obs"], carry: Any, noise: Noise) -> tuple[Float[Tensor, " n act"], Any]:
        """One guided sample."""
        obs = self.inputs(obs)
        return self.box.to_env(self.sample(obs, noise)), carry

    def sample(self, obs: Float[Tensor, " n obs"], noise: Noise) -> Float[Tensor, " n act"]:
        """One sample of the clone, bent by the gradient of the energy at the noisy action; it may leave [-1, 1]."""

        def intermediate(x_t: X, point: Point) -> Float[Tensor, " n"]:
            return self.energy(x_t, point.t, obs)

        guided = energy(self.actor.denoiser.given(obs), intermediate, self.config.guidance)
        return self.actor.sampler(guided, noise)


def train(config: Config, episodes: Episodes, run: Run) -> list[nn.Module]:
    """The clone, and then what guides it."""
    episodes = joined(transform_reward(episodes, config.reward))
    learners: list[Any] = run.build(lambda: QGPO(config, episodes.spaces))
    if config.standardize:
        episodes = standardized(episodes, learners)
    data, held_out = run.batches(episodes, transitions)
    fit(
        learners,
        data,
        steps=config.steps,
        batch_size=config.batch_size,
        run=run,
        stage="behaviour",
        validation=held_out,
    )
    return guide(config, episodes, learners, run=run)


def guide(config: Config, episodes: Episodes, learners: list[Any], *, run: Run) -> list[nn.Module]:
    """Store the clones' actions at every observation; learn Q and the energy on them, then the energy alone."""
    c, (kept, _) = config, run.split(episodes)
    data = transitions(kept, discount=c.discount, n=c.n_step)
    stored = [store(learner.actor, kept.obs, c.stored, seed) for learner, seed in zip(learners, run.seeds, strict=True)]
    rows = PerSeed([supported(data, actions) for actions in stored])
    for stage, steps in (("values", c.value_steps), ("energy", c.energy_steps)):
        for learner in learners:
            learner.stage = stage
        fit(learners, rows, steps=steps, batch_size=c.value_batch_size, run=run, stage=stage)
    return learners


BASE = Config()
ANTMAZE = replace(BASE, stored=32, reward="antmaze-iql")
PRESETS = {
    "locomotion": BASE,
    "antmaze": ANTMAZE,
    "walker2d": replace(BASE, backup_beta=1.0),
    "replay-cpu": replace(  # tens of thousands of transitions, minutes of one core
        BASE, standardize=True,
        stored=8, n_step=5, lr=1e-3, value_lr=1e-3, schedule="cosine", ema_rate=0.01, width=128, value_width=128,
        batch_size=128, steps=5_000, value_batch_size=128, value_steps=5_000, energy_steps=5_000,
    ),
    "bandit": replace(
        BASE, reward="none", calls=25, order=1, lr=1e-3, value_lr=1e-3, schedule="cosine", ema_rate=0.02, width=128,
        value_width=128, batch_size=512, steps=4_000, value_batch_size=32, value_steps=1_500, energy_steps=1_500,
    ),
}  # fmt: skip
TARGETS: dict[str, str | float] = {  # the means agree with what later papers quote; the spreads are not checked
    "halfcheetah-medium": "54.1 +- 0.4", "hopper-medium": "98.0 +- 2.6", "walker2d-medium": "86.0 +- 0.7",
    "halfcheetah-medium-replay": "47.6 +- 1.4", "hopper-medium-replay": "96.9 +- 2.6",
    "walker2d-medium-replay": "84.4 +- 4.1",
    "halfcheetah-medium-expert": "93.5 +- 0.3", "hopper-medium-expert": "108.0 +- 2.5",
    "walker2d-medium-expert": "110.7 +- 0.6",
    "antmaze-umaze": "96.4 +- 1.4", "antmaze-umaze-diverse": "74.4 +- 9.7", "antmaze-medium-play": "83.6 +- 4.4",
    "antmaze-medium-diverse": "83.8 +- 3.5", "antmaze-large-play": "66.6 +- 9.8",
    "antmaze-large-diverse": "64.8 +- 5.5",
}  # fmt: skip
SYSTEM = System(SOURCE, Config, PRESETS, TARGETS, QGPO, train)
