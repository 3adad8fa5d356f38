"""Activations by name, and a Mish that is quick on a CPU; shared by the networks and the critics."""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd import Function
from torch.nn import functional

_ONE = {kind: torch.ones((), dtype=kind, device="cpu") for kind in (torch.float32, torch.float64)}
_FEW = 3072


def activation(name: str) -> nn.Module:
    """The activation layer of this name: mish, silu, relu, gelu or tanh."""
    if name not in _LAYERS:
        raise ValueError(f"unknown activation {name!r}: choose one of {', '.join(_LAYERS)}")
    return _LAYERS[name]()


class Mish(nn.Module):
    """The layer x tanh(softplus(x))."""

    def forward(self, x: Float[Tensor, " *x"]) -> Float[Tensor, " *x"]:
        """Every entry times the hyperbolic tangent of its softplus."""
        return mish(x)


def mish(x: Float[Tensor, " *x"]) -> Float[Tensor, " *x"]:
    """Mish, x tanh(softplus(x)), by one sigmoid on a CPU: with s = sigmoid(x) and q = s (2 - s) it is x q / (2 - q).

    Nothing in this form overflows or cancels. On a CPU torch's own costs four times as much, with its gradient as well
    as without; it is taken on other devices, for half precision, and where the tensor is small.
    Source: Misra 2019 (1908.08681).
    """
    if x.dtype not in _ONE or not x.is_cpu:
        return functional.mish(x)
    if torch.compiler.is_compiling():
        return _plain(x)
    if x.numel() < _FEW:
        return functional.mish(x)
    if torch.is_grad_enabled():
        if not eager():
            return _Mish.apply(x)[0]
        if x.requires_grad:
            return _apply(x)[0]
    s = torch.sigmoid(x)
    q = torch.lerp(s, _ONE[x.dtype], s)
    rest = s.fill_(2).sub_(q)  # in place: a new tensor would have to be fetched from memory
    return q.mul_(x).div_(rest)


def eager() -> bool:
    """Whether operators run one by one as written: neither traced by torch.compile nor transformed by torch.func."""
    return not (torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active())


def _plain(x: Tensor) -> Tensor:
    s = torch.sigmoid(x)
    q = s * (2 - s)
    return x * q / (2 - q)


_LAYERS: dict[str, Callable[[], nn.Module]] = {
    "mish": Mish, "silu": nn.SiLU, "relu": nn.ReLU, "gelu": nn.GELU, "tanh": nn.Tanh
}  # fmt: skip


class _Mish(Function):
    """Mish(x) and its slope w + s x (1 - w^2), w = q / (2 - q): a backward pass is then one product.

    Only one tensor more than the two results is made: a new one is fetched from memory, which costs three operations.
    """

    @staticmethod
    def forward(x: Tensor) -> tuple[Tensor, Tensor]:
        s = torch.sigmoid(x)
        w = torch.lerp(s, _ONE[x.dtype], s)
        y = 2 - w
        w.div_(y)
        torch.mul(x, w, out=y)
        s.mul_(x)
        s.addcmul_(s, w, value=-1).addcmul_(s, w)  # s x (1 - w) (1 + w)
        return y, w.add_(s)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: tuple[Tensor, Tensor]) -> None:
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(inputs[0], output[1])
        ctx.save_for_forward(inputs[0], output[1])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> Tensor | None:
        x, slope = ctx.saved_tensors
        grad, grad_of_slope = grads
        if grad_of_slope is None:
            return None if grad is None else grad * slope
        bent = grad_of_slope * _curvature(x)
        return bent if grad is None else torch.addcmul(bent, grad, slope)

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int], *args: Tensor) -> tuple[tuple[Tensor, Tensor], tuple[int, int]]:
        return (_apply if eager() else _Mish.apply)(*args), (in_dims[0], in_dims[0])

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor) -> tuple[Tensor, Tensor]:
        x, slope = ctx.saved_tensors
        return tangents[0] * slope, tangents[0] * _curvature(x)


# Function.apply itself spends 25 us on inspecting the signature, which it needs under torch.func only.
_apply: Callable[[Tensor], tuple[Tensor, Tensor]] = super(Function, _Mish).apply  # pyright: ignore[reportAttributeAccessIssue]


def _curvature(x: Tensor) -> Tensor:
    """Mish's second derivative, s (1 - w^2) (2 + x (1 - s - 2 w s))."""
    s = torch.sigmoid(x)
    q = s * (2 - s)
    w = q / (2 - q)
    return s * (1 - w * w) * (2 + x * (1 - s - 2 * w * s))
