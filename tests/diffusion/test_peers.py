"""The schedulers of `diffusers` as a second implementation of the same samplers, in double precision, unclipped."""

from typing import Any

import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    HeunDiscreteScheduler,
)

from oracles.gaussian import MIXTURE, normal_quantiles
from ornstein.diffusion.dpm import DPMSolver2M, DPMSolverPP2M, DPMSolverPP3M
from ornstein.diffusion.grid import Grid, strided
from ornstein.diffusion.process import DiscreteVP
from ornstein.diffusion.schedule import betas
from ornstein.diffusion.solver import DDIM, DDPM, Euler, Heun, sample
from ornstein.types import Point

DOUBLE = torch.float64
CHAIN = DiscreteVP(1000, "linear")
SHARED: dict[str, Any] = {"num_train_timesteps": 1000, "trained_betas": betas("linear", 1000).numpy()}
START = normal_quantiles(17)


def noise(n: int) -> torch.Tensor:
    source = torch.Generator().manual_seed(7)
    return torch.stack([torch.randn(17, 1, generator=source, dtype=DOUBLE) for _ in range(n)])


def eps_of(x: torch.Tensor, abar: torch.Tensor) -> torch.Tensor:
    """The exact noise of the mixture at a squared alpha."""
    alpha, sigma = abar.double().sqrt().reshape(1, 1), (1 - abar.double()).sqrt().reshape(1, 1)
    return (x - alpha * MIXTURE.denoise(x, Point(abar.reshape(1), alpha, sigma))) / sigma


def run(scheduler: Any, n: int, noises: torch.Tensor | None = None) -> torch.Tensor:
    """What the scheduler makes of the start, with the exact noise prediction."""
    scheduler.set_timesteps(n)
    assert len(scheduler.timesteps) == n
    x = START
    for i, t in enumerate(scheduler.timesteps):
        eps = eps_of(x, scheduler.alphas_cumprod[int(t)])
        extra = {} if noises is None else {"variance_noise": noises[i]}
        x = scheduler.step(eps, t, x, **extra).prev_sample
    return x


@pytest.mark.parametrize(("spacing", "ours"), [("trailing", "trailing"), ("leading", "leading")])
def test_ddim(spacing, ours):
    """Both spacings; `diffusers` takes the neighbour by a fixed stride, which is ours where the stride divides T."""
    theirs = run(DDIMScheduler(**SHARED, clip_sample=False, timestep_spacing=spacing, set_alpha_to_one=True), 20)
    torch.testing.assert_close(sample(MIXTURE.denoise, START, strided(CHAIN, 20, ours)), theirs, rtol=0, atol=2e-5)


def test_ddim_with_noise():
    scheduler = DDIMScheduler(**SHARED, clip_sample=False, timestep_spacing="trailing", set_alpha_to_one=True)
    scheduler.set_timesteps(20)
    draws, x = noise(20), START
    for i, t in enumerate(scheduler.timesteps):
        eps = eps_of(x, scheduler.alphas_cumprod[int(t)])
        x = scheduler.step(eps, t, x, eta=0.6, variance_noise=draws[i]).prev_sample
    grid = strided(CHAIN, 20)
    ours = sample(MIXTURE.denoise, START, grid, solver=DDIM(0.6), noise=draws[:19])
    torch.testing.assert_close(ours, x, rtol=0, atol=2e-5)


@pytest.mark.parametrize("variance", ["small", "large"])
def test_ddpm(variance):
    """All 50 steps of a short chain: `diffusers` draws from a generator, in our order."""
    chain = DiscreteVP(50, "cosine")
    scheduler = DDPMScheduler(
        50, trained_betas=betas("cosine", 50).numpy(), variance_type=f"fixed_{variance}", clip_sample=False
    )
    scheduler.set_timesteps(50)
    source, x = torch.Generator().manual_seed(7), START
    for t in scheduler.timesteps:
        x = scheduler.step(eps_of(x, scheduler.alphas_cumprod[int(t)]), t, x, generator=source).prev_sample
    ours = sample(MIXTURE.denoise, START, strided(chain, 50), solver=DDPM(variance), noise=noise(49))
    torch.testing.assert_close(ours, x, rtol=0, atol=1e-3)


@pytest.mark.parametrize(
    ("algorithm", "order", "solver"),
    [
        ("dpmsolver++", 1, DDIM()),
        ("dpmsolver++", 2, DPMSolverPP2M()),
        ("dpmsolver++", 3, DPMSolverPP3M(compat=True)),
        ("dpmsolver", 2, DPMSolver2M()),
        ("dpmsolver", 3, DPMSolverPP3M("eps", compat=True)),
        ("sde-dpmsolver++", 2, DPMSolverPP2M(1.0)),
    ],
)
def test_multistep_dpm_solvers(algorithm, order, solver):
    """Theirs halves the second difference of order 3, as the official code does; so does ours when told to."""
    scheduler = DPMSolverMultistepScheduler(
        **SHARED, algorithm_type=algorithm, solver_order=order, timestep_spacing="trailing", lower_order_final=False,
        final_sigmas_type="sigma_min",
    )  # fmt: skip
    draws = noise(20)
    theirs = run(scheduler, 20, draws if solver.draws else None)
    grid, last = strided(CHAIN, 20), CHAIN.rates(torch.tensor([1e-3], dtype=DOUBLE))
    longer = Grid(*(torch.cat([old, new]) for old, new in zip(grid, (torch.tensor([1e-3]), *last), strict=True)))
    ours = sample(MIXTURE.denoise, START, longer, solver=solver, noise=draws, finish=False)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=2e-4)


@pytest.mark.parametrize("name", ["Euler", "Heun", "ancestral"])
def test_samplers_in_sigma(name):
    """k-diffusion's, on x / alpha: the variance exploding path with the chain's own levels."""
    kinds: dict[str, tuple[Any, Any]] = {
        "Euler": (EulerDiscreteScheduler, Euler()),
        "Heun": (HeunDiscreteScheduler, Heun()),
        "ancestral": (EulerAncestralDiscreteScheduler, DDIM(1.0)),
    }
    kind, solver = kinds[name]
    scheduler = kind(**SHARED, timestep_spacing="trailing")
    scheduler.set_timesteps(20)
    levels, source = strided(CHAIN, 20), torch.Generator().manual_seed(7)
    grid = Grid(levels.t, torch.ones(20, dtype=DOUBLE), levels.sigma / levels.alpha)
    start = START * grid.sigma[0]
    x = start
    for t in scheduler.timesteps:
        shown = scheduler.scale_model_input(x, t)
        sigma = scheduler.sigmas[scheduler.step_index].double()
        extra = {"generator": source} if name == "ancestral" else {}
        x = scheduler.step(eps_of(shown, 1 / (1 + sigma**2)), t, x, **extra).prev_sample
    ours = sample(MIXTURE.denoise, start, grid, solver=solver, noise=noise(19))
    torch.testing.assert_close(ours, x.double(), rtol=0, atol=1e-3)
