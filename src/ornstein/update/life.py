"""Which seeds of a training are alive, and what the others died of."""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor


class Diverged(RuntimeError):
    """A loss or gradient that is not finite, or a loss beyond the limit; the weights are those before that step."""


class Life:
    """A seed dies when a phase's loss or gradient is not finite or its loss exceeds `limit`; from then on it is frozen.

    `static`: nothing is ever read back to the host, so that the judgement can be captured in a graph and never waits
    for a device; masks are then always applied. Otherwise the death of the last seed raises `Diverged` at once.
    """

    def __init__(
        self, seeds: int, phases: Sequence[str], *, device: torch.device, static: bool = False, limit: float = 1e9
    ) -> None:
        self.alive: Bool[Tensor, " seeds"] = torch.ones(seeds, dtype=torch.bool, device=device)
        self.clock = torch.zeros((), dtype=torch.float64, device=device)
        self.records = {name: torch.full((3, seeds), -1.0, dtype=torch.float64, device=device) for name in phases}
        self.static, self.limit = static, limit
        self.masked = static

    def judge(self, phase: str, loss: Float[Tensor, " seeds"], norm: Float[Tensor, " seeds"]) -> bool:
        """Note who dies in this phase of the step on the clock; whether the dead have to be masked out."""
        if not self.masked and self._plainly_fine(loss.tolist(), norm.tolist()):
            return False
        fine = torch.isfinite(norm) & (loss.abs() < self.limit)  # a NaN compares false
        record, now = self.records[phase], self.clock.expand(len(fine))
        newly = self.alive & ~fine
        record.copy_(torch.where(newly, torch.stack([now, loss.double(), norm.double()]), record))
        self.alive.logical_and_(fine)
        if not self.static:
            self.masked = not bool(self.alive.all())
            if not bool(self.alive.any()):
                raise Diverged(next(iter(self.causes().values())))
        return self.masked

    def _plainly_fine(self, losses: list[float], norms: list[float]) -> bool:
        """The same judgement on the host, where a handful of numbers is quicker than as many tensor operations."""
        return all(map(math.isfinite, norms)) and all(abs(loss) < self.limit for loss in losses)

    def end(self, seed: int) -> None:
        """Freeze the seed at this position: it died in an earlier session or stage."""
        self.alive[seed] = False
        self.masked = True

    def causes(self) -> dict[int, str]:
        """For each seed that died here (by position) the phase, the step, and its loss and gradient norm there."""
        first: dict[int, tuple[float, str]] = {}
        for phase, record in self.records.items():
            for seed, (step, loss, norm) in enumerate(record.T.tolist()):
                if step >= 0 and (seed not in first or step < first[seed][0]):
                    what = f"phase {phase!r} diverged at step {step:.0f}: loss {loss:.4g}, gradient norm {norm:.4g}"
                    first[seed] = (step, f"{what}, of which both must be finite and the loss below {self.limit:g}")
        return {seed: first[seed][1] for seed in sorted(first)}

    def tensors(self) -> list[Tensor]:
        """All tensors that a step may change."""
        return [self.alive, *self.records.values()]


def column(per_seed: Tensor, like: Tensor, *, stacked: bool) -> Tensor:
    """One value per seed, shaped so that it multiplies tensors of those seeds."""
    return per_seed.view(-1, *(1,) * (like.dim() - 1)) if stacked else per_seed[0]
