import pytest
import torch

from ornstein.data.check import DataError
from ornstein.data.normalize import Gaussian, Identity, MinMax, Normalizer, Quantile, normalizer

ALL = [Gaussian, MinMax, Quantile, Identity]


def data(rows=500):
    """Columns: normal, skewed, two-valued, constant, constant but for rounding noise, far from zero."""
    generator = torch.Generator().manual_seed(0)
    normal = torch.randn(rows, 3, generator=generator)
    return torch.stack(
        [
            3 + 5 * normal[:, 0],
            normal[:, 1].exp(),
            (normal[:, 2] > 0.5).float(),
            torch.full((rows,), 7.0),
            1.5 + 1e-8 * normal[:, 0],
            1000 + normal[:, 1],
        ],
        1,
    )


def test_gaussian_by_hand():
    """Of 1, 3: mean 2, population deviation 1 (and not sqrt(2))."""
    fitted = Gaussian(1).fit(torch.tensor([[1.0], [3.0]]))
    assert fitted(torch.tensor([[5.0]])).item() == 3
    assert fitted.inverse(torch.tensor([[3.0]])).item() == 5


def test_min_max_by_hand():
    """Of 2, 3, 6: 2 -> -1, 6 -> 1, 3 -> -0.5, and beyond in the same line."""
    fitted = MinMax(1).fit(torch.tensor([[2.0], [3.0], [6.0]]))
    assert fitted(torch.tensor([[2.0], [3.0], [6.0], [8.0]])).flatten().tolist() == [-1, -0.5, 1, 2]
    assert fitted.inverse(torch.tensor([[0.0]])).item() == 4


def test_quantile_by_hand():
    """Of 0, 1, 10 with a knot at each: 1 is the median, so 0; half way from 1 to 10 is half way from 0 to 1."""
    fitted = Quantile(1, knots=3).fit(torch.tensor([[10.0], [0.0], [1.0]]))
    x = torch.tensor([[0.0], [1.0], [5.5], [10.0], [0.5]])
    assert fitted(x).flatten().tolist() == [-1, 0, 0.5, 1, -0.5]
    assert fitted.inverse(fitted(x)).flatten().tolist() == [0, 1, 5.5, 10, 0.5]


def test_quantile_goes_on_straight_beyond_the_data():
    """The range 0..10 is 2 wide in y, so 15 is one half of it beyond 1."""
    fitted = Quantile(1, knots=3).fit(torch.tensor([[10.0], [0.0], [1.0]]))
    x = torch.tensor([[15.0], [-5.0]])
    assert fitted(x).flatten().tolist() == [2, -2]
    assert fitted.inverse(fitted(x)).flatten().tolist() == [15, -5]


def test_quantile_puts_a_shared_value_in_the_middle_of_its_jump():
    """Half of the rows are 2: its knots span -0.5 .. 0.5."""
    values = torch.tensor([0.0, 1.0, 2.0, 2.0, 2.0, 2.0, 2.0, 3.0, 4.0])[:, None]
    fitted = Quantile(1, knots=9).fit(values)
    assert fitted(torch.tensor([[2.0]])).item() == 0
    assert fitted.inverse(torch.tensor([[0.4]])).item() == 2
    assert fitted(torch.tensor([[1.0]])).item() == -0.75


def test_quantile_keeps_the_ends_at_the_ends():
    """A share of 30 % at the one end and 70 % at the other is no jump to be halved."""
    values = torch.tensor([-5.0] * 30 + [5.0] * 70)[:, None]
    assert Quantile(1).fit(values)(torch.tensor([[-5.0], [5.0]])).flatten().tolist() == [-1, 1]
    assert Quantile(1, knots=2).fit(values)(torch.tensor([[-5.0], [0.0], [5.0]])).flatten().tolist() == [-1, 0, 1]


@pytest.mark.parametrize("kind", [Gaussian, MinMax, Quantile])
def test_what_counts_as_noise_grows_with_the_size_of_the_numbers(kind):
    """float32 knows 1000 to 6e-5 only; the same spread around 0 is real."""
    noise = 1e-3 * torch.randn(200, 1, generator=torch.Generator().manual_seed(0))
    assert kind(1).fit(1000 + noise)(1000 + noise).abs().max() < 0.01
    assert kind(1).fit(noise)(noise).abs().max() > 0.9


def test_quantile_makes_any_law_even():
    x = data(20_000)
    y = Quantile(6)
    y.fit(x)
    even = y(x)[:, :2].sort(0).values
    target = torch.linspace(-1, 1, len(x))[:, None]
    assert (even - target).abs().max() < 0.01


@pytest.mark.parametrize("kind", ALL)
def test_constant_and_nearly_constant_dimensions_do_not_explode(kind):
    x = data()
    y = kind(6).fit(x)(x)
    assert torch.isfinite(y).all()
    centred = y[:, 3:5] - (torch.tensor([7.0, 1.5]) if kind is Identity else 0)
    assert centred.abs().max() < 1e-6
    unseen = kind(6).fit(x)(x + 1e-6)
    assert (unseen - y)[:, 3:5].abs().max() < 2e-6


@pytest.mark.parametrize("kind", ALL)
def test_small_but_real_variation_is_not_taken_for_noise(kind):
    x = 0.001 * torch.randn(200, 1, generator=torch.Generator().manual_seed(0))
    y = kind(1).fit(x)(x)
    assert y.abs().max() < 0.01 if kind is Identity else y.abs().max() > 0.9


@pytest.mark.parametrize("kind", ALL)
def test_the_inverse_gives_the_data_back(kind):
    x = data()
    fitted = kind(6).fit(x)
    beyond = 1.5 * x
    torch.testing.assert_close(fitted.inverse(fitted(x)), x, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(fitted.inverse(fitted(beyond)), beyond, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", ALL)
def test_skipped_dimensions_stay_as_they_are(kind):
    x = data()
    skip = torch.tensor([True, False, True, True, False, False])
    fitted = kind(6).fit(x, skip=skip)
    y = fitted(x)
    assert torch.equal(y[:, skip], x[:, skip])
    assert torch.equal(fitted.inverse(x)[:, skip], x[:, skip])
    if kind is not Identity:
        assert (y[:, 1] - x[:, 1]).abs().max() > 0.1


@pytest.mark.parametrize("kind", ALL)
def test_unfitted_is_the_identity(kind):
    x = torch.linspace(-3, 3, 14).reshape(7, 2)
    torch.testing.assert_close(kind(2)(x), x, rtol=0, atol=1e-6)
    torch.testing.assert_close(kind(2).inverse(x), x, rtol=0, atol=1e-6)


@pytest.mark.parametrize("kind", ALL)
def test_statistics_travel_with_the_weights(kind):
    x = data()
    fitted, empty = kind(6).fit(x), kind(6)
    empty.load_state_dict(fitted.state_dict(), strict=True)
    assert torch.equal(empty(x), fitted(x))
    assert torch.equal(empty.inverse(x), fitted.inverse(x))
    assert not list(fitted.parameters())


@pytest.mark.parametrize("kind", ALL)
def test_any_leading_shape_and_vmap(kind):
    x = data(24)
    fitted = kind(6).fit(x)
    y = fitted(x)
    torch.testing.assert_close(fitted(x.view(2, 3, 4, 6)).view(24, 6), y)
    torch.testing.assert_close(fitted(x[0]), y[0])
    torch.testing.assert_close(torch.vmap(fitted)(x), y)
    torch.testing.assert_close(torch.vmap(fitted.inverse)(y), fitted.inverse(y))


@pytest.mark.parametrize("kind", ALL)
def test_gradients_pass(kind):
    x = data(50)[:, :2].requires_grad_()
    kind(2).fit(x.detach())(x).sum().backward()
    assert x.grad is not None
    assert torch.isfinite(x.grad).all()
    assert (x.grad > 0).float().mean() > 0.9


@pytest.mark.parametrize("kind", ALL)
def test_bad_data_are_refused(kind):
    with pytest.raises(DataError, match=r"\(rows, 2\)"):
        kind(2).fit(torch.zeros(3, 4))
    with pytest.raises(DataError, match=r"\(rows, 2\)"):
        kind(2).fit(torch.zeros(0, 2))
    with pytest.raises(DataError, match="'data' has NaN entries"):
        kind(2).fit(torch.tensor([[0.0, float("nan")]]))


@pytest.mark.graph
@pytest.mark.parametrize("kind", ALL)
def test_one_graph_without_breaks(kind):
    x = data()
    fitted = kind(6).fit(x)
    compiled = torch.compile(lambda values: fitted.inverse(fitted(values)), fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x), fitted.inverse(fitted(x)))


def test_by_name():
    kinds = {"gaussian": Gaussian, "min_max": MinMax, "quantile": Quantile, "identity": Identity}
    for name, kind in kinds.items():
        made = normalizer(name, 3)
        assert type(made) is kind
        assert isinstance(made, Normalizer)


@pytest.mark.graph
def test_an_unknown_name_is_refused():
    with pytest.raises(DataError, match="'zscore' is unknown: use one of gaussian, min_max, quantile, identity"):
        normalizer("zscore", 3)


def test_a_quantile_needs_two_knots():
    with pytest.raises(DataError, match="knots = 1"):
        Quantile(3, knots=1)
