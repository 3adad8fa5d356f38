"""The gradient of a phase's loss: of one learner or of many seeds over a leading axis, eagerly or as one graph."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad_and_value, vmap

from ornstein.types import Descend, Noise

Live = Mapping[str, Tensor]
"""All tensors of a learner by their names, with a leading seed axis if there are several learners."""


class Slope(NamedTuple):
    """What one evaluation of a loss gives: gradients in the order and layout of the trained parameters, and values.

    For several seeds every entry has a leading seed axis; for one, loss and metrics are scalars.
    """

    gradients: list[Tensor]
    loss: Tensor
    metrics: Mapping[str, Tensor]


Gradient = Callable[[Live, Any, Noise], Slope]
Compiler = Callable[[Callable[..., Any]], Callable[..., Any]]


def compiler(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function compiled as one graph for one set of shapes; what would break the graph is an error."""
    return torch.compile(function, fullgraph=True, dynamic=False)


def plain(phase: Descend, names: Sequence[str], *, compiler: Compiler | None = None) -> Gradient:
    """The gradient by autograd through the learner's own tensors, with respect to the named parameters alone."""
    loss_of = compiler(phase.loss) if compiler else phase.loss

    def gradient(live: Live, batch: Any, noise: Noise) -> Slope:
        own = [live[name] for name in names]
        with _frozen(live, names) if compiler else nullcontext():
            loss, metrics = loss_of(batch, noise)
        found = torch.autograd.grad(loss, own, allow_unused=True) if loss.requires_grad else [None] * len(own)
        gradients = [_laid_out(g, p) for g, p in zip(found, own, strict=True) if g is not None]
        if len(gradients) < len(own):
            unused = [name for name, g in zip(names, found, strict=True) if g is None]
            raise ValueError(
                f"phase {phase.name!r}: its loss does not depend on {unused[0]!r} ({len(unused)} such parameters); "
                "give Descend the module that the loss trains, or freeze what it does not"
            )
        return Slope(gradients, loss, metrics)

    return gradient


@contextmanager
def _frozen(live: Live, names: Sequence[str]) -> Iterator[None]:
    """All but the named parameters need no gradient: a compiled loss would compute theirs too, for nobody."""
    named = set(names)
    others = [tensor for name, tensor in live.items() if tensor.requires_grad and name not in named]
    for tensor in others:
        tensor.requires_grad_(False)
    try:
        yield
    finally:
        for tensor in others:
            tensor.requires_grad_(True)


def stacked(template: nn.Module, phase: Descend, names: Sequence[str], *, compiler: Compiler | None = None) -> Gradient:
    """The gradients of all seeds in one call, over a leading axis of every tensor, batch and noise.

    `template` gives the structure; its own tensors are not used. What the loss does not reach gets a gradient of zero.
    """
    shell = _Shell(template, phase.loss)

    def loss(own: dict[str, Tensor], rest: dict[str, Tensor], batch: Any, noise: dict[str, Tensor]) -> Any:
        swapped = {f"learner.{name}": tensor for name, tensor in (rest | own).items()}
        value, metrics = functional_call(shell, swapped, (batch, noise))
        return value, dict(metrics)

    descend: Callable[..., Any] = vmap(grad_and_value(loss, has_aux=True), randomness="error")
    descend = compiler(descend) if compiler else descend

    def gradient(live: Live, batch: Any, noise: Noise) -> Slope:
        own = {name: live[name].detach() for name in names}
        rest = {name: tensor.detach() for name, tensor in live.items() if name not in own}
        found, (value, metrics) = descend(own, rest, batch, dict(noise))
        return Slope([_laid_out(found[name], own[name]) for name in names], value, metrics)

    return gradient


def accumulated(gradient: Gradient, phase: Descend, *, seeds: bool = False) -> Gradient:
    """The mean gradient over the equal parts in which the phase takes its batch; one part at a time is in memory."""
    parts, dim = phase.adam.accumulate, int(seeds)
    if parts == 1:
        return gradient

    def mean(live: Live, batch: Any, noise: Noise) -> Slope:
        rows = batch[0].shape[dim]
        if rows % parts:
            raise ValueError(
                f"phase {phase.name!r}: a batch of {rows} rows does not divide into accumulate = {parts} equal parts; "
                "change one of the two"
            )
        pieces = zip(*(field.chunk(parts, dim) for field in batch), strict=True)
        total: Slope | None = None
        for i, piece in enumerate(pieces):
            draws = {n: d.chunk(parts, dim)[i] if phase.noise[n].per == "row" else d for n, d in noise.items()}
            slope = gradient(live, type(batch)(*piece), draws)
            total = slope if total is None else _plus(total, slope)
        assert total is not None
        return Slope(
            [g / parts for g in total.gradients],
            total.loss / parts,
            {name: value / parts for name, value in total.metrics.items()},
        )

    return mean


def _plus(a: Slope, b: Slope) -> Slope:
    gradients = [x + y for x, y in zip(a.gradients, b.gradients, strict=True)]
    loss, metrics = (
        a.loss.detach() + b.loss.detach(),
        {n: v.detach() + b.metrics[n].detach() for n, v in a.metrics.items()},
    )
    return Slope(gradients, loss, metrics)


def _laid_out(gradient: Tensor, like: Tensor) -> Tensor:
    """The gradient with the strides of its parameter: the fused Adam walks through memory and looks at no stride."""
    if gradient.stride() == like.stride():
        return gradient
    return torch.empty_strided(like.shape, like.stride(), dtype=like.dtype, device=like.device).copy_(gradient)


class _Shell(nn.Module):
    """Makes a learner's loss a forward pass, so that functional_call can swap all of the learner's tensors."""

    def __init__(self, learner: nn.Module, loss: Callable[[Any, Noise], tuple[Tensor, Mapping[str, Tensor]]]) -> None:
        super().__init__()
        self.learner, self.loss = learner, loss

    def forward(self, batch: Any, noise: Noise) -> tuple[Tensor, Mapping[str, Tensor]]:
        return self.loss(batch, noise)
