"""EDP: a diffusion policy of a thousand steps, improved through a single call of its network.

The critic's gradient does not pass through a sampling chain: an action of the data is noised and denoised in one
step, a_hat = (a_t - sigma eps) / alpha, and what the learner makes of a_hat is the policy's loss. What tells it apart:
one network call per actor update gives a_hat and the denoising loss both, so the cost does not depend on the number of
diffusion steps; an ODE solver of 16 calls draws the actions of targets and of acting; and N(a_hat, I) stands in for
the policy's likelihood, so that learners which weigh the data's actions can use it. Three learners:

- "td3": - q_weight mean Q_i(s, a_hat) / mean |Q_i(s, a_hat)|, i by a coin; targets from the averaged actor.
- "crr": the data's actions, weighted by exp(Q(s, a) - mean Q(s, u)) with draws u around a_hat; targets as for "td3".
- "iql": the data's actions, weighted by exp(temperature (Q(s, a) - V(s))); no action is ever drawn in training.

Deviates: five steps of third-order DPM-Solver++, even in log(alpha / sigma), and a denoise. Even in time the last of so
few steps is so long that most samples end between the modes; where the noise is extrapolated, as published, and not the
denoised action, an exact network leaves an eighth of them there. a_hat stays in the action box everywhere, and so do
the draws u, where the official code asks the critic a whole standard deviation outside. The chain is the one that the
solver integrates, beta from 0.1 to 20, cut into steps; the official table, beta_k = beta(k / T) / T, differs in log
alpha by a hundredth or 0.0004 at 1000 steps and does not exist below 21. Actions are scaled to [-1, 1] by the
environment's box, not clipped to 0.999 of it. The critics' gradients are clipped together, not each, and the actor
climbs them after their step. First weights are torch's usual ones, not flax's; the exponents of time's sinusoids are
divided by size / 2 - 1 as in Diffusion-QL, officially by size / 2. D4RL's mazes are learned with the goal in the
observation.
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
from ornstein.diffusion.dpm import DPMSolver3, Form
from ornstein.diffusion.grid import log_snr, uniform
from ornstein.diffusion.process import DiscreteVP
from ornstein.fit import Run
from ornstein.nets.mlp import ConditionalMLP
from ornstein.rl.action import ActionBox
from ornstein.rl.average import frozen
from ornstein.rl.critic import Critics, StateValues, candidate_values, regression
from ornstein.rl.implicit import advantage, in_sample_critic_loss, in_sample_value_loss
from ornstein.rl.weight import exponential_weight
from ornstein.source import Source
from ornstein.system import System
from ornstein.types import Adam, Average, Descend, Draw, Metrics, Noise, Phase, Spaces, Transitions

SOURCE = Source(
    title="Efficient Diffusion Policies for Offline Reinforcement Learning",
    authors="Kang, Bingyi and Ma, Xiao and Du, Chao and Pang, Tianyu and Yan, Shuicheng",
    year=2023,
    venue="Advances in Neural Information Processing Systems",
    arxiv="2305.20081",
    repository="https://github.com/sail-sg/edp",
)


@dataclass(frozen=True)
class Config:
    """Settings; the defaults are those of the paper's locomotion runs."""

    learner: Literal["td3", "crr", "iql"] = "td3"
    guide_weight: float = 1.0  # of the learner's term beside the denoising loss; 0: cloning
    q_weight: float = 2.0  # td3: the paper's alpha
    temperature: float = 1.0  # inverse, of the weights of crr (1) and iql (3)
    largest_weight: float = 20.0  # crr: 20, iql: 100
    near_actions: int = 10  # crr: draws around a_hat, whose mean value an action is compared with
    expectile: float = 0.7  # iql; 0.9 in mazes
    diffusion_steps: int = 1000  # in training
    calls: int = 16  # of the network per drawn action: three in each of five steps, and a denoise
    spacing: Literal["log_snr", "uniform"] = "log_snr"  # of the steps: even in log(alpha / sigma), or in time
    form: Form = "x0"  # in which the solver extrapolates: the denoised action, or "eps", the noise, as published
    lr: float = 3e-4  # of all networks
    schedule: Literal["constant", "cosine"] = "constant"
    clip: float = 5.0  # largest gradient norm; 0: none
    discount: float = 0.99
    n_step: int = 1
    backup_candidates: int = 1  # td3 and crr: actions per next state in the target; 10 for sparse tasks
    candidates: int = 50  # among which acting draws; 1: a plain sample
    ema_rate: float = 0.005
    ema_every: int = 5
    ema_after: int = 1000
    reward: Transform = "none"  # how rewards are changed
    standardize: bool = False  # observations to mean 0 and deviation 1 over the data
    layer_norm: bool = False  # in the critics
    width: int = 256
    activation: str = "mish"
    batch_size: int = 256
    steps: int = 2_000_000


class EDP(nn.Module):
    """The learner and the policy."""

    def __init__(self, config: Config, spaces: Spaces) -> None:
        super().__init__()
        self.config, self.spaces, self.box = config, spaces, ActionBox(spaces)
        size, net = spaces.obs + spaces.goal, {"width": config.width, "activation": config.activation}
        chain = DiscreteVP(config.diffusion_steps, "vp", (0.1, 20.0))
        steps, rest = divmod(config.calls - 1, 3)
        if rest or steps < 1:
            raise ValueError(f"calls = {config.calls}: a denoise after steps of three calls; give 1 + a multiple of 3")
        spaced = log_snr if config.spacing == "log_snr" else uniform
        grid = spaced(chain, steps + 1, end=1 / config.diffusion_steps)
        network = ConditionalMLP(spaces.act, size, **net)
        self.actor = DiffusionActor(network, chain, spaces.act, grid=grid, solver=DPMSolver3(chain, config.form))
        self.critics = Critics(size, spaces.act, layer_norm=config.layer_norm, **net)
        self.critics_target, self.inputs = frozen(self.critics), Gaussian(size)
        if config.learner == "iql":
            self.values = StateValues(size, depth=3, **net)
        else:
            self.actor_ema = frozen(self.actor)
        self.noise = choice_noise(self.actor, config.candidates)

    def phases(self) -> tuple[Phase, ...]:
        """Values, actor, critics and target critics for "iql"; else critics, actor and both averages."""
        c, actor = self.config, self.actor
        adam = Adam(c.lr, clip=c.clip, schedule=c.schedule)
        near = {"near": Draw("normal", (c.near_actions, self.spaces.act))}
        extra = {"td3": {"coin": Draw("uniform", per="update")}, "crr": near, "iql": {}}[c.learner]
        improve = Descend("actor", actor, self.actor_loss, adam, {**actor.draws, **extra})
        follow = Average(self.critics_target, self.critics, c.ema_rate)
        if c.learner == "iql":
            values = Descend("values", self.values, self.values_loss, adam, {})
            return values, improve, Descend("critic", self.critics, self.critic_loss, adam, {}), follow
        critic = Descend("critic", self.critics, self.critic_loss, adam, actor.needs(c.backup_candidates))
        average = Average(self.actor_ema.denoiser, actor.denoiser, c.ema_rate, every=c.ema_every, after=c.ema_after)
        return critic, improve, average, follow

    def critic_loss(self, batch: Transitions, noise: Noise) -> tuple[Float[Tensor, ""], Metrics]:
        """Both critics' squared error against r + gamma V(s'), or against the averaged actor's value as in TD3."""
        batch = batch._replace(action=self.box.to_unit(batch.action))
        if self.config.learner == "iql":
            return in_sample_critic_loss(self.critics, self.values, batch)
        target = candidate_target(self.critics_target, self.actor_ema, batch, noise)
        return regression(self.critics, batch.obs, batch.action, target)

    def values_loss(self, batch: Transitions, noise: Noise) -> tuple[Float[Tensor, ""], Metrics]:
        """The expectile loss of V(s) against the smaller target critic at the data's action."""
        batch = batch._replace(action=self.box.to_unit(batch.action))
        return in_sample_value_loss(self.values, self.critics_target, batch, level=self.config.expectile)

    def actor_loss(self, batch: Transitions, noise: Noise) -> tuple[Float[Tensor, ""], Metrics]:
        """L_diffusion + guide_weight L_guide, both from one call at noised actions of the data (eq. 8, 10 and 12)."""
        batch = batch._replace(action=self.box.to_unit(batch.action))
        error, denoised = self.actor.reconstructed(batch.obs, batch.action, noise)
        cloning = error.mean()
        if self.config.learner == "td3":
            guide = self.climb(batch.obs, denoised, noise["coin"])
        else:
            weight = self.crr_weight if self.config.learner == "crr" else self.iql_weight
            near = 0.5 * (batch.action - denoised).square().sum(-1)  # -log N(a; a_hat, I) but for a constant
            guide = (weight(batch, denoised, noise) * near).mean()
        return cloning + self.config.guide_weight * guide, {"cloning": cloning, "guide": guide}

    def climb(
        self, obs: Float[Tensor, " b obs"], denoised: Float[Tensor, " b act"], coin: Float[Tensor, ""]
    ) -> Float[Tensor, ""]:
        """- q_weight mean Q_i / mean |Q_i| at the denoised action: scaled by the same critic, unlike Diffusion-QL."""
        q = self.critics(obs, denoised)
        scaled = q.mean(1) / q.detach().abs().mean(1)
        return -self.config.q_weight * torch.where(coin < 0.5, scaled[0], scaled[1])

    @torch.no_grad()
    def crr_weight(self, batch: Transitions, denoised: Float[Tensor, " b act"], noise: Noise) -> Float[Tensor, " b"]:
        """min(exp(temperature (Q(s, a) - mean_k Q(s, u_k))), largest), u_k from N(a_hat, I), Q the smaller critic."""
        near = (denoised.unsqueeze(1) + noise["near"]).clamp(-1.0, 1.0)
        usual = candidate_values(self.critics, batch.obs, near).amin(0).mean(1)
        better = self.critics(batch.obs, batch.action).amin(0) - usual
        return exponential_weight(better, temperature=self.config.temperature, largest=self.config.largest_weight)

    @torch.no_grad()
    def iql_weight(self, batch: Transitions, denoised: Float[Tensor, " b act"], noise: Noise) -> Float[Tensor, " b"]:
        """min(exp(temperature (Q(s, a) - V(s))), largest), Q the smaller target critic."""
        better = advantage(self.values, self.critics_target, batch)
        return exponential_weight(better, temperature=self.config.temperature, largest=self.config.largest_weight)

    def start(self, n_envs: int) -> tuple[()]:
        """Nothing is remembered."""
        return ()

    def act(self, obs: Float[Tensor, " n obs"], carry: Any, noise: Noise) -> tuple[Float[Tensor, " n act"], Any]:
        """One of the actor's candidates, drawn by a softmax of the online critics' minimum."""
        obs = self.inputs(obs)
        return self.box.to_env(drawn_action(self.actor, self.critics, obs, noise)), carry


def train(config: Config, episodes: Episodes, run: Run) -> list[nn.Module]:
    """One stage."""
    return fit_transitions(lambda e: EDP(config, e.spaces), config, episodes, run)


BASE = Config()
IQL = replace(BASE, learner="iql", temperature=3.0, largest_weight=100.0)
MAZE = replace(IQL, expectile=0.9, reward="antmaze-iql")
HAND = replace(IQL, reward="min-max")
PRESETS = {
    "locomotion": BASE,
    "locomotion-crr": replace(BASE, learner="crr"),
    "locomotion-iql": IQL,
    "replay-cpu": replace(  # tens of thousands of transitions, minutes of one core
        BASE, standardize=True, layer_norm=True,
        q_weight=0.1,  # at 2 the actor climbs the errors of a critic that has seen this little
        activation="silu", clip=4.0, lr=1e-3, schedule="cosine", n_step=5, ema_rate=0.01, width=128,
        batch_size=128, steps=5_000,
    ),
    "halfcheetah-medium": replace(BASE, clip=9.0),
    "halfcheetah-medium-replay": replace(BASE, clip=2.0),
    "halfcheetah-medium-expert": replace(BASE, clip=7.0),
    "hopper-medium": replace(BASE, clip=9.0), "hopper-medium-replay": replace(BASE, clip=4.0),
    "hopper-medium-expert": BASE,
    "walker2d-medium": replace(BASE, clip=1.0), "walker2d-medium-replay": replace(BASE, clip=4.0),
    "walker2d-medium-expert": BASE,
    "antmaze-umaze": replace(MAZE, clip=2.0), "antmaze-umaze-diverse": replace(MAZE, clip=3.0),
    "antmaze-medium-play": replace(MAZE, clip=2.0), "antmaze-medium-diverse": replace(MAZE, clip=1.0),
    "antmaze-large-play": replace(MAZE, clip=10.0), "antmaze-large-diverse": replace(MAZE, clip=7.0),
    "pen-human": replace(HAND, clip=7.0), "pen-cloned": replace(HAND, clip=8.0),
    "kitchen-complete": replace(HAND, clip=9.0), "kitchen-partial": replace(HAND, clip=10.0),
    "kitchen-mixed": replace(HAND, clip=10.0),
    "bandit": replace(
        BASE, q_weight=1.0, diffusion_steps=100, lr=1e-3, clip=0.0, width=128, ema_after=0, steps=4_000
    ),
}  # fmt: skip
TARGETS: dict[str, str | float] = {
    "halfcheetah-medium": 52.1, "hopper-medium": 81.9, "walker2d-medium": 86.9,
    "halfcheetah-medium-replay": 49.4, "hopper-medium-replay": 101.0, "walker2d-medium-replay": 94.9,
    "halfcheetah-medium-expert": 95.5, "hopper-medium-expert": 97.4, "walker2d-medium-expert": 110.2,
    "antmaze-umaze": 94.2, "antmaze-umaze-diverse": 79.0, "antmaze-medium-play": 81.8,
    "antmaze-medium-diverse": 82.3, "antmaze-large-play": 42.3, "antmaze-large-diverse": 60.6,
    "pen-human": 72.7, "pen-cloned": 70.0, "kitchen-complete": 75.5, "kitchen-partial": 46.3, "kitchen-mixed": 56.5,
}  # fmt: skip
SYSTEM = System(SOURCE, Config, PRESETS, TARGETS, EDP, train)
