import pytest
import torch
from torch import Tensor

from oracles.gaussian import Gaussian
from oracles.pair import Pair, Reverse, affine_moments
from ornstein.diffusion.constrain import (
    bounded,
    bounds,
    clipped,
    in_turn,
    inpaint,
    inpaint_noised,
    moves,
    repaint,
    runs,
)
from ornstein.diffusion.grid import Grid, uniform
from ornstein.diffusion.process import DiscreteVP
from ornstein.diffusion.solver import DDIM, DDPM, Solver, sample, trace
from ornstein.types import Constrain, Denoise, Point

PAIR = Pair()
FIRST = torch.tensor([True, False])
ONE = torch.tensor([1.0, 0.0], dtype=torch.float64)
NOW = Point(*(torch.tensor([[rate]], dtype=torch.float64) for rate in (0.5, 0.6, 0.8)))._replace(t=torch.tensor([0.5]))
TABLED = 1e-4


def row(*values: float) -> Tensor:
    return torch.tensor([values], dtype=torch.float64)


def cosine(steps: int) -> Grid:
    return uniform(DiscreteVP(steps, "cosine"), steps)


# The formulas, by hand.


def test_inpainting_holds_clean_values_at_every_level():
    held = inpaint(FIRST, torch.tensor([7.0, 9.0], dtype=torch.float64))
    for point, noise in ((NOW, None), (NOW, row(1.0, 1.0)), (None, None)):
        torch.testing.assert_close(held(row(2.0, 3.0), point, noise), row(7.0, 3.0))


def test_inpainting_with_noise_holds_values_at_the_level_of_x():
    held = inpaint_noised(FIRST, torch.tensor([7.0, 9.0], dtype=torch.float64))
    torch.testing.assert_close(held(row(2.0, 3.0), NOW, row(0.5, 0.25)), row(0.6 * 7 + 0.8 * 0.5, 3.0))
    torch.testing.assert_close(held(row(2.0, 3.0), None, None), row(7.0, 3.0))
    with pytest.raises(ValueError, match="pass `constrain_noise`"):
        held(row(2.0, 3.0), NOW, None)


def test_known_values_may_differ_by_row():
    known = torch.tensor([[7.0, 0.0], [8.0, 0.0]])
    mask = torch.tensor([[True, False], [False, True]])
    assert inpaint(mask, known)(torch.ones(2, 2), None, None).tolist() == [[7.0, 1.0], [1.0, 0.0]]


def test_clipping_holds_every_x_but_pure_noise():
    x, one = row(-3.0, 5.0), torch.ones(1)
    noise = Point(one, NOW.alpha, NOW.sigma)
    torch.testing.assert_close(clipped(-1.0, 2.0)(x, NOW, None), row(-1.0, 2.0))
    torch.testing.assert_close(clipped(-1.0, 2.0)(x, None, None), row(-1.0, 2.0))
    torch.testing.assert_close(clipped(-1.0, 2.0)(x, noise, None), x)


def test_bounds_are_for_finished_samples():
    x = row(-3.0, 5.0)
    torch.testing.assert_close(bounds(-1.0, 2.0)(x, None, None), row(-1.0, 2.0))
    torch.testing.assert_close(bounds(-1.0, 2.0)(x, NOW, None), x)
    low, high = torch.tensor([-4.0, -1.0], dtype=torch.float64), torch.tensor([4.0, 1.0], dtype=torch.float64)
    torch.testing.assert_close(bounds(low, high)(x, None, None), row(-3.0, 1.0))


def test_a_bounded_denoiser_clamps_x0():
    triple: Denoise = lambda x, point: 3 * point.alpha * x  # noqa: E731
    torch.testing.assert_close(bounded(triple, -1.0, 2.0)(row(-1.0, 5.0), NOW), row(-1.0, 2.0))
    torch.testing.assert_close(bounded(triple, -9.0, 9.0)(row(-1.0, 5.0), NOW), row(-1.8, 9.0))


def test_constraints_in_turn_share_the_point_and_the_noise():
    seen = []

    def add(amount: float) -> Constrain:
        def constrain(x: Tensor, point: Point | None, noise: Tensor | None) -> Tensor:
            seen.append((point, noise))
            return amount * (x + 1)

        return constrain

    noise = row(0.0, 0.0)
    torch.testing.assert_close(in_turn([add(2.0), add(3.0)])(row(1.0, 2.0), NOW, noise), row(15.0, 21.0))
    assert len(seen) == 2
    assert all(point is NOW and given is noise for point, given in seen)


# Inpainting of one entry of a correlated pair: tables of reference values. The chain there draws its last step, ours
# denoises, so the spread that is left at the last level is added.


def inpainted(levels: Grid, constrain: Constrain, data: Pair = PAIR) -> tuple[float, float]:
    n = len(levels.t)

    def run(start: Tensor, steps: Tensor, known: Tensor) -> Tensor:
        solver = Reverse(data)
        return sample(
            data.denoise, start, levels, solver=solver, noise=steps, constrain=constrain, constrain_noise=known
        )

    return rest(*affine_moments(run, (1, 2), (n - 1, 1, 2), (n, 1, 2)), levels)


def rest(mean: Tensor, covariance: Tensor, levels: Grid) -> tuple[float, float]:
    assert mean[0].item() == 1.0
    assert covariance[0, 0].item() == 0.0
    last = Point(levels.t[-1:], levels.alpha[-1:, None], levels.sigma[-1:, None])
    return mean[1].item(), covariance[1, 1].item() + PAIR.spread(last)[0, 1, 1].item()


@pytest.mark.parametrize(
    ("levels", "expected"),
    [
        (cosine(20), (0.5933, 0.3429)),
        (cosine(100), (0.6202, 0.3169)),
        (uniform(DiscreteVP(1000, "linear"), 1000), (0.6256, 0.3119)),
    ],
)
def test_replacement_by_noised_values_is_biased(levels: Grid, expected: tuple[float, float]):
    assert inpainted(levels, inpaint_noised(FIRST, ONE)) == pytest.approx(expected, abs=TABLED)


@pytest.mark.parametrize(("steps", "expected"), [(20, (0.7022, 0.3356)), (100, (0.7219, 0.3155))])
def test_replacement_by_clean_values_is_biased_for_a_net_that_never_saw_them(steps: int, expected: tuple[float, float]):
    assert inpainted(cosine(steps), inpaint(FIRST, ONE)) == pytest.approx(expected, abs=TABLED)


@pytest.mark.parametrize("steps", [20, 100])
def test_clean_values_are_exact_for_a_net_that_was_trained_with_them(steps: int):
    levels = cosine(steps)

    def trained(x: Tensor, point: Point) -> Tensor:
        # x2 given x1 is N(0.9 x1, 0.19)
        mean = 0.9 * x[:, :1]
        gain = point.alpha * 0.19 / (point.alpha**2 * 0.19 + point.sigma**2)
        return torch.cat((x[:, :1], mean + gain * (x[:, 1:] - point.alpha * mean)), 1)

    def run(start: Tensor) -> Tensor:
        return sample(trained, start, levels, solver=DDIM(), constrain=inpaint(FIRST, ONE))

    mean, covariance = affine_moments(run, (1, 2))
    # the deterministic chain is exact up to its step error in the variance; the mean is exact
    assert mean.tolist() == pytest.approx([1.0, 0.9], abs=2e-3)
    assert covariance[1, 1].item() == pytest.approx(0.19, rel=0.2 if steps == 20 else 0.05)


# RePaint.


def repainted(levels: Grid, repeats: int, jump: int) -> tuple[float, float]:
    steps, returns = moves(len(levels.t), repeats, jump)

    def run(start: Tensor, noise: Tensor, known: Tensor) -> Tensor:
        return repaint(
            PAIR.denoise,
            start,
            levels,
            constrain=inpaint_noised(FIRST, ONE),
            repeats=repeats,
            jump=jump,
            solver=Reverse(PAIR),
            noise=noise,
            constrain_noise=known,
        )

    return rest(*affine_moments(run, (1, 2), (steps + returns, 1, 2), (steps + 1, 1, 2)), levels)


@pytest.mark.parametrize(
    ("steps", "repeats", "jump", "expected"),
    [
        (100, 2, 1, (0.7601, 0.2467)),
        (100, 5, 1, (0.8519, 0.2103)),
        (100, 5, 5, (0.8436, 0.2174)),
        (20, 20, 1, (0.8705, 0.2130)),
    ],
)
def test_repaint_removes_the_bias_of_replacement(steps: int, repeats: int, jump: int, expected: tuple[float, float]):
    assert repainted(cosine(steps), repeats, jump) == pytest.approx(expected, abs=TABLED)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("repeats", "jump", "expected"),
    [(10, 1, (0.8777, 0.2001)), (10, 5, (0.8687, 0.2085)), (20, 1, (0.8888, 0.1955)), (20, 5, (0.8788, 0.2055))],
)
def test_repaint_with_many_repeats(repeats: int, jump: int, expected: tuple[float, float]):
    assert repainted(cosine(100), repeats, jump) == pytest.approx(expected, abs=TABLED)


def test_long_jumps_on_short_chains_are_stuck():
    assert repainted(cosine(20), 20, 5)[0] == pytest.approx(0.69, abs=5e-3)


def test_the_passes_of_repaint():
    assert runs(5, 2, 2) == [(0, 2), (0, 2), (2, 4), (2, 4), (4, 4)]
    assert runs(6, 3, 4) == [(0, 4), (0, 4), (0, 4), (4, 5)]
    assert runs(3, 1, 1) == [(0, 1), (1, 2), (2, 2)]
    assert moves(5, 2, 2) == (8, 2)
    assert moves(6, 3, 4) == (13, 2)
    # 250 steps, 10 repeats, jumps of 10: the published schedule has 4571 entries, 2410 of them network calls
    steps, returns = moves(250, 10, 10)
    assert (steps + 1, steps + 1 + 10 * returns) == (2410, 4570)


@pytest.mark.parametrize(("repeats", "jump"), [(0, 1), (1, 0)])
def test_passes_without_repeats_or_steps_are_refused(repeats: int, jump: int):
    with pytest.raises(ValueError, match=f"repeats = {repeats} and jump = {jump}"):
        runs(5, repeats, jump)


def test_repaint_calls_the_network_once_a_step():
    calls = []
    gaussian = Gaussian(0.0, 1.0)

    def counted(x: Tensor, point: Point) -> Tensor:
        calls.append(point.t[0].item())
        return gaussian.denoise(x, point)

    noise = torch.zeros(10, 1, 2, dtype=torch.float64)
    repaint(counted, row(0.0, 0.0), cosine(5), constrain=inpaint(FIRST, ONE), repeats=2, jump=2, noise=noise)
    assert calls == pytest.approx([1.0, 0.8, 1.0, 0.8, 0.6, 0.4, 0.6, 0.4, 0.2])


@pytest.mark.parametrize("solver", [DDPM(), DDIM()])
def test_repaint_without_repeats_is_sampling(solver: Solver):
    torch.manual_seed(0)
    start, noise, known = (torch.randn(*n, 3, 2, dtype=torch.float64) for n in ((), (9,), (10,)))
    held = inpaint_noised(FIRST, ONE)
    once = repaint(
        PAIR.denoise,
        start,
        cosine(10),
        constrain=held,
        repeats=1,
        jump=4,
        solver=solver,
        noise=noise,
        constrain_noise=known,
    )
    plain = sample(PAIR.denoise, start, cosine(10), solver=solver, noise=noise, constrain=held, constrain_noise=known)
    torch.testing.assert_close(once, plain)


def test_repaint_defaults_to_ten_ancestral_passes_of_ten_steps():
    torch.manual_seed(0)
    steps, returns = moves(21, 10, 10)
    assert (steps, returns) == (200, 18)
    start, noise = torch.randn(1, 2, dtype=torch.float64), torch.randn(218, 1, 2, dtype=torch.float64)
    levels, held = uniform(DiscreteVP(21, "cosine"), 21), inpaint(FIRST, ONE)
    default = repaint(PAIR.denoise, start, levels, constrain=held, noise=noise)
    spelled = repaint(PAIR.denoise, start, levels, constrain=held, repeats=10, jump=10, solver=DDPM(), noise=noise)
    torch.testing.assert_close(default, spelled)


def test_repaint_by_hand():
    # one pass down two levels, back, down again, denoise; a denoiser that says 0, so that only x and noise are left
    levels = cosine(2)
    start, down, back, again = row(1.0, 2.0), row(0.5, -1.0), row(3.0, 0.25), row(-2.0, 4.0)
    states = []

    def silent(x: Tensor, point: Point) -> Tensor:
        states.append(x)
        return 0 * x

    free = lambda x, point, noise: x  # noqa: E731
    repaint(silent, start, levels, constrain=free, repeats=2, jump=1, noise=torch.stack((down, back, again)))
    step = trace(silent, start, levels, solver=DDPM(), noise=down[None], finish=False)[1]
    kept = levels.alpha[0] / levels.alpha[1]
    up = kept * step + torch.sqrt(1 - kept**2) * back
    torch.testing.assert_close(states[1], up)
    torch.testing.assert_close(states[2], trace(silent, up, levels, solver=DDPM(), noise=again[None], finish=False)[1])


def test_returns_of_repaint_carry_the_noise_of_known_entries():
    # what the network sees at the top again is the known entry noised from where it was, not a fresh draw
    torch.manual_seed(0)
    levels, states = cosine(2), []
    start, noise, known = (torch.randn(*n, 1, 2, dtype=torch.float64) for n in ((), (3,), (3,)))

    def watched(x: Tensor, point: Point) -> Tensor:
        states.append(x)
        return PAIR.denoise(x, point)

    repaint(
        watched,
        start,
        levels,
        constrain=inpaint_noised(FIRST, ONE),
        repeats=2,
        jump=1,
        noise=noise,
        constrain_noise=known,
    )
    kept = levels.alpha[0] / levels.alpha[1]
    below = levels.alpha[1] + levels.sigma[1] * known[1, 0, 0]
    torch.testing.assert_close(states[1][0, 0], kept * below + torch.sqrt(1 - kept**2) * noise[1, 0, 0])
    torch.testing.assert_close(states[2][0, 0], levels.alpha[1] + levels.sigma[1] * known[2, 0, 0])


def test_repaint_wants_its_noise_counted():
    short = torch.zeros(9, 1, 2, dtype=torch.float64)
    with pytest.raises(ValueError, match="noise for 8 steps and 2 returns needs 10 entries, got 9"):
        repaint(PAIR.denoise, row(0.0, 0.0), cosine(5), constrain=inpaint(FIRST, ONE), repeats=2, jump=2, noise=short)
    with pytest.raises(ValueError, match="constrain_noise for the start and 8 steps needs 9 entries, got 10"):
        repaint(
            PAIR.denoise,
            row(0.0, 0.0),
            cosine(5),
            constrain=inpaint_noised(FIRST, ONE),
            repeats=2,
            jump=2,
            noise=torch.zeros(10, 1, 2, dtype=torch.float64),
            constrain_noise=torch.zeros(10, 1, 2, dtype=torch.float64),
        )


def test_repaint_keeps_single_precision():
    noise, known = torch.zeros(10, 1, 2), torch.zeros(9, 1, 2)
    data, held = Gaussian(0.0, 1.0), inpaint_noised(FIRST, ONE.float())
    start = torch.ones(1, 2)
    out = repaint(data.denoise, start, cosine(5), constrain=held, repeats=2, jump=2, noise=noise, constrain_noise=known)
    assert out.dtype == torch.float32


@pytest.mark.graph
def test_constraints_and_repaint_are_one_graph():
    torch.manual_seed(0)
    start, noise, known = (torch.randn(*n, 3, 2, dtype=torch.float64) for n in ((), (10,), (9,)))
    data, levels = Gaussian(0.0, 1.0), cosine(5)
    held = in_turn([inpaint_noised(FIRST, ONE), bounds(-1.0, 1.0)])

    def run(start: Tensor, noise: Tensor, known: Tensor) -> Tensor:
        return repaint(
            bounded(data.denoise, -1.0, 1.0),
            start,
            levels,
            constrain=held,
            repeats=2,
            jump=2,
            noise=noise,
            constrain_noise=known,
        )

    compiled = torch.compile(run, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(start, noise, known), run(start, noise, known))
