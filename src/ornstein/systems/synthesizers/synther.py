"""SynthER: a diffusion model of whole transitions, sampled to make or enlarge the data set of any off-policy learner.

What tells it apart: one unconditional model of the joint transition (state, action, reward, next state, end), not a
dynamics model; EDM's preconditioning and its stochastic Heun sampler; the learner downstream is left as it is and may
train on synthetic transitions alone.

Deviates: none in the offline method. Ends are only modelled if the data have any.
"""

from copy import deepcopy
from dataclasses import dataclass, replace
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ornstein.data.episodes import Episodes
from ornstein.data.normalize import Gaussian
from ornstein.data.transitions import transitions
from ornstein.diffusion.denoiser import Denoiser, LogSigma, Precondition
from ornstein.diffusion.grid import karras
from ornstein.diffusion.process import Karras, point
from ornstein.diffusion.sampler import Sampler
from ornstein.diffusion.solver import Heun
from ornstein.diffusion.stochastic import Churn
from ornstein.fit import Run, fit
from ornstein.nets.mlp import ResidualMLP
from ornstein.noise import draw, generator
from ornstein.source import Source
from ornstein.system import System
from ornstein.types import Adam, Average, Descend, Draw, Metrics, Noise, Phase, Spaces, Transitions

SOURCE = Source(
    title="Synthetic Experience Replay",
    authors="Lu, Cong and Ball, Philip J and Teh, Yee Whye and Parker-Holder, Jack",
    year=2023,
    venue="Advances in Neural Information Processing Systems",
    arxiv="2303.06614",
    repository="https://github.com/conglu1997/SynthER",
)


@dataclass(frozen=True)
class Config:
    """Settings; the defaults are those of the released offline configuration."""

    width: int = 2048  # 1024 for data sets of less than a million transitions
    blocks: int = 6
    calls: int = 128  # noise levels of the sampler; 2 calls - 1 network evaluations
    sigma_min: float = 0.002
    sigma_max: float = 80.0
    rho: float = 7.0
    churn: float = 80.0  # fresh noise per step (EDM's S_churn), between sigmas churn_min and churn_max
    churn_min: float = 0.05
    churn_max: float = 50.0
    churn_noise: float = 1.003
    noise_mean: float = -1.2  # of ln sigma in training
    noise_std: float = 1.2
    lr: float = 3e-4  # cosine to 0 over the run
    clip: float = 1.0
    ema_rate: float = 0.005
    ema_every: int = 10
    batch_size: int = 1024  # 256 below 800,000 transitions
    generate_batch: int = 100_000
    steps: int = 100_000


class SynthER(nn.Module):
    """The learner and the generator. Rows are (obs, action, reward, next_obs, terminal)."""

    def __init__(self, config: Config, spaces: Spaces) -> None:
        super().__init__()
        self.config, self.spaces, c = config, spaces, config
        self.parts = (spaces.obs, spaces.act, 1, spaces.obs, 1)
        self.size = sum(self.parts)
        self.process = Karras(c.sigma_min, c.sigma_max)
        network = ResidualMLP(self.size, width=c.width, blocks=c.blocks)
        self.denoiser = Denoiser(network, self.process, Precondition(1.0), clock=LogSigma())
        self.ema = deepcopy(self.denoiser).requires_grad_(False)
        self.normalizer = Gaussian(self.size)
        solver = Churn(Heun(), self.process, c.churn / c.calls, c.churn_min, c.churn_max, c.churn_noise)
        self.sampler = Sampler(karras(self.process, c.calls, c.rho), solver, scale=c.sigma_max)

    def phases(self) -> tuple[Phase, ...]:
        """The denoiser and its average."""
        c = self.config
        adam = Adam(c.lr, betas=(0.9, 0.99), clip=c.clip, schedule="cosine")
        draws = {"level": Draw("normal"), "eps": Draw("normal", (self.size,))}
        return (
            Descend("denoiser", self.denoiser, self.denoiser_loss, adam, draws),
            Average(self.ema, self.denoiser, c.ema_rate, every=c.ema_every),
        )

    def denoiser_loss(self, batch: Transitions, noise: Noise) -> tuple[Float[Tensor, ""], Metrics]:
        """EDM's loss at ln sigma ~ N(noise_mean, noise_std^2): weighted so that the network's target has unit
        variance.
        """
        x0 = self.normalizer(self.rows(batch))
        t = self.process.time(-(self.config.noise_mean + self.config.noise_std * noise["level"]))
        return self.denoiser.regression(x0, point(self.process, t, x0), noise["eps"]).mean(), {}

    def rows(self, batch: Transitions) -> Float[Tensor, " b size"]:
        """Transitions as rows, in the data's units."""
        columns = (batch.obs, batch.action, batch.reward.unsqueeze(1), batch.next_obs, batch.terminal.unsqueeze(1))
        return torch.cat(columns, dim=1)

    @torch.no_grad()
    def generate(self, n: int, seed: int = 0) -> Episodes:
        """`n` synthetic transitions, as episodes of one step; the end flag is thresholded at 1/2, nothing else is
        cut.
        """
        need, device, made = self.sampler.needs((self.size,)), self.sampler.t.device, []
        for first in range(0, n, self.config.generate_batch):
            count = min(self.config.generate_batch, n - first)
            noise = draw(need, count, generator("synther", seed, first))
            x = self.sampler(self.ema.given(None), {name: values.to(device) for name, values in noise.items()})
            made.append(self.normalizer.inverse(x).cpu())
        obs, action, reward, next_obs, terminal = torch.cat(made).split(self.parts, dim=1)
        return Episodes.from_transitions(obs, action, reward[:, 0], next_obs=next_obs, terminal=terminal[:, 0] > 0.5)


def train(config: Config, episodes: Episodes, run: Run) -> list[nn.Module]:
    """One stage; the normaliser is fitted on the data first, but for the end flag."""
    make = partial(transitions, drop_unknown_terminal=True)  # a made-up next state must not be learnt
    known = make(episodes)

    def build() -> SynthER:
        agent = SynthER(config, episodes.spaces)
        skip = torch.arange(agent.size) == agent.size - 1
        agent.normalizer.fit(agent.rows(known.gather(torch.arange(len(known)))), skip=skip)
        return agent

    agents = run.build(build)
    data, held_out = run.batches(episodes, make)
    fit(agents, data, steps=config.steps, batch_size=config.batch_size, run=run, validation=held_out)
    return agents


BASE = Config()
PRESETS = {
    "offline": BASE,
    "small-data": replace(BASE, width=1024, batch_size=256),
    "fast": replace(BASE, width=256, blocks=4, calls=32, batch_size=256, lr=1e-3, steps=6_000, generate_batch=10_000),
}
TARGETS: dict[str, str | float] = {
    "halfcheetah-random": 12.2, "halfcheetah-medium-replay": 45.5, "halfcheetah-medium": 49.9,
    "halfcheetah-medium-expert": 87.2,
    "walker2d-random": 2.3, "walker2d-medium-replay": 90.5, "walker2d-medium": 84.8, "walker2d-medium-expert": 110.2,
    "hopper-random": 14.6, "hopper-medium-replay": 53.4, "hopper-medium": 63.4, "hopper-medium-expert": 105.4,
    "maze2d-umaze": 37.6, "maze2d-medium": 65.2, "maze2d-large": 92.5,
}  # fmt: skip
SYSTEM = System(SOURCE, Config, PRESETS, TARGETS, SynthER, train)
