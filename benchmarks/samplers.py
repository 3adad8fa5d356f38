"""What a solver costs beside the network that it calls: batch 50, 6 actions, the noise network of Diffusion-QL."""

from collections.abc import Callable
from functools import partial
from importlib import import_module
from typing import Any

import torch
from torch import Generator, Tensor

from benchmarks.measure import Race, Row
from ornstein.diffusion.denoiser import Denoiser, Eps, Index
from ornstein.diffusion.dpm import DPMSolverPP2M
from ornstein.diffusion.grid import uniform
from ornstein.diffusion.process import DiscreteVP
from ornstein.diffusion.sampler import Sampler
from ornstein.diffusion.schedule import betas
from ornstein.diffusion.solver import DDIM, DDPM, Solver
from ornstein.nets.mlp import ConditionalMLP
from ornstein.noise import draw, generator
from ornstein.types import Noise

BATCH, ACT, OBS = 50, 6, 17
SOLVERS: dict[str, Solver] = {"DDPM": DDPM(), "DDIM": DDIM(), "DPM++2M": DPMSolverPP2M()}
BAR = 1.10


def rows(quick: bool) -> list[Row]:
    """The time of a sample over that of its network calls alone, for three solvers and four lengths."""
    return [row(name, steps, 9 if quick else 25) for steps in (5, 15, 50, 100) for name in SOLVERS]


def row(name: str, steps: int, turns: int) -> Row:
    """One solver at one number of steps, with the scheduler of `diffusers` beside it."""
    if (off := difference(name, steps)) > 1e-4:
        raise RuntimeError(f"{name} with {steps} steps differs from diffusers by {off:.1e} of the largest entry")
    network, obs = make()
    labels = torch.arange(steps).flip(0).float()[:, None].repeat(1, BATCH)

    @torch.no_grad()
    def bare() -> None:
        x = torch.randn(BATCH, ACT)
        for label in labels:
            network(x, label, obs)

    works = {
        "ours": ours_of(network, obs, name, steps),
        "unprepared": ours_of(network, obs, name, steps, prepare=False),
    }
    race = Race(works | {"network": bare, "usual": peer_of(network, obs, name, steps)}, turns=turns)
    ratio = race.ratio("ours", "network")
    more = {
        "network": race.cpu["network"],
        "unprepared_over_network": race.ratio("unprepared", "network"),
        "diffusers_over_network": race.ratio("usual", "network"),
        "wall_ratio": race.ratio("ours", "network", "wall"),
    }
    return Row(
        f"{name}, {steps} steps, over the network",
        race.cpu["ours"],
        race.cpu["usual"],
        ratio,
        race.cpu["network"],
        f"<= {BAR:g}",
        ratio <= BAR,
        more,
    )


def make() -> tuple[ConditionalMLP, Tensor]:
    """The network, and the states that it is given."""
    torch.manual_seed(0)
    return ConditionalMLP(ACT, OBS), torch.randn(BATCH, OBS)


def ours_of(
    network: ConditionalMLP, obs: Tensor, solver: str, steps: int, noise: Noise | None = None, *, prepare: bool = True
) -> Callable[[], Tensor]:
    """Noise (or that which is given), then the sample, as systems do it; without `prepare` it calls the whole network
    at every step, as a loop around one does.
    """
    chain = DiscreteVP(steps, "vp")
    denoiser = Denoiser(network, chain, Eps(), clock=Index(steps))
    sampler, source = Sampler(uniform(chain, steps), SOLVERS[solver]), generator(0)
    spec = sampler.needs((ACT,))

    @torch.no_grad()
    def run() -> Tensor:
        denoise = denoiser.given(obs) if prepare else partial(denoiser, cond=obs)
        return sampler(denoise, noise or draw(spec, BATCH, source))

    return run


def peer_of(
    network: ConditionalMLP, obs: Tensor, solver: str, steps: int, source: Generator | None = None
) -> Callable[[], Tensor]:
    """The same with `diffusers`."""
    scheduler: Any = scheduler_of(solver, steps)

    @torch.no_grad()
    def run() -> Tensor:
        x = torch.randn(BATCH, ACT, generator=source)
        scheduler.set_timesteps(steps)
        for t in scheduler.timesteps:
            eps = network(x, torch.full((BATCH,), float(t)), obs)
            x = scheduler.step(eps, t, x, generator=source).prev_sample
        return x

    return run


def difference(solver: str, steps: int) -> float:
    """The largest difference to the sample of `diffusers` from the same noise, relative to the largest entry."""
    network, obs = make()
    source = torch.Generator().manual_seed(1)
    theirs = peer_of(network, obs, solver, steps, source)()
    source.manual_seed(1)
    start, *each = (torch.randn(BATCH, ACT, generator=source) for _ in range(steps))
    ours = ours_of(network, obs, solver, steps, {"start": start, "steps": torch.stack(each, 1)})()
    return float((ours - theirs).abs().max() / theirs.abs().max())


def scheduler_of(solver: str, steps: int) -> Any:
    """The scheduler of `diffusers` on the same chain, without the clipping that it has by default."""
    peer: Any = import_module("diffusers")
    shared = {"num_train_timesteps": steps, "trained_betas": betas("vp", steps).float().numpy()}
    if solver == "DDPM":
        return peer.DDPMScheduler(**shared, clip_sample=False)
    if solver == "DDIM":
        return peer.DDIMScheduler(**shared, clip_sample=False, set_alpha_to_one=True)
    return peer.DPMSolverMultistepScheduler(
        **shared, solver_order=2, timestep_spacing="trailing", final_sigmas_type="zero"
    )
