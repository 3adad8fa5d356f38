"""How everything is timed: blocks of all sides in turn, A B A B, and every ratio taken within one turn.

The unit is this process's own CPU time with one thread, which neighbours on a shared machine disturb least; wall time
is kept beside it. The floor is the arithmetic of the matrix products and convolutions alone at the speed of this core's
largest matrix product: what a perfect implementation of the same sums would take.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from statistics import median
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

Work = Callable[[], Any]


@dataclass(frozen=True)
class Row:
    """One line of the table, in milliseconds of CPU. The bar is about `ratio`, or about `ours` where there is none."""

    name: str
    ours: float
    usual: float | None = None
    ratio: float | None = None
    floor: float | None = None
    bar: str = ""
    met: bool | None = None
    more: dict[str, Any] = field(default_factory=dict)


class Race:
    """Several ways to do the same thing, timed in turn; `cpu` and `wall` are median milliseconds per call of each."""

    def __init__(self, works: dict[str, Work], *, turns: int = 15, block_ms: float = 40.0) -> None:
        calls = {name: max(1, round(block_ms / warm(work))) for name, work in works.items()}
        times = [{name: block(work, calls[name]) for name, work in works.items()} for _ in range(turns)]
        self.turns = {
            clock: {name: [turn[name][i] for turn in times] for name in works}
            for i, clock in enumerate(("cpu", "wall"))
        }
        self.cpu, self.wall = ({name: median(each) for name, each in self.turns[c].items()} for c in ("cpu", "wall"))

    def ratio(self, above: str, below: str, clock: str = "cpu") -> float:
        """The median over turns of one side's time over another's."""
        sides = self.turns[clock]
        return median(a / b for a, b in zip(sides[above], sides[below], strict=True))

    def row(self, name: str, bar: float, floor: float | None = None) -> Row:
        """The line of "ours" against "usual": how many times quicker, and at least how many times it should be."""
        ratio = self.ratio("usual", "ours")
        more = {
            "wall_ours": self.wall["ours"],
            "wall_usual": self.wall["usual"],
            "wall_ratio": self.ratio("usual", "ours", "wall"),
        }
        return Row(name, self.cpu["ours"], self.cpu["usual"], ratio, floor, f">= {bar:g}", ratio >= bar, more)


def warm(work: Work) -> float:
    """Milliseconds of a call, after one that is not counted."""
    work()
    return max(block(work, 1)[1], 1e-3)


def block(work: Work, calls: int) -> tuple[float, float]:
    """CPU and wall milliseconds per call."""
    cpu, wall = time.process_time(), time.perf_counter()
    for _ in range(calls):
        work()
    return (time.process_time() - cpu) * 1e3 / calls, (time.perf_counter() - wall) * 1e3 / calls


_PEAK: list[float] = []


def peak() -> float:
    """Operations per millisecond of this core in its fastest float32 matrix product, measured once."""
    if not _PEAK:
        rates = []
        for size in (384, 768, 1024):
            a, b, out = torch.randn(size, size), torch.randn(size, size), torch.empty(size, size)
            rates += [2 * size**3 / block(lambda a=a, b=b, out=out: torch.mm(a, b, out=out), 3)[0] for _ in range(6)]
        _PEAK.append(max(rates))
    return _PEAK[0]


class Operations(TorchDispatchMode):
    """Counts the floating-point operations of matrix products and convolutions, forward and backward."""

    total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run one operation and count it."""
        result = func(*args, **(kwargs or {}))
        if count := flop_registry.get(func.overloadpacket):
            self.total += count(*args, **(kwargs or {}), out_val=result)
        return result


def floor(work: Work) -> float:
    """Milliseconds that the matrix products and convolutions of one call take at this core's peak."""
    with Operations() as counted:
        work()
    return counted.total / peak()
