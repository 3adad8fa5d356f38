"""The sampling loop: what is called, when, with which level and noise; precision, plans, gradients, seeds."""

from functools import partial

import pytest
import torch
from torch import nn

from oracles.gaussian import MIXTURE, Gaussian, normal_quantiles
from ornstein.diffusion.denoiser import Continuous, Denoiser, Eps, V
from ornstein.diffusion.dpm import DPMSolver2, DPMSolver2M, DPMSolver3, DPMSolverPP2M, DPMSolverPP3M
from ornstein.diffusion.grid import Grid, karras, log_snr, uniform
from ornstein.diffusion.process import DiscreteVP, Flow, Karras, LinearVP, point
from ornstein.diffusion.runge_kutta import RK45, RungeKutta
from ornstein.diffusion.solver import DDIM, DDPM, Euler, Heun, make_plan, sample, start_and_noise, trace, unpack
from ornstein.diffusion.stochastic import Churn, EulerMaruyama
from ornstein.types import Draw

DOUBLE = torch.float64
VP = LinearVP()
SOLVERS = [
    DDIM(), DDIM(0.5), DDPM(), Euler(), Heun(), DPMSolverPP2M(), DPMSolverPP2M(1.0), DPMSolver2M(), DPMSolverPP3M(),
    DPMSolverPP3M("eps"), DPMSolver2(VP), DPMSolver2(VP, "x0"), DPMSolver3(VP), DPMSolver3(VP, "x0"),
    Churn(Heun(), VP, 0.2), Churn(Euler(), VP, 0.2), EulerMaruyama(VP), RungeKutta(VP, "midpoint"), RungeKutta(VP),
]  # fmt: skip


def noise_for(solver, steps: int, like: torch.Tensor) -> torch.Tensor | None:
    source = torch.Generator().manual_seed(1)
    draws = [torch.randn(like.shape, generator=source, dtype=DOUBLE).to(like) for _ in range(steps)]
    return torch.stack(draws) if solver.draws and steps else (torch.zeros(0, *like.shape) if solver.draws else None)


@pytest.mark.parametrize("solver", SOLVERS, ids=lambda v: type(v).__name__)
@pytest.mark.parametrize("n", [1, 4])
def test_solvers_make_the_calls_that_they_declare(solver, n):
    calls = []

    def denoise(x, level):
        assert level.t.shape == (3,) and level.alpha.shape == level.sigma.shape == (3, 1, 1)
        calls.append(level)
        return MIXTURE.denoise(x, level)

    x = torch.ones(3, 2, 2, dtype=DOUBLE)
    out = sample(denoise, x, log_snr(VP, n), solver=solver, noise=noise_for(solver, n - 1, x))
    assert len(calls) == (n - 1) * solver.calls + 1
    assert out.shape == x.shape and torch.isfinite(out).all()


class Recorded(nn.Module):
    """A network, also prepared for several times at once; it counts what is asked of it."""

    def __init__(self) -> None:
        super().__init__()
        self.plain, self.prepared = 0, 0

    def forward(self, x, t, cond):
        self.plain += 1
        return x + torch.sin(t)[:, None] * cond

    def at(self, t, cond):
        self.prepared += 1
        return [partial(torch.add, torch.sin(each) * cond) for each in t]


@pytest.mark.parametrize("solver", SOLVERS, ids=lambda v: type(v).__name__)
def test_a_denoiser_prepared_for_all_levels_gives_the_same_sample(solver):
    network, x, cond = Recorded(), normal_quantiles(3).reshape(-1, 1), torch.tensor([[0.7]], dtype=DOUBLE)
    denoiser = Denoiser(network, VP, Eps(), clock=Continuous(3.0), bound=2.0)
    grid, noise = log_snr(VP, 4), noise_for(solver, 3, x)
    result = sample(denoiser.given(cond), x, grid, solver=solver, noise=noise)
    rest = network.plain  # the calls at levels that were not known beforehand
    plain = sample(lambda x, level: denoiser(x, level, cond), x, grid, solver=solver, noise=noise)
    assert network.prepared == 1 and rest < network.plain - rest == 3 * solver.calls + 1
    torch.testing.assert_close(result, plain)


@pytest.mark.parametrize("solver", SOLVERS, ids=lambda v: type(v).__name__)
def test_every_level_that_is_asked_for_lies_on_the_path(solver):
    def denoise(x, level):
        alpha, sigma = VP.rates(level.t)
        torch.testing.assert_close(level.alpha.flatten(), alpha)
        torch.testing.assert_close(level.sigma.flatten(), sigma)
        return MIXTURE.denoise(x, level)

    x = normal_quantiles(3)
    sample(denoise, x, log_snr(VP, 4), solver=solver, noise=noise_for(solver, 3, x))


@pytest.mark.parametrize("solver", SOLVERS, ids=lambda v: type(v).__name__)
def test_steps_one_at_a_time_equal_the_tabulated_grid(solver):
    """Also with levels for each sample, as (b, 1) tensors."""
    x, grid = normal_quantiles(5), log_snr(VP, 6)
    noise = noise_for(solver, 5, x)
    whole = sample(MIXTURE.denoise, x, grid, solver=solver, noise=noise, finish=False)
    memory = solver.init(x)
    for i in range(5):
        now, then = (point(VP, grid.t[j].expand(5), x) for j in (i, i + 1))
        x, memory = solver.step(MIXTURE.denoise, x, now, then, None if noise is None else noise[i], memory)
    torch.testing.assert_close(x, whole, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("solver", SOLVERS, ids=lambda v: type(v).__name__)
def test_gradients_flow_through_the_whole_chain(solver):
    """Against finite differences in a parameter of the denoiser and in the start."""
    x, grid = normal_quantiles(3), log_snr(VP, 4)
    noise = noise_for(solver, 3, x)

    def out(both):
        return sample(
            lambda x, p: both[0] * MIXTURE.denoise(x, p), x + both[1], grid, solver=solver, noise=noise
        ).square().sum()  # fmt: skip

    both = torch.tensor([0.9, 0.1], dtype=DOUBLE, requires_grad=True)
    (gradient,) = torch.autograd.grad(out(both), both)
    for i in range(2):
        step = torch.eye(2, dtype=DOUBLE)[i] * 1e-6
        expected = (out(both.detach() + step) - out(both.detach() - step)) / 2e-6
        assert gradient[i].item() == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize("solver", SOLVERS, ids=lambda v: type(v).__name__)
def test_many_seeds_at_once_equal_one_after_the_other(solver):
    """A leading axis of network parameters, under vmap; the start without that axis."""
    net = nn.Linear(2, 2).double()
    x, grid = torch.ones(4, 2, dtype=DOUBLE), log_snr(VP, 4)
    noise = noise_for(solver, 3, x)

    def chain(weight):
        def network(x, label, cond):
            return torch.func.functional_call(net, {"weight": weight}, (x,)) * label[:, None]

        return sample(Denoiser(network, VP, V()), x, grid, solver=solver, noise=noise)

    weights = torch.stack([0.5 * net.weight.detach(), -net.weight.detach()])
    together = torch.func.vmap(chain)(weights)
    for one, weight in zip(together, weights, strict=True):
        torch.testing.assert_close(one, chain(weight), rtol=1e-11, atol=1e-11)


def test_single_precision_rounds_a_double_table():
    """1 - abar of neighbours in a chain of a thousand would lose its digits in single precision."""
    chain = DiscreteVP(1000, "linear")
    grid, x = uniform(chain, 1000), torch.ones(2, 3)
    rows = make_plan(DDPM(), grid, x).rows
    exact = make_plan(DDPM(), grid, x.double()).rows
    for row, expected in zip(rows, exact, strict=True):
        for entry, value in zip(row, expected, strict=True):
            assert entry.dtype == torch.float32 and entry.shape == (1, 1)
            assert entry.item() == pytest.approx(value.item(), rel=1e-7)


def test_a_plan_stands_for_its_grid():
    x, grid = normal_quantiles(4), uniform(Flow(), 5)
    plan = make_plan(DPMSolverPP2M(), grid, x)
    assert len(plan.levels) == 5 and len(plan.rows) == 4
    assert [level.t[0].item() for level in plan.levels] == grid.t.tolist()
    expected = sample(MIXTURE.denoise, x, grid, solver=DPMSolverPP2M())
    assert torch.equal(sample(MIXTURE.denoise, x, plan, solver=DPMSolverPP2M()), expected)
    assert torch.equal(trace(MIXTURE.denoise, x, plan, solver=DPMSolverPP2M())[-1], expected)


def test_trace_holds_every_state():
    x, grid = normal_quantiles(4), uniform(Flow(), 5)
    states = trace(MIXTURE.denoise, x, grid)
    assert states.shape == (6, 4, 1)
    assert torch.equal(states[0], x)
    for i in range(1, 5):
        head = Grid(*(entry[: i + 1] for entry in grid))
        torch.testing.assert_close(states[i], sample(MIXTURE.denoise, x, head, finish=False))
    assert torch.equal(states[5], sample(MIXTURE.denoise, x, grid))
    assert trace(MIXTURE.denoise, x, grid, finish=False).shape == (5, 4, 1)


def test_trace_passes_everything_on():
    x, grid, noise = normal_quantiles(4), uniform(Flow(), 3), torch.ones(2, 4, 1, dtype=DOUBLE)
    levels = torch.arange(3.0, dtype=DOUBLE).reshape(3, 1, 1).expand(3, 4, 1)
    settings = {
        "solver": DDPM(), "noise": noise, "shift": lambda x, now, then: x + 0.1,
        "constrain": lambda x, p, z: x if z is None else x + z, "constrain_noise": levels,
    }  # fmt: skip
    states = trace(MIXTURE.denoise, x, grid, **settings)
    assert torch.equal(states[-1], sample(MIXTURE.denoise, x, grid, **settings))
    assert torch.equal(states[-2], sample(MIXTURE.denoise, x, grid, **settings, finish=False))


def test_shift_and_constrain_come_at_their_places():
    """Start, then for each step shift and step, then the result: a constraint after every change, with its level."""
    events, grid = [], uniform(Flow(), 3)
    held = torch.arange(3.0, dtype=DOUBLE).reshape(3, 1, 1)

    def denoise(x, p):
        events.append(("denoise", round(p.t.item(), 3)))
        return x

    def shift(x, now, then):
        events.append(("shift", round(now.t.item(), 3), round(then.t.item(), 3)))
        return x + 100

    def constrain(x, p, noise):
        events.append(("hold", None if p is None else round(p.t.item(), 3), None if noise is None else noise.item()))
        return x + 1

    x = torch.zeros(1, 1, dtype=DOUBLE)
    out = sample(denoise, x, grid, solver=Euler(), shift=shift, constrain=constrain, constrain_noise=held)
    assert events == [
        ("hold", 1.0, 0.0),
        ("shift", 1.0, 0.667), ("hold", 1.0, 0.0), ("denoise", 1.0), ("hold", 0.667, 1.0),
        ("shift", 0.667, 0.333), ("hold", 0.667, 1.0), ("denoise", 0.667), ("hold", 0.333, 2.0),
        ("denoise", 0.333), ("hold", None, None),
    ]  # fmt: skip
    assert out.item() == pytest.approx(206.0), "the identity as a denoiser keeps x: what is left is what was added"
    events.clear()
    sample(denoise, x, grid, solver=Euler(), constrain=constrain, finish=False)
    assert events[::2] == [("hold", 1.0, None), ("hold", 0.667, None), ("hold", 0.333, None)]
    assert events[1::2] == [("denoise", 1.0), ("denoise", 0.667)]


def test_noise_is_used_step_by_step():
    data, grid = Gaussian(0.0, 0.0), uniform(DiscreteVP(5), 3)
    noise = torch.zeros(2, 1, 1, dtype=DOUBLE)
    noise[1] = 1.0
    x = trace(data.denoise, torch.zeros(1, 1, dtype=DOUBLE), grid, solver=DDPM(), noise=noise, finish=False)
    assert x[1].item() == 0.0
    assert x[2].item() == pytest.approx(make_plan(DDPM(), grid, noise[0]).rows[1][2].item())


def test_solvers_that_draw_nothing_ignore_noise():
    x, grid = normal_quantiles(4), uniform(Flow(), 4)
    noisy = sample(MIXTURE.denoise, x, grid, solver=DDIM(), noise=torch.full((3, 4, 1), torch.nan, dtype=DOUBLE))
    assert torch.equal(noisy, sample(MIXTURE.denoise, x, grid, solver=DDIM()))


@pytest.mark.parametrize(("noise", "given"), [(None, "none"), (torch.zeros(3, 4, 1), "3 entries")])
def test_missing_noise_is_named(noise, given):
    with pytest.raises(ValueError, match=rf"DDPM.* on 3 levels needs noise with 2 entries, one per step; got {given}"):
        sample(MIXTURE.denoise, torch.zeros(4, 1), uniform(Flow(), 3), solver=DDPM(), noise=noise)


def test_noise_is_declared_and_unpacked():
    assert start_and_noise((7, 2), 5, DDPM()) == {"start": Draw("normal", (7, 2)), "steps": Draw("normal", (4, 7, 2))}
    assert start_and_noise((2,), 5, DDIM()) == {"start": Draw("normal", (2,))}
    assert start_and_noise((2,), 1, DDPM()) == {"start": Draw("normal", (2,))}
    assert start_and_noise((2,), 2, DDPM()) == {"start": Draw("normal", (2,)), "steps": Draw("normal", (1, 2))}
    start, steps = unpack({"start": torch.full((3, 2), 2.0), "steps": torch.arange(24.0).reshape(3, 4, 2)}, scale=80.0)
    assert start.tolist() == [[160.0, 160.0]] * 3
    assert steps is not None and steps.shape == (4, 3, 2)
    assert steps[1].tolist() == [[2.0, 3.0], [10.0, 11.0], [18.0, 19.0]]
    start, steps = unpack({"start": torch.full((3, 2), 2.0)})
    assert start.tolist() == [[2.0, 2.0]] * 3 and steps is None


def test_the_defaults_sample_with_ddim_to_the_end():
    x, grid = normal_quantiles(4), uniform(Flow(), 4)
    expected = sample(MIXTURE.denoise, x, grid, solver=DDIM(0.0), finish=True)
    assert torch.equal(sample(MIXTURE.denoise, x, grid), expected)


def test_trajectories_and_actions_share_the_solvers():
    """Each entry of x is its own problem under a factorised denoiser."""
    x = torch.linspace(-2, 2, 24, dtype=DOUBLE).reshape(2, 3, 4)
    grid = karras(Karras(), 5)
    out = sample(MIXTURE.denoise, 80 * x, grid, solver=Heun())
    flat = sample(MIXTURE.denoise, 80 * x.reshape(24, 1), grid, solver=Heun())
    torch.testing.assert_close(out.flatten(), flat.flatten())


@pytest.mark.parametrize(
    "solver",
    [DPMSolverPP2M(), DPMSolverPP2M(1.0), DPMSolverPP3M(), DPMSolver2(Flow(), "x0"), DPMSolver3(Flow(), "x0"),
     Churn(Heun(), Flow(), 0.2), RungeKutta(Flow()), RK45(Flow())],
    ids=lambda v: type(v).__name__,
)  # fmt: skip
def test_all_that_can_start_from_pure_noise_do_so_in_single_precision(solver):
    x = normal_quantiles(9).float()
    noise = noise_for(solver, 5, x)
    out = sample(MIXTURE.denoise, x, uniform(Flow(), 6), solver=solver, noise=noise)
    assert out.dtype == torch.float32
    exact = sample(
        MIXTURE.denoise, x.double(), uniform(Flow(), 6), solver=solver, noise=None if noise is None else noise.double()
    )
    torch.testing.assert_close(out.double(), exact, rtol=1e-3, atol=1e-4)
    assert exact.abs().max() < 3


def test_a_denoiser_samples_in_its_own_parameterisation():
    """A network that knows the exact eps of a Gaussian: x0 through Eps() agrees with the closed form."""
    data = Gaussian(1.0, 0.5)

    def network(x, label, cond):
        level = point(VP, label, x)
        return (x - level.alpha * data.denoise(x, level)) / level.sigma

    x, grid = normal_quantiles(5), log_snr(VP, 6)
    got = sample(Denoiser(network, VP, Eps(), clock=Continuous()), x, grid)
    torch.testing.assert_close(got, sample(data.denoise, x, grid), rtol=1e-8, atol=1e-8)


def test_only_the_first_shifts_are_made():
    moved = []

    def shift(x, now, then):
        moved.append(now.t[0].item())
        return x

    grid = uniform(VP, 5)
    for shifts, expected in ((None, 4), (4, 4), (2, 2), (0, 0)):
        moved.clear()
        sample(MIXTURE.denoise, normal_quantiles(3), grid, solver=Euler(), shift=shift, shifts=shifts)
        assert moved == grid.t[:expected].tolist()
