"""How the seeds of a run are updated: all together over a leading axis, or one after the other."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ornstein.types import Batches, Noise
from ornstein.update.capture import Captured, PerSeed, gather, move
from ornstein.update.descent import Reading
from ornstein.update.life import Diverged
from ornstein.update.update import Mode, Update


class Together:
    """One update of all seeds: over a leading axis of every tensor if there are several. The way of a GPU.

    There, four seeds launch as many kernels as one; on a CPU the wider tensors leave its cache.
    """

    def __init__(
        self,
        learners: Sequence[nn.Module],
        data: Batches,
        *,
        steps: int,
        mode: Mode = "eager",
        loss_limit: float = 1e9,
    ) -> None:
        self.update = Update(learners, steps=steps, mode=mode, loss_limit=loss_limit)
        self.data = data
        self.captured = Captured(self.update, data) if mode == "graphs" else None

    def __call__(
        self, step: int, index: Sequence[Tensor], noises: Sequence[Mapping[str, Noise]]
    ) -> Mapping[str, Reading]:
        """Run one update step on the batches at one set of indices and noises per seed."""
        rows, draws = collate(index, noises)
        if self.captured:
            return self.captured(step, rows, draws)
        rows, draws = move((rows, draws), self.update.device)
        return self.update(step, gather(self.data, rows), draws)

    def causes(self) -> dict[int, str]:
        """What each dead seed, by position, died of; this waits for the device."""
        return self.update.life.causes()

    def end(self, seed: int) -> None:
        """Freeze the seed at this position."""
        self.update.life.end(seed)

    def write_back(self) -> None:
        """Let the learners hold the present weights."""
        self.update.write_back()

    def state(self, seed: int) -> dict[str, Tensor]:
        """What has to be put back for the seed at this position, besides its weights."""
        return self.update.state(seed)

    def load_state(self, states: Sequence[Mapping[str, Tensor]]) -> None:
        """Put back what `state` gave, one mapping per seed."""
        self.update.load_state(states)


class OneByOne:
    """Each seed by itself, so that its results are bit for bit those of a run of its own. The way of a CPU."""

    def __init__(
        self, learners: Sequence[nn.Module], data: Batches, *, steps: int, mode: Mode = "eager", loss_limit: float = 1e9
    ) -> None:
        options: dict[str, Any] = {"steps": steps, "mode": mode, "loss_limit": loss_limit}
        own = data.parts if isinstance(data, PerSeed) else [data] * len(learners)
        self.lanes = [Together([learner], part, **options) for learner, part in zip(learners, own, strict=True)]
        self.dead: set[int] = set()

    def __call__(
        self, step: int, index: Sequence[Tensor], noises: Sequence[Mapping[str, Noise]]
    ) -> Mapping[str, Reading]:
        """Run one update step of every living seed; the values of dead ones are NaN."""
        found: list[Mapping[str, Reading] | None] = []
        for i, lane in enumerate(self.lanes):
            try:
                found.append(None if i in self.dead else lane(step, index[i : i + 1], noises[i : i + 1]))
            except Diverged:
                self.dead.add(i)
                found.append(None)
                if len(self.dead) == len(self.lanes):
                    raise
        return join(found)

    def causes(self) -> dict[int, str]:
        """What each dead seed, by position, died of."""
        return {i: cause for i, lane in enumerate(self.lanes) for cause in lane.causes().values()}

    def end(self, seed: int) -> None:
        """Freeze the seed at this position."""
        self.dead.add(seed)

    def write_back(self) -> None:
        """Nothing to do: each learner trains in place."""

    def state(self, seed: int) -> dict[str, Tensor]:
        """What has to be put back for the seed at this position, besides its weights."""
        return self.lanes[seed].state(0)

    def load_state(self, states: Sequence[Mapping[str, Tensor]]) -> None:
        """Put back what `state` gave, one mapping per seed."""
        for lane, state in zip(self.lanes, states, strict=True):
            lane.load_state([state])


def collate(index: Sequence[Tensor], noises: Sequence[Mapping[str, Noise]]) -> tuple[Tensor, Mapping[str, Noise]]:
    """Indices and noises of several seeds along a leading axis, or those of the only one."""
    if len(index) == 1:
        return index[0], noises[0]
    draws: dict[str, Any] = {
        name: {entry: torch.stack([n[name][entry] for n in noises]) for entry in noise}
        for name, noise in noises[0].items()
    }
    return torch.stack(list(index)), draws


def join(found: Sequence[Mapping[str, Reading] | None]) -> dict[str, Reading]:
    """The readings of all seeds side by side; NaN where a seed has none."""
    some = next(readings for readings in found if readings is not None)
    missing = {name: torch.full_like(reading.values, torch.nan) for name, reading in some.items()}
    return {
        name: Reading(r.names, torch.cat([missing[name] if f is None else f[name].values for f in found], dim=1))
        for name, r in some.items()
    }
