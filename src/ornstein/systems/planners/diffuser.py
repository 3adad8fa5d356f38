"""Diffuser: plans by denoising whole trajectories of states and actions at once.

Model and planner are one object. What tells it apart: states and actions are denoised jointly, all time steps
together, by a U-Net that is local in time; reward is no input of it, a separate value network of noisy trajectories
steers sampling by its gradient, scaled by the posterior variance; start and goal enter by overwriting their entries
in every reverse step. Locomotion: 64 guided plans at every step, the first action of the best is executed. Mazes: one
plan from start to goal, whose positions and velocities a tracker follows; the planned actions are not used.

Deviates: the value network is trained on the same windows, side by side with the denoiser. Rows after an episode's
end repeat its last row and have no weight in the loss, instead of zeros that are learnt as data. Plans may have a
temporal stride, between whose rows the tracker interpolates.
"""

from dataclasses import dataclass, replace
from typing import Literal

from jaxtyping import Float
from torch import Tensor, nn

from ornstein.data.episodes import Episodes
from ornstein.data.layout import Layout
from ornstein.data.windows import windows
from ornstein.diffusion.denoiser import X0, Denoiser, Index
from ornstein.diffusion.grid import uniform
from ornstein.diffusion.guidance import ascend
from ornstein.diffusion.process import DiscreteVP
from ornstein.diffusion.sampler import Sampler
from ornstein.diffusion.solver import DDIM, DDPM
from ornstein.fit import Run, fit
from ornstein.nets.unet1d import TemporalEncoder, TemporalUNet
from ornstein.planner import Plan, fresh_plan, held, no_plan, noised, trajectory_loss
from ornstein.rl.action import ActionBox
from ornstein.rl.average import frozen
from ornstein.rl.select import best
from ornstein.source import Source
from ornstein.system import System
from ornstein.track import KD, KP, track
from ornstein.types import Adam, Average, Constrain, Descend, Draw, Metrics, Noise, Phase, Segments, Shift, Spaces

SOURCE = Source(
    title="Planning with Diffusion for Flexible Behavior Synthesis",
    authors="Janner, Michael and Du, Yilun and Tenenbaum, Joshua B and Levine, Sergey",
    year=2022,
    venue="International Conference on Machine Learning",
    arxiv="2205.09991",
    repository="https://github.com/jannerm/diffuser",
)


@dataclass(frozen=True)
class Config:
    """Settings; the defaults are those of the released locomotion configuration."""

    task: Literal["return", "goal"] = "return"  # steer to high return, or plan from the start to the goal
    horizon: int = 32  # rows of a plan
    stride: int = 1  # environment steps between rows
    diffusion_steps: int = 20
    calls: int = 20  # denoising calls per plan; fewer than the steps take even strides through them
    solver: DDPM | DDIM = DDPM()  # noqa: RUF009 (a frozen value)
    width: int = 32
    multipliers: tuple[int, ...] = (1, 2, 4, 8)
    attention: bool = False
    normalizer: Literal["gaussian", "limits"] = "gaussian"
    bound: float | None = None  # clamp of the denoised trajectory; 1 with "limits"
    action_weight: float = 10.0  # weight of the first action in the loss
    discount: float = 0.997  # of the returns that the value network learns
    termination_penalty: float = -100.0  # added to the last reward of episodes that ended by failure
    guide_scale: float = 0.1
    guide_repeats: int = 2  # gradient moves before each reverse step
    guide_stop: int = 2  # no moves at steps k - 1 below this
    replan: int = 1  # environment steps between plans; 0: one plan an episode
    candidates: int = 64  # plans per decision, of which the most valued is executed
    position_gain: float = KP  # of the tracker of goal tasks: force per metre of lag
    velocity_gain: float = KD  # force per metre/second of lag
    lr: float = 2e-4
    schedule: Literal["constant", "cosine"] = "constant"  # of the rate; "cosine" ends at 0
    ema_rate: float = 0.005
    ema_every: int = 10
    ema_after: int = 2000  # updates before which the averaged network is a copy
    batch_size: int = 64  # the official 32, accumulated over 2 batches
    steps: int = 1_000_000


class Diffuser(nn.Module):
    """The learner, the planner and the policy."""

    def __init__(self, config: Config, spaces: Spaces) -> None:
        super().__init__()
        self.config, self.spaces, c = config, spaces, config
        goal = c.task == "goal"
        self.layout = Layout(spaces, c.horizon, c.normalizer, goal=goal, first_action=c.action_weight)
        channels, net = self.layout.channels, {"width": c.width, "multipliers": c.multipliers, "attention": c.attention}
        self.chain = process = DiscreteVP(c.diffusion_steps, "cosine")
        self.denoiser = Denoiser(
            TemporalUNet(channels, **net), process, X0(), clock=Index(c.diffusion_steps), bound=c.bound
        )
        self.ema = frozen(self.denoiser)
        if not goal:
            self.value = TemporalEncoder(channels, c.horizon, **net)
            self.value_ema = frozen(self.value)
        self.sampler = Sampler(uniform(process, c.calls), c.solver)
        labels = self.sampler.t * c.diffusion_steps - 1
        self.guided = int((labels > c.guide_stop - 0.5).sum())  # steps with moves before them, the first ones
        self.box = ActionBox(spaces)
        self.noise = self.sampler.needs((c.horizon, channels), copies=1 if goal else c.candidates)
        self.plan_every = c.replan

    def phases(self) -> tuple[Phase, ...]:
        """The denoiser and its average; for return tasks, the value network and its average."""
        c = self.config
        draws = {"t": Draw("uniform"), "eps": Draw("normal", (c.horizon, self.layout.channels))}
        average = {"rate": c.ema_rate, "every": c.ema_every, "after": c.ema_after}
        model = (
            Descend("denoiser", self.denoiser, self.denoiser_loss, Adam(c.lr, schedule=c.schedule), draws),
            Average(self.ema, self.denoiser, before="copy", **average),
        )
        if c.task == "goal":
            return model
        return (
            *model,
            Descend("value", self.value, self.value_loss, Adam(c.lr, schedule=c.schedule), draws),
            Average(self.value_ema, self.value, before="copy", **average),
        )

    def denoiser_loss(self, batch: Segments, noise: Noise) -> tuple[Float[Tensor, ""], Metrics]:
        """Weighted squared error of the denoised trajectory, known entries given."""
        return trajectory_loss(self.denoiser, self.layout, batch, noise)

    def value_loss(self, batch: Segments, noise: Noise) -> tuple[Float[Tensor, ""], Metrics]:
        """Squared error of the value of the noised trajectory against the return to the episode's end."""
        x_t, level, _ = noised(self.chain, self.layout, self.layout.pack(batch), noise)
        value = self.value(x_t, self.denoiser.clock.label(level))
        return (value - batch.returns).square().mean(), {"value": value.mean()}

    def start(self, n_envs: int) -> Plan:
        """No plan yet."""
        return no_plan(self.layout, n_envs)

    def plan(self, obs: Float[Tensor, " n obs"], carry: Plan, noise: Noise) -> Plan:
        """Fresh plans from these observations (the goal behind the state, where there is one)."""
        copies = noise["start"].shape[1]
        given = held(self.layout, self.layout.ends(obs).repeat_interleave(copies, 0))
        guide = self.guide(given) if self.config.task == "return" else None
        x = self.sampler.many(self.ema, noise, shift=guide, shifts=self.guided, constrain=given)
        x = best(x, self.scores(x)) if self.config.task == "return" else x[:, 0]
        return fresh_plan(self.layout, x)

    def guide(self, given: Constrain) -> Shift:
        """Moves along the value's gradient, scaled by the posterior variance, before each reverse step."""
        c, label = self.config, self.denoiser.clock.label
        value = lambda x, level: self.value_ema(x, label(level))  # noqa: E731
        return ascend(value, c.guide_scale, repeats=c.guide_repeats, constrain=given)

    def scores(self, x: Float[Tensor, " n k horizon channels"]) -> Float[Tensor, " n k"]:
        """The value of each finished plan, at the lowest noise level."""
        flat = x.flatten(0, 1)
        return self.value_ema(flat, flat.new_zeros(len(flat))).unflatten(0, x.shape[:2])

    def act(self, obs: Float[Tensor, " n obs"], carry: Plan, noise: Noise) -> tuple[Float[Tensor, " n act"], Plan]:
        """The plan's first action, or for goal tasks the tracker's force towards the plan's next state."""
        following = carry._replace(age=carry.age + 1)
        if self.config.task == "return":
            return self.box.to_env(self.box.to_unit(carry.action[:, 0])), following
        c = self.config
        force = track(obs, carry.obs[..., :4], carry.age, stride=c.stride, kp=c.position_gain, kd=c.velocity_gain)
        return self.box.to_env(force), following


def train(config: Config, episodes: Episodes, run: Run) -> list[nn.Module]:
    """One stage; the normaliser is fitted on the data first."""

    def build() -> Diffuser:
        agent = Diffuser(config, episodes.spaces)
        agent.layout.fit(episodes)
        return agent

    pad: Literal["last", "none"] = "last" if config.task == "return" else "none"
    options = {"discount": config.discount, "stride": config.stride, "termination_penalty": config.termination_penalty}
    agents = run.build(build)
    data, held_out = run.batches(episodes, lambda e: windows(e, config.horizon, pad=pad, **options))
    fit(agents, data, steps=config.steps, batch_size=config.batch_size, run=run, validation=held_out)
    return agents


BASE = Config()
MAZE = replace(
    BASE, task="goal", diffusion_steps=256, calls=256, horizon=256, multipliers=(1, 4, 8), normalizer="limits",
    bound=1.0, action_weight=1.0, replan=0, candidates=1, steps=2_000_000,
)  # fmt: skip
FAST = replace(  # minutes of one core; a plan of 1.9 seconds, made anew on the way, forgives what is not yet learnt
    MAZE, diffusion_steps=64, calls=16, solver=DDIM(), horizon=32, stride=6, width=16, multipliers=(1, 2, 4), lr=1e-3,
    schedule="cosine", replan=32, ema_rate=0.05, ema_after=200, steps=5_000,
)  # fmt: skip
PRESETS = {
    "locomotion": BASE,
    "hopper-medium-expert": replace(BASE, guide_scale=1e-4, guide_stop=4),
    "halfcheetah": replace(BASE, horizon=4, multipliers=(1, 4, 8), attention=True, guide_scale=1e-3, guide_stop=4),
    "maze-umaze": replace(MAZE, diffusion_steps=64, calls=64, horizon=128),
    "maze-medium": MAZE,
    "maze-large": replace(MAZE, horizon=384),
    "maze-fast": FAST,
    "maze-large-fast": replace(FAST, horizon=64, stride=8, width=32, steps=12_000),
}
TARGETS: dict[str, str | float] = {
    "halfcheetah-medium-expert": "88.9 +- 0.3", "hopper-medium-expert": "103.3 +- 1.3",
    "walker2d-medium-expert": "106.9 +- 0.2",
    "halfcheetah-medium": "42.8 +- 0.3", "hopper-medium": "74.3 +- 1.4", "walker2d-medium": "79.6 +- 0.55",
    "halfcheetah-medium-replay": "37.7 +- 0.5", "hopper-medium-replay": "93.6 +- 0.4",
    "walker2d-medium-replay": "70.6 +- 1.6",
    "maze2d-umaze": "113.9 +- 3.1", "maze2d-medium": "121.5 +- 2.7", "maze2d-large": "123.0 +- 6.4",
}  # fmt: skip
SYSTEM = System(SOURCE, Config, PRESETS, TARGETS, Diffuser, train)
