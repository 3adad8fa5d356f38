"""What samples must satisfy: known entries, bounds, and RePaint's way of harmonising the rest with them.

A constraint is a function (x, point, noise) -> x that `sample` applies at the start, after every change of x and to
the result, there with no point. It changes x and nothing else, and is differentiable where x is left alone. Masks are
True where an entry is known.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ornstein.diffusion.grid import Grid
from ornstein.diffusion.solver import DDPM, Solver, make_plan, sample
from ornstein.types import Constrain, Denoise, Point, X


def inpaint(mask: Bool[Tensor, "..."], known: Float[Tensor, "..."]) -> Constrain:
    """Known entries held at their clean values at every level; both tensors broadcast against x.

    Exact for a denoiser that was trained with these entries clean; otherwise an approximation which shrinks the
    influence of what is known. Source: Janner et al. 2022 (2205.09991), section 3.3 and official code.
    """

    def constrain(x: X, point: Point | None, noise: X | None) -> X:
        return torch.where(mask, known, x)

    return constrain


def inpaint_noised(mask: Bool[Tensor, "..."], known: Float[Tensor, "..."]) -> Constrain:
    """Known entries replaced by a fresh draw of the path at the level of x: alpha known + sigma noise.

    For denoisers that know nothing of the mask. Replacement alone tells the rest too little of what is known: see
    `repaint`. Source: Song et al. 2021 (2011.13456), appendix I.2; Lugmayr et al. 2022 (2201.09865), eq. 8.
    """

    def constrain(x: X, point: Point | None, noise: X | None) -> X:
        if point is None:
            return torch.where(mask, known, x)
        if noise is None:
            raise ValueError(
                "inpaint_noised draws known entries at the level of x: pass `constrain_noise` to the sampler"
            )
        return torch.where(mask, point.alpha * known + point.sigma * noise, x)

    return constrain


def bounds(low: float | Float[Tensor, "..."], high: float | Float[Tensor, "..."]) -> Constrain:
    """The finished sample clamped to [low, high]; noisy x are left alone, for they have no such bounds."""

    def constrain(x: X, point: Point | None, noise: X | None) -> X:
        return x.clamp(min=low).clamp(max=high) if point is None else x

    return constrain


def clipped(low: float, high: float) -> Constrain:
    """Every x that a step leads to clamped to [low, high], noisy ones too; pure noise, at t = 1, is left alone.

    An approximation: noisy x do leave the box of the data. Source: Hansen-Estruch et al. 2023 (2304.10573), code.
    """

    def constrain(x: X, point: Point | None, noise: X | None) -> X:
        inside = x.clamp(low, high)
        return inside if point is None else torch.where(point.t.reshape(point.alpha.shape) < 1, inside, x)

    return constrain


def bounded(denoise: Denoise, low: float | Float[Tensor, "..."], high: float | Float[Tensor, "..."]) -> Denoise:
    """The denoiser with x0 clamped to [low, high]: put it around guidance, which leaves the bounds of its parts."""

    def clamped(x_t: X, point: Point) -> X:
        return denoise(x_t, point).clamp(min=low).clamp(max=high)

    return clamped


def in_turn(constraints: Sequence[Constrain]) -> Constrain:
    """All the constraints, one after the other on the same noise: where two disagree, the last one wins."""

    def constrain(x: X, point: Point | None, noise: X | None) -> X:
        for each in constraints:
            x = each(x, point, noise)
        return x

    return constrain


def repaint(
    denoise: Denoise,
    x: X,
    grid: Grid,
    *,
    constrain: Constrain,
    repeats: int = 10,
    jump: int = 10,
    solver: Solver = DDPM(),  # noqa: B008 (a frozen value)
    noise: Float[Tensor, " moves b *x"],
    constrain_noise: Float[Tensor, " visits b *x"] | None = None,
) -> X:
    """Data under a constraint, each `jump` steps down the grid done `repeats` times, with noise put back in between.

    The passes give the free entries time to agree with the known ones; the bias of replacement shrinks with
    `repeats`. The grid is cut into runs of `jump` steps from the noise on; the last, with the denoise, is done once.
    `noise` has one entry per move (a step, or a return to the top of a run) and `constrain_noise` one per step and one
    for the start: `moves` counts them. A return carries the noise of the known entries along.
    Source: Lugmayr et al. 2022 (2201.09865), algorithm 1. Deviates: the official code cuts its runs from the data on.
    """
    steps, returns = moves(len(grid.t), repeats, jump)
    _check(noise, steps + returns, f"noise for {steps} steps and {returns} returns")
    if constrain_noise is not None:
        _check(constrain_noise, steps + 1, f"constrain_noise for the start and {steps} steps")
    known = [] if constrain_noise is None else list(constrain_noise)
    passes, plan = runs(len(grid.t), repeats, jump), make_plan(solver, grid, x)
    moved = done = last = 0
    for i, (first, end) in enumerate(passes):
        if first < last:
            kept, kick, held = _return(grid, last, first, x)
            fresh = kick * noise[moved]
            x = kept * x + fresh
            known[done : done + 1] = [held * old + fresh / plan.levels[first].sigma for old in known[done : done + 1]]
            moved += 1
        n, last = end - first, end
        x = sample(
            denoise,
            x,
            plan.part(first, end),
            solver=solver,
            noise=noise[moved : moved + n],
            constrain=constrain,
            constrain_noise=torch.stack(known[done : done + n + 1]) if known else None,
            finish=i + 1 == len(passes),
        )
        moved, done = moved + n, done + n
    return x


def runs(levels: int, repeats: int, jump: int) -> list[tuple[int, int]]:
    """The passes of `repaint` down a grid, in order, each as its first and last level; a pass may have no step."""
    if repeats < 1 or jump < 1:
        raise ValueError(f"repeats = {repeats} and jump = {jump} count passes and steps: give at least 1")
    whole = (levels - 1) // jump
    repeated = [(i * jump, (i + 1) * jump) for i in range(whole) for _ in range(repeats)]
    return [*repeated, (whole * jump, levels - 1)]


def moves(levels: int, repeats: int, jump: int) -> tuple[int, int]:
    """How many solver steps and how many returns `repaint` makes; beside the steps there is one denoise at the end."""
    passes = runs(levels, repeats, jump)
    return sum(last - first for first, last in passes), sum(b[0] < a[1] for a, b in pairwise(passes))


def _return(grid: Grid, now: int, then: int, like: X) -> tuple[Tensor, Tensor, Tensor]:
    """Weights of x and of fresh noise on the path from a level to a noisier one, and of the old noise in the new."""
    kept = grid.alpha[then] / grid.alpha[now]
    kick = torch.sqrt(grid.sigma[then] ** 2 - (kept * grid.sigma[now]) ** 2)
    return kept.to(like), kick.to(like), (kept * grid.sigma[now] / grid.sigma[then]).to(like)


def _check(given: Tensor, entries: int, what: str) -> None:
    if len(given) != entries:
        raise ValueError(f"{what} needs {entries} entries, got {len(given)}: `moves` counts them")
