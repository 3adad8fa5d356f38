"""Diffusion-QL: a five-step diffusion policy, regularised by its own denoising loss and improved through the whole
chain.

The diffusion loss on the data's actions is the regulariser; the critic's gradient flows back through every denoising
step. What tells it apart: gradient through all steps of a short chain that is the same in training, targets and
acting; the Q term scaled by the other critic's mean magnitude, the roles drawn by a coin; the averaged actor used for
Bellman targets only; acting draws one of 50 candidates by a softmax of the target critics' minimum.

Deviates: actions are scaled to [-1, 1] by the environment's box, the identity for the published tasks. The learning
rate is constant: the official cosine decay is advanced once per 50 epochs and changes it by a thousandth. Checkpoints
are the last ones unless a score is asked for; the paper's table picks the best evaluation by true return. D4RL's mazes
are learned with the goal in the observation.
"""

from dataclasses import dataclass, replace
from typing import Any, Literal

from jaxtyping import Float
from torch import Tensor, nn

from ornstein.actor import DiffusionActor, candidate_target, choice_noise, drawn_action, fit_transitions
from ornstein.data.episodes import Episodes
from ornstein.data.normalize import Gaussian
from ornstein.data.reward import Transform
from ornstein.diffusion.process import DiscreteVP
from ornstein.fit import Run
from ornstein.nets.mlp import ConditionalMLP
from ornstein.rl.action import ActionBox
from ornstein.rl.average import frozen
from ornstein.rl.critic import Critics, regression, scaled_value
from ornstein.source import Source
from ornstein.system import System
from ornstein.types import Adam, Average, Descend, Draw, Metrics, Noise, Phase, Spaces, Transitions

SOURCE = Source(
    title="Diffusion Policies as an Expressive Policy Class for Offline Reinforcement Learning",
    authors="Wang, Zhendong and Hunt, Jonathan J and Zhou, Mingyuan",
    year=2023,
    venue="International Conference on Learning Representations",
    arxiv="2208.06193",
    repository="https://github.com/Zhendong-Wang/Diffusion-Policies-for-Offline-RL",
)


@dataclass(frozen=True)
class Config:
    """Settings; the defaults are those of the paper's locomotion tasks (its table of hyper-parameters)."""

    eta: float = 1.0  # weight of the Q term; 0 leaves behaviour cloning with the same critic and selection
    clip: float = 5.0  # largest gradient norm of actor and critic; 0: none
    lr: float = 3e-4  # of the actor
    critic_lr: float = 3e-4
    schedule: Literal["constant", "cosine"] = "constant"  # of both rates; "cosine" ends at 0
    diffusion_steps: int = 5  # of the chain, in training, targets and acting alike
    discount: float = 0.99
    n_step: int = 1  # length of returns before the bootstrap
    backup_candidates: int = 1  # actions per next state in the target; 10 for sparse tasks (max-Q backup)
    candidates: int = 50  # actions among which acting draws
    ema_rate: float = 0.005  # share of the new weights in both averages
    ema_every: int = 5  # updates between averages of the actor
    ema_after: int = 1000  # updates before which the averaged actor keeps its first weights
    reward: Transform = "none"  # how rewards are changed
    standardize: bool = False  # observations to mean 0 and deviation 1 over the data
    layer_norm: bool = False  # in the critics
    width: int = 256
    activation: str = "mish"
    batch_size: int = 256
    steps: int = 2_000_000  # gradient steps


class DiffusionQL(nn.Module):
    """The learner and the policy."""

    def __init__(self, config: Config, spaces: Spaces) -> None:
        super().__init__()
        self.config, self.spaces = config, spaces
        size, net = spaces.obs + spaces.goal, {"width": config.width, "activation": config.activation}
        network = ConditionalMLP(spaces.act, size, **net)
        self.actor = DiffusionActor(network, DiscreteVP(config.diffusion_steps, "vp"), spaces.act)
        self.actor_ema = frozen(self.actor)
        self.critics = Critics(size, spaces.act, layer_norm=config.layer_norm, **net)
        self.critics_target = frozen(self.critics)
        self.inputs, self.box = Gaussian(size), ActionBox(spaces)
        self.noise = choice_noise(self.actor, config.candidates)

    def phases(self) -> tuple[Phase, ...]:
        """Critic, actor, averaged actor, target critics: the official order."""
        c, actor = self.config, self.actor
        adam = {"clip": c.clip, "schedule": c.schedule}
        draws = {**actor.draws, "coin": Draw("uniform", per="update"), **actor.needs()}
        return (
            Descend(
                "critic", self.critics, self.critic_loss, Adam(c.critic_lr, **adam), actor.needs(c.backup_candidates)
            ),
            Descend("actor", actor, self.actor_loss, Adam(c.lr, **adam), draws),
            Average(self.actor_ema.denoiser, actor.denoiser, c.ema_rate, every=c.ema_every, after=c.ema_after),
            Average(self.critics_target, self.critics, c.ema_rate),
        )

    def critic_loss(self, batch: Transitions, noise: Noise) -> tuple[Float[Tensor, ""], Metrics]:
        """Both critics' squared error against r + gamma min_i max_k Q_i'(s', a_k), with a_k from the averaged actor."""
        target = candidate_target(self.critics_target, self.actor_ema, batch, noise)
        return regression(self.critics, batch.obs, self.box.to_unit(batch.action), target)

    def actor_loss(self, batch: Transitions, noise: Noise) -> tuple[Float[Tensor, ""], Metrics]:
        """L_diffusion + eta L_q (eq. 3 of the paper), with L_q = - mean Q_i(s, a) / mean |Q_j(s, a)|, (i, j) by a coin.

        That scale is the official code's; the paper divides by the mean of |Q| over the data.
        """
        cloning = self.actor.cloning(batch.obs, self.box.to_unit(batch.action), noise).mean()
        if self.config.eta == 0:  # the control arm: the critic selects candidates, but does not teach the actor
            return cloning, {"cloning": cloning}
        q = self.critics(batch.obs, self.actor(batch.obs, noise))
        improve = -scaled_value(q, noise["coin"])
        return cloning + self.config.eta * improve, {"cloning": cloning, "improve": improve}

    def start(self, n_envs: int) -> tuple[()]:
        """Nothing is remembered."""
        return ()

    def act(self, obs: Float[Tensor, " n obs"], carry: Any, noise: Noise) -> tuple[Float[Tensor, " n act"], Any]:
        """One of the online actor's candidates, drawn by a softmax of the target critics' minimum."""
        obs = self.inputs(obs)
        return self.box.to_env(drawn_action(self.actor, self.critics_target, obs, noise)), carry


def train(config: Config, episodes: Episodes, run: Run) -> list[nn.Module]:
    """One stage: both networks together."""
    return fit_transitions(lambda e: DiffusionQL(config, e.spaces), config, episodes, run)


BASE = Config()
MAZE = Config(backup_candidates=10, reward="antmaze-cql", steps=1_000_000)
PEN = Config(lr=3e-5, reward="standardized", steps=1_000_000)
PRESETS = {
    "locomotion": BASE,
    "fast": replace(BASE, activation="silu", steps=30_000),  # a CPU's; SiLU costs a ninth of Mish there
    "replay-cpu": replace(  # tens of thousands of transitions, minutes of one core
        BASE,
        standardize=True,
        layer_norm=True,
        eta=0.1,  # at 1 the actor climbs the errors of a critic that has seen this little
        activation="silu",
        clip=4.0,
        lr=1e-3,
        critic_lr=1e-3,
        schedule="cosine",
        n_step=5,
        ema_rate=0.01,
        width=128,
        batch_size=128,
        steps=5_000,
    ),
    "halfcheetah-medium": replace(BASE, clip=9.0),
    "halfcheetah-medium-replay": replace(BASE, clip=2.0),
    "halfcheetah-medium-expert": replace(BASE, clip=7.0),
    "hopper-medium": replace(BASE, clip=9.0),
    "hopper-medium-replay": replace(BASE, clip=4.0),
    "hopper-medium-expert": replace(BASE, clip=5.0),
    "walker2d-medium": replace(BASE, clip=1.0),
    "walker2d-medium-replay": replace(BASE, clip=4.0),
    "walker2d-medium-expert": replace(BASE, clip=5.0),
    "antmaze-umaze": replace(MAZE, eta=0.5, clip=2.0, backup_candidates=1),
    "antmaze-umaze-diverse": replace(MAZE, eta=2.0, clip=3.0),
    "antmaze-medium-play": replace(MAZE, eta=2.0, clip=2.0, lr=1e-3),
    "antmaze-medium-diverse": replace(MAZE, eta=3.0, clip=1.0),
    "antmaze-large-play": replace(MAZE, eta=4.5, clip=10.0),
    "antmaze-large-diverse": replace(MAZE, eta=3.5, clip=7.0),
    "pen-human": replace(PEN, eta=0.15, clip=7.0),
    "pen-cloned": replace(PEN, eta=0.1, clip=8.0),
    "kitchen-complete": replace(BASE, eta=0.005, clip=9.0, steps=250_000),
    "kitchen-partial": replace(BASE, eta=0.005, clip=10.0, steps=1_000_000),
    "kitchen-mixed": replace(BASE, eta=0.005, clip=10.0, steps=1_000_000),
    "bandit": replace(BASE, eta=0.2, lr=1e-3, clip=0.0, diffusion_steps=20, width=128, ema_after=0, steps=3_000),
}
TARGETS: dict[str, str | float] = {
    "halfcheetah-medium": "51.1 +- 0.5", "hopper-medium": "90.5 +- 4.6", "walker2d-medium": "87.0 +- 0.9",
    "halfcheetah-medium-replay": "47.8 +- 0.3", "hopper-medium-replay": "101.3 +- 0.6",
    "walker2d-medium-replay": "95.5 +- 1.5",
    "halfcheetah-medium-expert": "96.8 +- 0.3", "hopper-medium-expert": "111.1 +- 1.3",
    "walker2d-medium-expert": "110.1 +- 0.3",
    "antmaze-umaze": "93.4 +- 3.4", "antmaze-umaze-diverse": "66.2 +- 8.6", "antmaze-medium-play": "76.6 +- 10.8",
    "antmaze-medium-diverse": "78.6 +- 10.3", "antmaze-large-play": "46.4 +- 8.3",
    "antmaze-large-diverse": "56.6 +- 7.6",
    "pen-human": "72.8 +- 9.6", "pen-cloned": "57.3 +- 11.9", "kitchen-complete": "84.0 +- 7.4",
    "kitchen-partial": "60.5 +- 6.9", "kitchen-mixed": "62.6 +- 5.1",
}  # fmt: skip
SYSTEM = System(SOURCE, Config, PRESETS, TARGETS, DiffusionQL, train)
