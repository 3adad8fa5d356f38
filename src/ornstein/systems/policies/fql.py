"""Flow Q-learning (FQL): a flow clones the data, a one-step network is distilled from it and climbs the critic.

What tells it apart: the flow never sees a reward, and no gradient goes back through its steps; the policy is a second
network z, s -> a of one call, pulled to where the flow leads the SAME noise z, and pushed up the critic's gradient.
Targets and acting use the one-step network; it draws one action, without candidates.

Deviates: critic, flow and student take their steps one after the other instead of in one joint step, so the student
climbs the critic that has just moved. The critics' LayerNorm stands before each activation, not after it. First weights
are the library's, not uniform by the mean of the fans. The flow's time enters through a sinusoid, not as a bare number.
Time runs from data (0) to noise (1) as everywhere here.
"""

from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ornstein.actor import DiffusionActor, fit_transitions
from ornstein.data.episodes import Episodes
from ornstein.data.normalize import Gaussian
from ornstein.diffusion.denoiser import Continuous, Velocity
from ornstein.diffusion.grid import uniform
from ornstein.diffusion.process import Flow
from ornstein.diffusion.solver import Euler
from ornstein.fit import Run
from ornstein.nets.mlp import ConditionalMLP
from ornstein.rl.action import ActionBox
from ornstein.rl.actor import Actor
from ornstein.rl.average import frozen
from ornstein.rl.critic import Critics, regression
from ornstein.rl.target import td_target
from ornstein.source import Source
from ornstein.system import System
from ornstein.types import Adam, Average, Descend, Draw, Metrics, Noise, NoiseSpec, Phase, Spaces, Transitions

SOURCE = Source(
    title="Flow Q-Learning",
    authors="Park, Seohong and Li, Qiyang and Levine, Sergey",
    year=2025,
    venue="International Conference on Machine Learning",
    arxiv="2502.02538",
    repository="https://github.com/seohongpark/fql",
)


@dataclass(frozen=True)
class Config:
    """Settings; the defaults are those of the official code."""

    distill_weight: float = 10.0  # of the pull to the flow (the paper's alpha), the setting that is chosen per task
    normalize_q: bool = False  # divide the critic's term by its mean magnitude
    aggregate: Literal["mean", "min"] = "mean"  # of the twin critics, in targets
    flow_steps: int = 10  # of Euler's method
    clip: float = 0.0  # largest gradient norm; 0: none
    lr: float = 3e-4
    schedule: Literal["constant", "cosine"] = "constant"
    discount: float = 0.99
    n_step: int = 1
    ema_rate: float = 0.005  # share of the new weights in the target critics
    standardize: bool = False  # observations to mean 0 and deviation 1 over the data
    width: int = 512
    depth: int = 4
    activation: str = "gelu"
    batch_size: int = 256
    steps: int = 1_000_000


class FQL(nn.Module):
    """The learner and the policy."""

    def __init__(self, config: Config, spaces: Spaces) -> None:
        super().__init__()
        self.config, self.spaces = config, spaces
        size, act = spaces.obs + spaces.goal, spaces.act
        net = {"width": config.width, "depth": config.depth, "activation": config.activation}
        self.flow = DiffusionActor(
            ConditionalMLP(act, size, **net), Flow(), act, grid=uniform(Flow(), config.flow_steps), solver=Euler(),
            predict=Velocity(), clock=Continuous(10.0), bound=None,
        )  # fmt: skip
        self.student = Actor(size + act, act, squash=False, **net)
        self.critics = Critics(size, act, layer_norm=True, **net)
        self.critics_target = frozen(self.critics)
        self.inputs, self.box = Gaussian(size), ActionBox(spaces)
        self.noise: NoiseSpec = {"start": Draw("normal", (act,))}

    def phases(self) -> tuple[Phase, ...]:
        """Critic, flow, student, target critics."""
        adam = Adam(self.config.lr, clip=self.config.clip, schedule=self.config.schedule)
        return (
            Descend("critic", self.critics, self.critic_loss, adam, self.noise),
            Descend("flow", self.flow, self.flow_loss, adam, self.flow.draws),
            Descend("student", self.student, self.student_loss, adam, self.noise),
            Average(self.critics_target, self.critics, self.config.ema_rate),
        )

    def critic_loss(self, batch: Transitions, noise: Noise) -> tuple[Float[Tensor, ""], Metrics]:
        """Both critics' squared error against r + gamma Q'(s', a'), a' the student's."""
        with torch.no_grad():
            next_q = self.critics_target(batch.next_obs, self.one_step(batch.next_obs, noise["start"]).clamp(-1.0, 1.0))
            next_value = next_q.amin(0) if self.config.aggregate == "min" else next_q.mean(0)
            target = td_target(batch.reward, batch.terminal, batch.discount, next_value)
        return regression(self.critics, batch.obs, self.box.to_unit(batch.action), target)

    def flow_loss(self, batch: Transitions, noise: Noise) -> tuple[Float[Tensor, ""], Metrics]:
        """The squared error of the velocity (eq. 4 of the paper)."""
        return self.flow.cloning(batch.obs, self.box.to_unit(batch.action), noise).mean(), {}

    def student_loss(self, batch: Transitions, noise: Noise) -> tuple[Float[Tensor, ""], Metrics]:
        """Weight |mu(s, z) - flow(s, z)|^2 - Q(s, mu(s, z)), with one z for both (eq. 8 of the paper)."""
        with torch.no_grad():
            led = self.flow(batch.obs, noise).clamp(-1.0, 1.0)
        action = self.one_step(batch.obs, noise["start"])
        distill = (action - led).square().mean()
        q = self.critics(batch.obs, action.clamp(-1.0, 1.0)).mean(0)
        improve = -q.mean() / q.detach().abs().mean() if self.config.normalize_q else -q.mean()
        return self.config.distill_weight * distill + improve, {"distill": distill, "improve": improve}

    def one_step(self, obs: Float[Tensor, " b obs"], z: Float[Tensor, " b act"]) -> Float[Tensor, " b act"]:
        """The student's action for each observation and noise, not yet clipped to [-1, 1]."""
        return self.student(torch.cat((obs, z), dim=-1))

    def start(self, n_envs: int) -> tuple[()]:
        """Nothing is remembered."""
        return ()

    def act(self, obs: Float[Tensor, " n obs"], carry: Any, noise: Noise) -> tuple[Float[Tensor, " n act"], Any]:
        """One call of the student."""
        obs = self.inputs(obs)
        return self.box.to_env(self.one_step(obs, noise["start"])), carry


def train(config: Config, episodes: Episodes, run: Run) -> list[nn.Module]:
    """One stage: all three networks together."""
    return fit_transitions(lambda e: FQL(config, e.spaces), config, episodes, run)


BASE = Config()
PRESETS = {  # those by task are OGBench's; on D4RL's large antmaze the official pull is 3, and targets take the mean
    "antmaze-large": replace(BASE, aggregate="min"),
    "antmaze-giant": replace(BASE, discount=0.995, aggregate="min"),
    "humanoidmaze": replace(BASE, distill_weight=30.0, discount=0.995),
    "cube-single": replace(BASE, distill_weight=300.0),
    "scene": replace(BASE, distill_weight=300.0),
    "puzzle": replace(BASE, distill_weight=1000.0),
    "replay-cpu": replace(  # tens of thousands of transitions, minutes of one core
        BASE, standardize=True,
        distill_weight=1.0, normalize_q=True, aggregate="min", width=128, depth=3, activation="silu", clip=4.0,
        lr=1e-3, schedule="cosine", n_step=5, ema_rate=0.01, batch_size=128, steps=5_000,
    ),
    "bandit": replace(
        BASE, normalize_q=True, width=128, depth=3, lr=1e-3, ema_rate=0.05,
        distill_weight=0.02,  # a heavier pull holds what has left the poor corners short of the best one
        steps=2_000,  # at twice as many half of the actions stop beside the best corner: recipes.fql --steps 4000
    ),
}  # fmt: skip
TARGETS: dict[str, str | float] = {}
SYSTEM = System(SOURCE, Config, PRESETS, TARGETS, FQL, train)
