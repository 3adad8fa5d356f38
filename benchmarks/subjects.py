"""Ours, ready to be timed: learners on made-up data of the usual sizes, stepped exactly as `fit` steps them."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from ornstein.data.episodes import Episodes
from ornstein.noise import Streams
from ornstein.types import Batches, Descend
from ornstein.update import Mode, OneByOne, Together

Way = type[Together] | type[OneByOne]


def episodes(steps: int, *, obs: int = 17, act: int = 6, length: int = 1000, seed: int = 0) -> Episodes:
    """Random episodes of one length, without a true end."""
    count, source = steps // length, torch.Generator().manual_seed(seed)
    last = torch.zeros(count, length, dtype=torch.bool)
    last[:, -1] = True
    return Episodes(
        obs=torch.randn(count * (length + 1), obs, generator=source),
        action=torch.rand(count * length, act, generator=source) * 2 - 1,
        reward=torch.randn(count * length, generator=source),
        terminal=torch.zeros(count * length, dtype=torch.bool),
        truncated=last.flatten(),
        lengths=torch.full((count,), length),
        final_known=torch.ones(count, dtype=torch.bool),
    )


class Training:
    """The inner loop of `fit` without logs and checkpoints: indices, noise, look-up, update, of one or all seeds."""

    def __init__(
        self,
        learners: Sequence[nn.Module],
        data: Batches,
        batch_size: int,
        *,
        way: Way = Together,
        mode: Mode = "eager",
    ) -> None:
        self.rows, self.batch_size = len(data), batch_size
        self.seeds = way(learners, data, steps=10_000, mode=mode)
        phases: Any = learners[0].phases()  # pyright: ignore[reportCallIssue]
        self.specs = {phase.name: phase.noise for phase in phases if isinstance(phase, Descend)}
        self.streams = Streams(range(len(learners)), "benchmark", list(self.specs))
        self.step = 5000  # past the first steps, in which averages only hold

    def __call__(self) -> Any:
        """One update."""
        index = self.streams.indices(self.rows, self.batch_size)
        readings = self.seeds(self.step, index, self.streams.noises(self.specs, self.batch_size))
        self.step += 1
        return readings


def in_turn(works: Sequence[Callable[[], object]]) -> Callable[[], None]:
    """All of them, one after the other: the usual way to train several seeds in one process."""

    def run() -> None:
        for work in works:
            work()

    return run


def copy_layers(ours: nn.Module, theirs: nn.Module) -> None:
    """Copy the weights of all layers, in the order of their definition."""
    kinds = (nn.Linear, nn.Conv1d, nn.ConvTranspose1d, nn.GroupNorm)
    sides = ([layer for layer in side.modules() if isinstance(layer, kinds)] for side in (ours, theirs))
    for source, target in zip(*sides, strict=True):
        target.load_state_dict({name: value.clone() for name, value in source.state_dict().items()})
