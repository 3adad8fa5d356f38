"""Whole chains and losses as one graph, without a break, equal to eager."""

import pytest
import torch
from torch import nn

from ornstein.diffusion.denoiser import Denoiser, Index, LogSigma, Precondition, V
from ornstein.diffusion.dpm import DPMSolver3, DPMSolverPP2M, DPMSolverPP3M
from ornstein.diffusion.grid import karras, log_snr, uniform
from ornstein.diffusion.process import DiscreteVP, Flow, Karras, LinearVP, point
from ornstein.diffusion.runge_kutta import RungeKutta
from ornstein.diffusion.solver import DDIM, DDPM, Heun, sample
from ornstein.diffusion.stochastic import Churn, EulerMaruyama

pytestmark = pytest.mark.graph
VP, CHAIN, EDM = LinearVP(), DiscreteVP(3), Karras()


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 2)

    def forward(self, x, label, cond):
        return self.layer(torch.cat([x, label[:, None]], 1)).tanh()


@pytest.mark.parametrize(
    ("process", "solver", "grid"),
    [
        (CHAIN, DDPM(), uniform(CHAIN, 3)),
        (CHAIN, DDIM(), uniform(CHAIN, 3)),
        (EDM, Churn(Heun(), EDM, 0.1), karras(EDM, 3)),
        (VP, DPMSolverPP2M(), log_snr(VP, 3)),
        (VP, DPMSolverPP3M(), log_snr(VP, 3)),
        (VP, DPMSolver3(VP), log_snr(VP, 3)),
        (VP, EulerMaruyama(VP), uniform(VP, 3)),
        (Flow(), RungeKutta(Flow(), "midpoint"), uniform(Flow(), 3)),
    ],
    ids=lambda v: type(v).__name__,
)
def test_chains_are_one_graph(process, solver, grid):
    torch.compiler.reset()
    denoiser, x, noise = Denoiser(Network(), process, V()), torch.randn(5, 2), torch.randn(2, 5, 2)

    def chain(x, noise):
        return sample(denoiser, x, grid, solver=solver, noise=noise)

    compiled = torch.compile(chain, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x, noise), chain(x, noise), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("process", "predict", "clock"),
    [(CHAIN, V(), Index(3)), (EDM, Precondition(), LogSigma())],
    ids=lambda v: type(v).__name__,
)
def test_losses_with_their_gradient_are_one_graph(process, predict, clock):
    torch.compiler.reset()
    denoiser = Denoiser(Network(), process, predict, clock=clock)
    x0, t, eps = torch.randn(5, 2), torch.rand(5) * 0.9 + 0.1, torch.randn(5, 2)

    def loss(x0, t, eps):
        return denoiser.regression(x0, point(process, t, x0), eps).mean()

    expected = torch.autograd.grad(loss(x0, t, eps), list(denoiser.parameters()))
    got = torch.autograd.grad(
        torch.compile(loss, fullgraph=True, backend="aot_eager")(x0, t, eps), list(denoiser.parameters())
    )
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-6)
