"""SfBC: a diffusion clone of the behaviour, from whose candidates a critic, learned by planning in the record, selects.

What tells it apart: no policy is ever trained for reward. First the clone; then, once, actions drawn from it at every
state of the data; then rounds in which one Q is regressed on returns that are planned backwards through the recorded
trajectories with the soft value of the stored actions, and starts anew in each round: no bootstrapped updates, no
target network, no twin. Acting draws one of 32 candidates by exp(100 Q), or several, which are averaged.

Time limits end a trajectory like true ends do, as published but for Maze2D, officially one endless trajectory.
Deviates: there; and the sampler makes 16 calls, the last of which denoises (`behaviour_model`), instead of 15, and is
DPM-Solver++: where so few third-order steps extrapolate the noise, most samples end between narrow modes. Levels begin
at 1e-3 in training too, not at 1e-5. The plan is the paper's, not that of the official code, which is an option. The
faulty rewards of antmaze-medium-play-v2, far from the goal, are not removed, D4RL's mazes are learned with the goal in
the observation, and the deeper critic of the large AntMaze is not here.
"""

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ornstein.actor import standardized
from ornstein.behaviour import Order, behaviour_model, store
from ornstein.data.episodes import Episodes
from ornstein.data.goal import joined
from ornstein.data.normalize import Gaussian
from ornstein.data.returns import planned_returns, returns_to_go
from ornstein.data.rows import Rows, acted
from ornstein.data.transitions import transitions
from ornstein.diffusion.dpm import Form
from ornstein.fit import PerSeed, Run, fit
from ornstein.rl.action import ActionBox
from ornstein.rl.critic import Critics, candidate_values
from ornstein.rl.select import draw_several
from ornstein.rl.target import soft_value
from ornstein.source import Source
from ornstein.system import System
from ornstein.types import Adam, Descend, Draw, Metrics, Noise, Phase, Spaces, Transitions

SOURCE = Source(
    title="Offline Reinforcement Learning via High-Fidelity Generative Behavior Modeling",
    authors="Chen, Huayu and Lu, Cheng and Ying, Chengyang and Su, Hang and Zhu, Jun",
    year=2023,
    venue="International Conference on Learning Representations",
    arxiv="2209.14548",
    repository="https://github.com/ChenDRAG/SfBC",
)


@dataclass(frozen=True)
class Config:
    """Settings; the defaults are the paper's for locomotion."""

    rounds: int = 2  # of regression; the first one's targets are the recorded returns
    stored: int = 16  # actions per state of the data
    plan_temperature: float = 20.0  # inverse, of the soft value, for a Q whose targets have unit variance
    temperature: float = 100.0  # inverse, of the selection, likewise
    swap: bool = False  # plan as the official code does
    candidates: int = 32
    averaged: int = 4  # of them, when acting; 1 elsewhere than in locomotion
    discount: float = 0.99
    calls: int = 16  # of the network per sample
    order: Order = 3  # of the solver
    form: Form = "x0"  # in which it extrapolates: the denoised action, or "eps", the noise, as published
    lr: float = 1e-4  # of the clone
    schedule: Literal["constant", "cosine"] = "constant"  # of the clone's rate
    critic_lr: float = 1e-3
    standardize: bool = False  # observations to mean 0 and deviation 1 over the data
    width: int = 512  # of the clone, at its widest
    critic_width: int = 256
    batch_size: int = 4096
    steps: int = 586_000  # of the clone: 600 epochs of 4 M samples
    critic_batch_size: int = 4096
    critic_steps: int = 24_400  # of each round: 100 epochs of 1 M samples


class Targets(NamedTuple):
    """A batch of states, actions in [-1, 1], and standardised returns."""

    obs: Float[Tensor, " b obs"]
    action: Float[Tensor, " b act"]
    target: Float[Tensor, " b"]


class SfBC(nn.Module):
    """The learner, in the stage that it is told, and the policy. Q is standardised: `shift` and `scale` undo that."""

    shift: Tensor
    scale: Tensor

    def __init__(self, config: Config, spaces: Spaces) -> None:
        super().__init__()
        self.config, self.spaces, c = config, spaces, config
        if c.averaged > c.candidates:
            raise ValueError(f"averaged = {c.averaged} of {c.candidates} candidates: give no more than there are")
        self.actor = behaviour_model(spaces, width=c.width, calls=c.calls, order=c.order, form=c.form)
        size = spaces.obs + spaces.goal
        self.critic = Critics(size, spaces.act, n=1, width=c.critic_width, depth=2, activation="silu")
        for name, value in (("shift", 0.0), ("scale", 1.0)):
            self.register_buffer(name, torch.tensor(value))
        self.inputs, self.box = Gaussian(size), ActionBox(spaces)
        self.noise = {**self.actor.needs(c.candidates), "choice": Draw("uniform", (c.candidates,))}
        self.stage = "behaviour"

    def phases(self) -> tuple[Phase, ...]:
        """The clone alone, and then, in each round, the critic alone."""
        c = self.config
        if self.stage == "behaviour":
            return (Descend("actor", self.actor, self.actor_loss, Adam(c.lr, schedule=c.schedule), self.actor.draws),)
        return (Descend("critic", self.critic, self.critic_loss, Adam(c.critic_lr), {}),)

    def actor_loss(self, batch: Transitions, noise: Noise) -> tuple[Float[Tensor, ""], Metrics]:
        """The squared error of the predicted noise, summed over the action's entries (eq. 6 of the paper)."""
        return self.actor.cloning(batch.obs, self.box.to_unit(batch.action), noise).sum(1).mean(), {}

    def critic_loss(self, batch: Targets, noise: Noise) -> tuple[Float[Tensor, ""], Metrics]:
        """The squared error of Q against the planned returns (eq. 10 of the paper)."""
        q = self.critic(batch.obs, batch.action)[0]
        return (q - batch.target).square().mean(), {"target": (self.shift + self.scale * batch.target).mean()}

    @torch.no_grad()
    def begin(self, returns: Float[Tensor, " rows"], weights: Mapping[str, Tensor]) -> Float[Tensor, " rows"]:
        """Begin a round on these returns, the critic with these weights: the returns standardised, on the CPU."""
        self.stage = "critic"
        self.critic.load_state_dict(weights)
        shift, scale = returns.mean(), returns.std(correction=0).clamp(min=0.1)
        self.shift.copy_(shift)
        self.scale.copy_(scale)
        return ((returns - shift) / scale).float()

    @torch.no_grad()
    def value(self, obs: Float[Tensor, " rows obs"], action: Float[Tensor, " rows k act"]) -> Float[Tensor, " rows"]:
        """The soft value of each state over its stored actions, in units of reward, on the CPU (eq. 8 of the paper)."""
        found, where = [], self.shift.device
        for state, stored in zip(obs.split(4096), action.split(4096), strict=True):
            q = candidate_values(self.critic, state.to(where), stored.to(where))[0]
            found.append((self.shift + self.scale * soft_value(q, temperature=self.config.plan_temperature)).cpu())
        return torch.cat(found)

    def start(self, n_envs: int) -> tuple[()]:
        """Nothing is remembered."""
        return ()

    def act(self, obs: Float[Tensor, " n obs"], carry: Any, noise: Noise) -> tuple[Float[Tensor, " n act"], Any]:
        """The mean of some of the clone's candidates, drawn without replacement by exp(temperature Q)."""
        obs = self.inputs(obs)
        c, action = self.config, self.actor.candidates(obs, noise)
        q = candidate_values(self.critic, obs, action)[0]
        return self.box.to_env(draw_several(action, c.temperature * q, noise["choice"], c.averaged).mean(1)), carry


def train(config: Config, episodes: Episodes, run: Run) -> list[nn.Module]:
    """The clone, and then the critic that selects from it."""
    episodes, c = joined(episodes), config
    learners: list[Any] = run.build(lambda: SfBC(config, episodes.spaces))
    if c.standardize:
        episodes = standardized(episodes, learners)
    first = [deepcopy(learner.critic.state_dict()) for learner in learners]  # a run that resumes brings later ones
    data, held_out = run.batches(episodes, transitions)
    fit(learners, data, steps=c.steps, batch_size=c.batch_size, run=run, stage="behaviour", validation=held_out)
    return plan(config, episodes, learners, first, run=run)


def plan(
    config: Config, episodes: Episodes, learners: list[Any], first: list[dict[str, Tensor]], *, run: Run
) -> list[nn.Module]:
    """The clones' actions at every state; then rounds of planning and regression, each from the first weights."""
    c, (kept, _) = config, run.split(episodes)
    obs, action = acted(kept), ActionBox(kept.spaces).to_unit(kept.action)
    stored = [store(learner.actor, obs, c.stored, seed) for learner, seed in zip(learners, run.seeds, strict=True)]
    for k in range(c.rounds):
        parts = []
        for learner, weights, actions in zip(learners, first, stored, strict=True):
            value = learner.value(obs, actions) if k else torch.zeros(len(obs))
            recursion = partial(planned_returns, value=value, swap=c.swap) if k else returns_to_go
            target = learner.begin(recursion(kept.reward, kept.lengths, c.discount), weights)
            parts.append(Rows(Targets(obs, action, target)))
        rows = PerSeed(parts)
        fit(learners, rows, steps=c.critic_steps, batch_size=c.critic_batch_size, run=run, stage=f"critic-{k}")
    return learners


BASE = Config()
PRESETS = {
    "locomotion": BASE,
    "antmaze": replace(BASE, averaged=1, critic_steps=48_800),
    "maze": replace(BASE, averaged=1),
    "replay-cpu": replace(  # tens of thousands of transitions, minutes of one core
        BASE, standardize=True,
        stored=8, calls=13, lr=1e-3, schedule="cosine", width=128, critic_width=128, batch_size=128, steps=5_000,
        critic_batch_size=512, critic_steps=5_000,
    ),
    "car": replace(
        BASE, rounds=4, stored=8, averaged=1, calls=15, order=1, lr=1e-3, width=128, critic_width=128, batch_size=256,
        steps=5_000, critic_batch_size=1024, critic_steps=3_000,
    ),
    "bandit": replace(
        BASE, stored=8, averaged=1, calls=15, order=1, lr=1e-3, width=128, critic_width=128, batch_size=256,
        steps=3_000, critic_batch_size=256, critic_steps=2_000,
    ),
}  # fmt: skip
TARGETS: dict[str, str | float] = {
    "halfcheetah-medium": "45.9 +- 2.2", "hopper-medium": "57.1 +- 4.1", "walker2d-medium": "77.9 +- 2.5",
    "halfcheetah-medium-replay": "37.1 +- 1.7", "hopper-medium-replay": "86.2 +- 9.1",
    "walker2d-medium-replay": "65.1 +- 5.6",
    "halfcheetah-medium-expert": "92.6 +- 0.5", "hopper-medium-expert": "108.6 +- 2.1",
    "walker2d-medium-expert": "109.8 +- 0.2",
    "antmaze-umaze": "92.0 +- 2.1", "antmaze-umaze-diverse": "85.3 +- 3.6", "antmaze-medium-play": "81.3 +- 2.6",
    "antmaze-medium-diverse": "82.0 +- 3.1", "antmaze-large-play": "59.3 +- 14.3",
    "antmaze-large-diverse": "45.5 +- 6.6",
}  # fmt: skip
SYSTEM = System(SOURCE, Config, PRESETS, TARGETS, SfBC, train)
