"""Means of what updates measure, kept on the device until they are asked for."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ornstein.update.descent import Reading


class Means:
    """The mean of every measured value since the last time that it was taken: one column per seed."""

    def __init__(self) -> None:
        self.totals: dict[str, Reading] = {}
        self.counts: dict[str, int] = {}

    def add(self, readings: Mapping[str, Reading]) -> None:
        """Count the readings of one update step in; they may be overwritten afterwards."""
        for phase, reading in readings.items():
            if phase in self.totals:
                self.totals[phase].values.add_(reading.values)
                self.counts[phase] += 1
            else:
                self.totals[phase] = Reading(reading.names, reading.values.clone())
                self.counts[phase] = 1

    def loss(self) -> float:
        """The mean loss of the first phase over steps and living seeds; NaN before the first step."""
        first = next(iter(self.totals), None)
        return float("nan") if first is None else float(self.totals[first].values[0].nanmean() / self.counts[first])

    def take(self) -> dict[str, list[float]]:
        """The mean of each value, one per seed, under the name `phase/value`; and start anew."""
        found = {
            f"{phase}/{name}": row
            for phase, (names, values) in self.totals.items()
            for name, row in zip(names, (values / self.counts[phase]).tolist(), strict=True)
        }
        self.totals, self.counts = {}, {}
        return found

    def state(self, seed: int) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """The sums of one seed, by position, for each phase; and as plain values, for all seeds alike, of what."""
        sums = {phase: reading.values[:, seed] for phase, reading in self.totals.items()}
        kinds = {p: {"names": list(reading.names), "count": self.counts[p]} for p, reading in self.totals.items()}
        return sums, kinds

    def load_state(self, sums: Sequence[Mapping[str, Tensor]], kinds: Mapping[str, Any], device: torch.device) -> None:
        """Go on from where `state` was taken, with the sums of each seed."""
        for phase, kind in kinds.items():
            values = torch.stack([seed[phase] for seed in sums], dim=1).to(device)
            self.totals[phase] = Reading(tuple(kind["names"]), values)
            self.counts[phase] = kind["count"]
