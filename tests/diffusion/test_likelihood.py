import math
from collections.abc import Callable
from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn

from oracles.gaussian import Gaussian, Mixture
from ornstein.diffusion.likelihood import divergence, log_likelihood, rademacher
from ornstein.diffusion.process import VE, CosineVP, DiscreteVP, Flow, Karras, LinearVP, SubVP, point
from ornstein.types import Point, Process

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


# The mixture of the reference values.


def test_the_oracle_gives_the_reference_values():
    exact = DATA.log_prob(POINTS, Point(*[torch.ones(6)] * 2, torch.zeros(6, 1)))[:, 0]
    reference = [-3.429764, -1.429647, -2.302806, -2.064523, -0.358797, -1.890567]
    assert exact.tolist() == pytest.approx(reference, abs=1e-6)


@pytest.mark.parametrize(("tolerance", "error", "calls"), [(1e-5, 3.4e-5, 56), (1e-8, 1.1e-8, 182)])
def test_likelihood_of_a_mixture_with_the_exact_law_at_the_end(tolerance: float, error: float, calls: int):
    counted = []

    def denoise(x: Tensor, point: Point) -> Tensor:
        counted.append(1)
        return DATA.denoise(x, point)

    found = log_likelihood(denoise, VP, POINTS, prior=law(DATA, VP, 1.0), rtol=tolerance, atol=tolerance)
    assert (found - law(DATA, VP, 1e-3)(POINTS)).abs().max() < error
    # the reference count within 20 %
    assert len(counted) == pytest.approx(calls, rel=0.2)


def test_likelihood_with_the_usual_prior_has_the_tabulated_mismatch():
    found = log_likelihood(DATA.denoise, VP, POINTS, prior=unit, rtol=1e-7, atol=1e-7)
    assert (found - law(DATA, VP, 1e-3)(POINTS)).abs().max().item() == pytest.approx(4.23e-3, abs=1e-5)
    clean = DATA.log_prob(POINTS, Point(*[torch.ones(6)] * 2, torch.zeros(6, 1)))[:, 0]
    assert (found - clean).abs().max().item() == pytest.approx(4.50e-3, abs=1e-5)
    default = log_likelihood(DATA.denoise, VP, POINTS, rtol=1e-7, atol=1e-7)
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
        (DiscreteVP(5), 1 / 5, 1.0, 5e-5),
    ],
)
def test_likelihood_on_every_path(process: Process, start: float, end: float, tolerance: float):
    data = Gaussian(1.0, 0.5)
    x = 1 + 0.5 * torch.randn(3, 2, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    found = log_likelihood(
        data.denoise, process, x, prior=law(data, process, end), start=start, end=end, rtol=1e-7, atol=1e-7
    )
    torch.testing.assert_close(found, law(data, process, start)(x), atol=tolerance, rtol=0)


def test_the_default_prior_has_the_noise_of_the_end():
    # a denoiser that says 0 on an exploding path moves nothing but the scale: x / sigma stays, and so does the law
    x = torch.tensor([[0.5, -1.0]], dtype=torch.float64)
    found = log_likelihood(lambda z, _: 0 * z, VE(0.5, 7.0), x, start=0.0, end=1.0, rtol=1e-9, atol=1e-9)
    exact = (-0.5 * (x / 0.5) ** 2 - math.log(0.5) - 0.5 * math.log(2 * math.pi)).sum(1)
    torch.testing.assert_close(found, exact, atol=1e-6, rtol=0)


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


def test_gaussian_probes_have_the_tabulated_variance():
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
    exact, fast = (log_likelihood(DATA.denoise, VP, x, probe=each, steps=20) for each in (None, probe))
    torch.testing.assert_close(exact, fast)


# Steps.


def test_equal_steps_are_of_fourth_order_and_equal_in_time():
    data, x = Gaussian(1.0, 0.5), POINTS[:2]
    exact = law(data, VP, 0.2)(x)
    found = [
        log_likelihood(data.denoise, VP, x, prior=law(data, VP, 0.6), start=0.2, end=0.6, steps=n) for n in (5, 10, 20)
    ]
    errors = [(each - exact).abs().max().item() for each in found]
    assert [math.log2(a / b) for a, b in pairwise(errors)] == pytest.approx([4.0, 4.0], abs=0.15)
    times = []

    def watched(x: Tensor, point: Point) -> Tensor:
        times.append(point.t[0].item())
        return DATA.denoise(x, point)

    log_likelihood(watched, VP, POINTS, start=0.2, end=0.6, steps=2)
    assert times == pytest.approx([0.2, 0.3, 0.3, 0.4, 0.4, 0.5, 0.5, 0.6])


def test_the_batch_matters_less_than_the_tolerance():
    together = log_likelihood(DATA.denoise, VP, POINTS)
    alone = torch.cat([log_likelihood(DATA.denoise, VP, row[None]) for row in POINTS])
    torch.testing.assert_close(together, alone, atol=1e-4, rtol=0)


def test_flows_that_cannot_be_followed_are_refused():
    def broken(x: Tensor, point: Point) -> Tensor:
        return torch.where(point.t[:, None] > 0.5, torch.nan, 0 * x)

    with pytest.raises(ValueError, match="below the resolution of t = "):
        log_likelihood(broken, VP, POINTS[:1])


def test_tolerances_are_one_in_a_hundred_thousand_by_default():
    x = POINTS[:2]
    spelled = log_likelihood(DATA.denoise, VP, x, start=1e-3, end=1.0, rtol=1e-5, atol=1e-5)
    assert log_likelihood(DATA.denoise, VP, x).tolist() == spelled.tolist()


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


def test_likelihood_is_differentiable_in_x_and_in_the_parameters():
    net, x = build()
    weight = net.net[0].weight.detach().clone().requires_grad_()

    def total(weight: Tensor, x: Tensor, steps: int | None = 3) -> Tensor:
        def changed(z: Tensor, point: Point) -> Tensor:
            return torch.func.functional_call(net, {"net.0.weight": weight}, (z, point))

        return log_likelihood(changed, VP, x, start=0.1, end=0.3, steps=steps).sum()

    assert torch.autograd.gradcheck(total, (weight, x.requires_grad_()))
    adaptive, equal = (torch.autograd.grad(total(weight, x, steps), weight)[0] for steps in (None, 20))
    torch.testing.assert_close(adaptive, equal, atol=1e-3, rtol=1e-3)


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

        return log_likelihood(denoise, VP, x, steps=3)

    together = torch.func.vmap(one)(stacked)
    for seed in range(2):
        torch.testing.assert_close(together[seed], log_likelihood(nets[seed], VP, x, steps=3))


@pytest.mark.graph
def test_likelihood_by_fixed_steps_is_one_graph():
    net, x = build()
    compiled = torch.compile(lambda z: log_likelihood(net, VP, z, steps=1), fullgraph=True, backend="aot_eager")
    with torch.no_grad():
        torch.testing.assert_close(compiled(x), log_likelihood(net, VP, x, steps=1))
