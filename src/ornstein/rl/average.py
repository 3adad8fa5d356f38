"""Averages of weights: target networks and the weights that act."""

from collections.abc import Mapping
from copy import deepcopy
from typing import TypeVar

import torch
from torch import nn

M = TypeVar("M", bound=nn.Module)


def frozen(module: M) -> M:
    """A copy that no gradient reaches, as targets and averages begin."""
    return deepcopy(module).requires_grad_(False)


@torch.no_grad()
def blend(target: nn.Module, source: nn.Module, rate: float) -> None:
    """Move `target`, in place, by the share `rate` towards `source`: target <- (1 - rate) target + rate source.

    Parameters and floating-point buffers are averaged; other buffers (counters) are copied.
    """
    blend_tensors(_tensors(target), _tensors(source), rate)


@torch.no_grad()
def blend_tensors(ours: Mapping[str, torch.Tensor], theirs: Mapping[str, torch.Tensor], rate: float) -> None:
    """As `blend`, on named tensors, which may carry a leading seed axis."""
    if ours.keys() != theirs.keys():
        raise ValueError(
            f"target and source differ in {sorted(ours.keys() ^ theirs.keys())}: blend copies of one module"
        )
    smooth = [name for name, value in ours.items() if value.is_floating_point()]
    torch.ops.aten._foreach_lerp_.Scalar([ours[n] for n in smooth], [theirs[n] for n in smooth], rate)
    for name in ours.keys() - set(smooth):
        ours[name].copy_(theirs[name])


def _tensors(module: nn.Module) -> dict[str, torch.Tensor]:
    return dict(module.named_parameters()) | dict(module.named_buffers())
