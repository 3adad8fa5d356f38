"""A CUDA graph played on the CPU: records the operations of some work, and repeats them on the very same tensors.

As with a CUDA graph, no Python runs in a replay, results appear where they first did, and reading a tensor back to the
host while recording is an error. So work that rebinds a tensor, branches on one or reads one is found out here.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode


class Tape(TorchDispatchMode):
    """Every operation that was dispatched while the mode was on, with its arguments and results."""

    def __init__(self) -> None:
        super().__init__()
        self.steps: list[tuple[Callable[..., Any], Any, Any, list[Tensor]]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.equal.default):
            raise RuntimeError("the host reads a tensor while a graph is recorded")
        result = func(*args, **kwargs)
        self.steps.append((func, args, kwargs, _tensors(result)))
        return result

    def replay(self) -> None:
        """Repeat all operations; what was a new tensor then is overwritten now."""
        with torch.no_grad():
            for func, args, kwargs, old in self.steps:
                inputs = {_place(t) for t in _tensors((args, kwargs))}
                for was, new in zip(old, _tensors(func(*args, **kwargs)), strict=True):
                    if _place(was) not in inputs:  # views and in-place results are where they were
                        was.copy_(new)


def record(work: Callable[[], Any], device: torch.device) -> tuple[Callable[[], None], Any]:
    """The recorder of `Captured` that needs no GPU."""
    with Tape() as tape:
        results = work()
    return tape.replay, results


def _tensors(values: Any) -> list[Tensor]:
    return [leaf for leaf in pytree.tree_leaves(values) if isinstance(leaf, Tensor)]


def _place(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()
