import math
from collections.abc import Callable
from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn

from oracles.gaussian import Gaussian, Mixture
from ornstein.diffusion.likelihood import Adaptive, Fixed, divergence, flow_rates, log_likelihood, rademacher
from ornstein.diffusion.process import VE, CosineVP, DiscreteVP, Flow, Karras, LinearVP, SubVP, point
from ornstein.types import Denoise, Point, Process

VP = LinearVP()
DATA = Mixture()
POINTS = torch.tensor([-2.0, -1.0, -0.25, 0.0, 0.8, 1.5], dtype=torch.float64)[:, None]


def at(process: Process, t: float, like: Tensor) -> Point:
    return point(process, torch.full((len(like),), t, dtype=like.dtype), like)


def law(data: Gaussian | Mixture, process: Process, t: float) -> Callable[[Tensor], Tensor]:
    """The exact log density of a sample at time t."""
    return lambda x: data.log_prob(x, at(process, t, x)).flatten(1).sum(1)


def unit(x: Tensor) -> Tensor:
    return (-0.5 * x**2 - 0.5 * math.log(2 * math.pi)).sum(1)


# The mixture of the sheet.


def test_the_oracle_is_that_of_the_sheet():
    exact = DATA.log_prob(POINTS, Point(*[torch.ones(6)] * 2, torch.zeros(6, 1)))[:, 0]
    sheet = [-3.429764, -1.429647, -2.302806, -2.064523, -0.358797, -1.890567]
    assert exact.tolist() == pytest.approx(sheet, abs=1e-6)


@pytest.mark.parametrize(("tolerance", "error", "calls"), [(1e-5, 6.8e-5, 68), (1e-8, 2.0e-8, 190)])
def test_likelihood_of_a_mixture_with_the_exact_law_at_the_end(tolerance: float, error: float, calls: int):
    counted = []

    def denoise(x: Tensor, point: Point) -> Tensor:
        counted.append(1)
        return DATA.denoise(x, point)

    found = log_likelihood(denoise, VP, POINTS, prior=law(DATA, VP, 1.0), integrator=Adaptive(tolerance, tolerance))
    assert (found - law(DATA, VP, 1e-3)(POINTS)).abs().max() < error
    assert len(counted) <= calls


def test_likelihood_with_the_usual_prior_has_the_mismatch_of_the_sheet():
    found = log_likelihood(DATA.denoise, VP, POINTS, prior=unit, integrator=Adaptive(1e-7, 1e-7))
    assert (found - law(DATA, VP, 1e-3)(POINTS)).abs().max().item() == pytest.approx(4.23e-3, abs=1e-5)
    clean = DATA.log_prob(POINTS, Point(*[torch.ones(6)] * 2, torch.zeros(6, 1)))[:, 0]
    assert (found - clean).abs().max().item() == pytest.approx(4.50e-3, abs=1e-5)
    default = log_likelihood(DATA.denoise, VP, POINTS, integrator=Adaptive(1e-7, 1e-7))
    assert (found - default).abs().max().item() == pytest.approx(0.0, abs=3e-4)
    assert (found - default).abs().max() > 0


@pytest.mark.parametrize(
    ("process", "start", "end", "tolerance"),
    [
        (LinearVP(), 1e-3, 1.0, 2e-5),
        (SubVP(), 1e-2, 1.0, 2e-5),
        (CosineVP(), 1e-3, 0.99, 2e-5),
        (VE(), 0.0, 1.0, 2e-5),
        (Karras(), 0.0, 1.0, 2e-5),
        (Flow(), 1e-3, 1.0, 2e-5),
        # kinks between the steps of a chain cost many small steps
        (DiscreteVP(5), 1 / 5, 1.0, 1e-2),
    ],
)
def test_likelihood_on_every_path(process: Process, start: float, end: float, tolerance: float):
    data = Gaussian(1.0, 0.5)
    x = 1 + 0.5 * torch.randn(3, 2, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    precise = Adaptive(1e-6, 1e-6)
    found = log_likelihood(
        data.denoise, process, x, prior=law(data, process, end), start=start, end=end, integrator=precise
    )
    torch.testing.assert_close(found, law(data, process, start)(x), atol=tolerance, rtol=0)


def test_the_default_prior_has_the_noise_of_the_end():
    # a denoiser that says 0 on an exploding path moves nothing but the scale: x / sigma stays, and so does the law
    x = torch.tensor([[0.5, -1.0]], dtype=torch.float64)
    found = log_likelihood(lambda z, _: 0 * z, VE(0.5, 7.0), x, start=0.0, end=1.0, integrator=Adaptive(1e-9, 1e-9))
    exact = (-0.5 * (x / 0.5) ** 2 - math.log(0.5) - 0.5 * math.log(2 * math.pi)).sum(1)
    torch.testing.assert_close(found, exact, atol=1e-6, rtol=0)


def test_the_flow_by_hand():
    # straight path at t = 0.25, so alpha = 0.75, sigma = 0.25: dx/dt = eps - x0 = 4 x - 4 x0
    here, turn, pull = flow_rates(Flow(), torch.tensor([0.25], dtype=torch.float64), torch.zeros(1, 3, 3))
    assert [float(each) for each in (*here, turn, pull)] == pytest.approx([0.25, 0.75, 0.25, 4.0, -4.0])
    assert here.alpha.shape == here.sigma.shape == turn.shape == pull.shape == (1, 1, 1)


# Divergence.


JACOBIAN = torch.linspace(-1.0, -0.2, 8, dtype=torch.float64)


def test_divergence_of_a_diagonal_field():
    x, noise = torch.zeros(1, 8, dtype=torch.float64), torch.randn(5000, 1, 8, dtype=torch.float64)
    value, exact = divergence(lambda z: JACOBIAN * z + 2.0, x)
    torch.testing.assert_close(value, torch.full_like(x, 2.0))
    assert exact.tolist() == pytest.approx([-4.8])
    each = torch.stack([divergence(lambda z: JACOBIAN * z, x, probe[None])[1] for probe in rademacher(noise[:20])])
    assert each.std().item() < 1e-14
    assert each.mean().item() == pytest.approx(-4.8)


def test_gaussian_probes_have_the_variance_of_the_sheet():
    noise = torch.randn(20000, 1, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    x = torch.zeros(20000, 8, dtype=torch.float64)
    _, single = divergence(lambda z: JACOBIAN * z, x, noise.movedim(0, 1))
    assert single.std().item() == pytest.approx(math.sqrt(2 * JACOBIAN.square().sum()), rel=0.03)
    assert math.sqrt(2 * JACOBIAN.square().sum()) == pytest.approx(2.62, abs=5e-3)


def test_divergence_averages_over_probes_and_sees_one_sample_at_a_time():
    matrix = torch.tensor([[1.0, 3.0], [-2.0, 5.0]], dtype=torch.float64)
    x = torch.tensor([[1.0, 2.0], [3.0, 4.0]], dtype=torch.float64)
    field = lambda z: 0.5 * z**2 @ matrix.T  # noqa: E731
    torch.testing.assert_close(divergence(field, x)[1], 1 * x[:, 0] + 5 * x[:, 1])
    probes = torch.tensor([[[1.0, 1.0]] * 2, [[1.0, -1.0]] * 2], dtype=torch.float64)
    # v . J v = 1 x1 + 5 x2 +- (3 x2 - 2 x1)
    torch.testing.assert_close(divergence(field, x, probes)[1], 1 * x[:, 0] + 5 * x[:, 1])
    one = divergence(field, x, probes[:1])[1]
    torch.testing.assert_close(one, 1 * x[:, 0] + 5 * x[:, 1] + 3 * x[:, 1] - 2 * x[:, 0])


def test_signs_are_fair_and_of_the_same_kind():
    noise = torch.tensor([-0.1, 0.0, 3.0, -2.0], dtype=torch.float32)
    signs = rademacher(noise)
    assert signs.dtype == torch.float32
    assert signs.tolist() == [-1.0, 1.0, 1.0, -1.0]


def test_estimated_likelihood_is_exact_where_entries_do_not_mix():
    x = torch.randn(4, 2, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    probe = rademacher(torch.randn(2, 4, 2, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1)))
    exact, fast = (log_likelihood(DATA.denoise, VP, x, probe=each, integrator=Fixed(20)) for each in (None, probe))
    torch.testing.assert_close(exact, fast)


# Integrators.


def test_fixed_steps_are_of_fourth_order():
    y = torch.tensor([[1.0], [2.0]], dtype=torch.float64)

    def slope(t: Tensor, y: Tensor) -> Tensor:
        return -(t**2)[:, None] * y

    exact = y * math.exp(-(2**3 - 0.5**3) / 3)
    errors = [(Fixed(n)(slope, y, 0.5, 2.0) - exact).abs().max().item() for n in (20, 40, 80)]
    assert [math.log2(a / b) for a, b in pairwise(errors)] == pytest.approx([4.0, 4.0], abs=0.15)
    assert Fixed().steps == 50


def test_adaptive_steps_keep_their_tolerance():
    y = torch.tensor([[1.0], [2.0]], dtype=torch.float64)
    for tolerance in (1e-4, 1e-7, 1e-10):
        out = Adaptive(tolerance, tolerance)(lambda t, y: torch.cos(40 * t)[:, None] * y * 10, y, 0.0, 1.0)
        assert (out - y * math.exp(10 / 40 * math.sin(40))).abs().max() < 10 * tolerance


def test_adaptive_steps_do_not_depend_on_the_batch():
    x = torch.cat((POINTS[:3], 5 * POINTS[:2]))
    together = log_likelihood(DATA.denoise, VP, x)
    alone = torch.cat([log_likelihood(DATA.denoise, VP, row[None]) for row in x])
    torch.testing.assert_close(together, alone, atol=1e-10, rtol=1e-10)


@pytest.mark.parametrize("last", [0.0, 0.5])
def test_flows_that_cannot_be_followed_are_refused(last: float):
    def broken(x: Tensor, point: Point) -> Tensor:
        return torch.where(point.t[:, None] > last, torch.nan, 0 * x)

    with pytest.raises(ValueError, match=rf"at t = {max(last, 0.001)} no step meets rtol = 1e-05 and atol = 1e-05"):
        log_likelihood(broken, VP, POINTS[:1])


def test_too_many_steps_are_refused():
    with pytest.raises(ValueError, match="at t = 0"):
        log_likelihood(DATA.denoise, VP, POINTS, integrator=Adaptive(most=3))


def test_likelihood_in_single_precision():
    found = log_likelihood(DATA.denoise, VP, POINTS.float(), prior=unit)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), law(DATA, VP, 1e-3)(POINTS), atol=6e-3, rtol=0)


# Gradients, transforms, graphs.


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(2, 8), nn.SiLU(), nn.Linear(8, 2)).double()

    def forward(self, x: Tensor, point: Point) -> Tensor:
        return self.net(x) * point.alpha


def build(seed: int = 0) -> tuple[Net, Tensor]:
    torch.manual_seed(seed)
    return Net(), torch.randn(3, 2, dtype=torch.float64)


@pytest.mark.parametrize("integrator", [Fixed(4), Adaptive(1e-3, 1e-3)])
def test_likelihood_is_differentiable_in_x_and_in_the_parameters(integrator: Fixed | Adaptive):
    net, x = build()
    weight = net.net[0].weight.detach().clone().requires_grad_()

    def total(weight: Tensor, x: Tensor) -> Tensor:
        def changed(z: Tensor, point: Point) -> Tensor:
            return torch.func.functional_call(net, {"net.0.weight": weight}, (z, point))

        return log_likelihood(changed, VP, x, start=0.1, end=0.3, integrator=integrator).sum()

    if isinstance(integrator, Fixed):
        assert torch.autograd.gradcheck(total, (weight, x.requires_grad_()))
    else:
        # finite differences see the choice of steps too, within the tolerance
        found = torch.autograd.grad(total(weight, x), weight)[0]
        fixed = log_likelihood(net, VP, x, start=0.1, end=0.3, integrator=Fixed(50)).sum()
        torch.testing.assert_close(found, torch.autograd.grad(fixed, net.net[0].weight)[0], atol=2e-2, rtol=2e-2)


def test_likelihood_without_gradients_leaves_no_graph():
    net, x = build()
    with torch.no_grad():
        silent = log_likelihood(net, VP, x)
    assert not silent.requires_grad
    torch.testing.assert_close(silent, log_likelihood(net, VP, x))
    with torch.inference_mode():
        torch.testing.assert_close(log_likelihood(net, VP, x), silent)


def test_likelihood_over_stacked_seeds():
    nets, (_, x) = [build(seed)[0] for seed in range(2)], build()
    stacked = {
        name: torch.stack([dict(net.named_parameters())[name] for net in nets])
        for name, _ in nets[0].named_parameters()
    }

    def one(parameters: dict[str, Tensor]) -> Tensor:
        def denoise(z: Tensor, point: Point) -> Tensor:
            return torch.func.functional_call(nets[0], parameters, (z, point))

        return log_likelihood(denoise, VP, x, integrator=Fixed(3))

    together = torch.func.vmap(one)(stacked)
    for seed in range(2):
        torch.testing.assert_close(together[seed], log_likelihood(nets[seed], VP, x, integrator=Fixed(3)))


@pytest.mark.graph
def test_likelihood_by_fixed_steps_is_one_graph():
    net, x = build()
    compiled = torch.compile(
        lambda z: log_likelihood(net, VP, z, integrator=Fixed(1)), fullgraph=True, backend="aot_eager"
    )
    with torch.no_grad():
        torch.testing.assert_close(compiled(x), log_likelihood(net, VP, x, integrator=Fixed(1)))
