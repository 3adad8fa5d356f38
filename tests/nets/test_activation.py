"""Mish is one function in all of its forms: with and without gradient, small, mapped, traced, differentiated twice."""

import math
import time

import pytest
import torch
from torch import func
from torch.autograd import forward_ad
from torch.nn import functional

from nets.reference import normal
from ornstein import activation
from ornstein.activation import Mish, mish

SPECIAL = (math.inf, 1e30, 710.0, 89.0, 88.0, 20.0, 1e-40, 0.0, -0.0, -1e-40, -20.0, -80.0, -104.0, -1e30)


@pytest.fixture(autouse=True)
def _small_tensors_take_the_same_way(monkeypatch):
    monkeypatch.setattr(activation, "_FEW", 0)


def slope(f, x):
    x = x.clone().requires_grad_()
    return torch.autograd.grad(f(x).sum(), x)[0]


def test_hand_computed_values_and_slopes():
    """Mish(1) = tanh(ln(1 + e)) = ((1 + e)^2 - 1) / ((1 + e)^2 + 1); the slope at 0 is tanh(ln 2) = 3/5."""
    x = torch.tensor([1.0, 0.0, -2.0], dtype=torch.float64)
    u, v = (1 + math.e) ** 2, (1 + math.exp(-2.0)) ** 2
    expected = [(u - 1) / (u + 1), 0.0, -2 * (v - 1) / (v + 1)]
    torch.testing.assert_close(mish(x), torch.tensor(expected, dtype=torch.float64), rtol=1e-14, atol=0)
    assert mish(x)[0].item() == pytest.approx(0.8650983882673103, rel=1e-14)
    assert slope(mish, x)[1].item() == pytest.approx(0.6, rel=1e-14)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("grad", [True, False])
def test_all_floats_give_torchs_value(dtype, grad):
    """To a few units in the last place wherever the value is a normal number, and to nothing at all beyond."""
    grid = torch.linspace(-87, 100, 20001, dtype=torch.float64).to(dtype)
    tiny = 10.0 ** torch.arange(-37, 0, 0.5, dtype=dtype)
    x = torch.cat((grid, tiny, -tiny)).requires_grad_(grad)
    exact = functional.mish(x.detach().double())
    relative = ((mish(x).detach() - exact) / exact.where(exact != 0, torch.ones(()).double())).abs().max()
    assert relative < 6 * torch.finfo(dtype).eps
    special = torch.tensor(SPECIAL, dtype=dtype).requires_grad_(grad)
    torch.testing.assert_close(mish(special), functional.mish(special), rtol=1e-6, atol=1e-37)
    assert torch.isnan(mish(torch.tensor([math.nan], dtype=dtype).requires_grad_(grad))).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_all_floats_give_torchs_slope(dtype):
    x = torch.linspace(-60, 60, 20001, dtype=torch.float64).to(dtype)
    exact = slope(functional.mish, x.double())
    assert ((slope(mish, x).double() - exact) / (1e-3 + exact.abs())).abs().max() < 500 * torch.finfo(dtype).eps
    far = torch.tensor([1e4, 1e30, -1e4, -1e30], dtype=dtype)
    torch.testing.assert_close(slope(mish, far), torch.tensor([1.0, 1.0, 0.0, 0.0], dtype=dtype), rtol=0, atol=0)


def test_first_and_second_derivatives_by_finite_differences():
    x = (3 * normal(7, dtype=torch.float64)).requires_grad_()
    assert torch.autograd.gradcheck(mish, x, check_batched_grad=True)
    assert torch.autograd.gradgradcheck(mish, x)


def test_forward_mode_and_function_transforms_agree_with_torchs():
    x = 3 * normal(9, dtype=torch.float64)
    tangent = normal(9, seed=2, dtype=torch.float64)

    def total(f):
        return lambda x: f(x).sum()

    close = torch.testing.assert_close
    close(func.jvp(mish, (x,), (tangent,))[1], func.jvp(functional.mish, (x,), (tangent,))[1])
    close(func.hessian(total(mish))(x), func.hessian(total(functional.mish))(x))
    close(func.jacfwd(mish)(x), func.jacfwd(functional.mish)(x))
    close(func.vmap(func.grad(total(mish)))(x[:, None])[:, 0], slope(functional.mish, x))
    close(func.grad(lambda x: func.vmap(mish)(x).sum())(x), slope(functional.mish, x))
    close(slope(func.vmap(mish, in_dims=1, out_dims=1), x.reshape(3, 3)), slope(functional.mish, x.reshape(3, 3)))
    with forward_ad.dual_level(), torch.no_grad():
        moved = forward_ad.unpack_dual(mish(forward_ad.make_dual(x, tangent))).tangent
    close(moved, tangent * slope(functional.mish, x))
    with torch.no_grad():
        close(func.vmap(mish)(x), functional.mish(x))


def test_what_it_is_given_stays_as_it_was():
    x = normal(5, 5)
    before = x.clone()
    mish(x)
    mish(x.requires_grad_())
    assert torch.equal(x, before)


@pytest.mark.parametrize("size", [1, 3071, 3072, 5000])
def test_both_sides_of_the_size_limit_agree(size, monkeypatch):
    monkeypatch.setattr(activation, "_FEW", 3072)
    x = 3 * normal(size)
    torch.testing.assert_close(mish(x), functional.mish(x))
    torch.testing.assert_close(slope(mish, x), slope(functional.mish, x))


def test_half_precision_is_torchs():
    x = normal(4000).to(torch.bfloat16)
    assert torch.equal(mish(x), functional.mish(x))


def test_strided_and_empty_tensors():
    x = normal(8, 6).T[::2]
    torch.testing.assert_close(mish(x), functional.mish(x))
    torch.testing.assert_close(slope(mish, x), slope(functional.mish, x))
    assert mish(torch.empty(0, 4)).shape == (0, 4)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("mish", functional.mish),
        ("silu", functional.silu),
        ("relu", functional.relu),
        ("gelu", functional.gelu),
        ("tanh", torch.tanh),
    ],
)
def test_names_give_their_functions(name, expected):
    x = normal(50)
    torch.testing.assert_close(activation.activation(name)(x), expected(x))


def test_an_unknown_name_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match=r"'swish': choose one of mish, silu, relu, gelu, tanh"):
        activation.activation("swish")


@pytest.mark.graph
def test_one_graph_with_the_same_value_and_slope(monkeypatch):
    monkeypatch.setattr(activation, "_FEW", 3072)
    torch.compiler.reset()
    x = 3 * normal(64, 64)
    compiled = torch.compile(Mish(), fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x), functional.mish(x), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(slope(compiled, x), slope(functional.mish, x), rtol=1e-5, atol=2e-6)


@pytest.mark.graph
def test_it_costs_less_than_half_of_torchs(monkeypatch):
    monkeypatch.setattr(activation, "_FEW", 3072)

    def seconds(f, x):
        times = []
        for _ in range(40):
            start = time.process_time()
            f(x)
            times.append(time.process_time() - start)
        return sorted(times)[10]

    x = normal(256, 256)
    with torch.no_grad():
        assert seconds(mish, x) < 0.5 * seconds(functional.mish, x)
    assert seconds(lambda x: slope(mish, x), x) < 0.6 * seconds(lambda x: slope(functional.mish, x), x)
