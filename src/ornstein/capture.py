"""CUDA graphs of a whole update: indices and noise are copied into fixed tensors, everything after them is replayed."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ornstein.types import Batches, Noise, Phase
from ornstein.update import Update


class Captured:
    """An `Update` whose variants, one for each set of active phases, are captured at first use and replayed afterwards.

    The data must live on the same device: sampling by index is part of the graph. Before a capture the update runs three times
    on a side stream, as capturing asks for; the tensors that these runs change are put back, so that they do not count.
    """

    def __init__(self, update: Update, data: Batches) -> None:
        if update.device.type != "cuda":
            raise ValueError(
                f"mode 'graphs' needs a CUDA device, the learner is on {update.device}; use mode 'eager' or 'compiled'"
            )
        self.update, self.data = update, data
        self.variants: dict[
            tuple[Any, ...], tuple[torch.cuda.CUDAGraph, dict[str, Tensor], Tensor, dict[str, dict[str, Tensor]]]
        ] = {}

    def __call__(self, step: int, index: Tensor, noises: Mapping[str, Noise]) -> dict[str, Tensor]:
        """Replay the update of this step on new indices and noise; metrics are the graph's own tensors, read them before the next."""
        phases = self.update.active(step)
        key = tuple((id(phase), step < getattr(phase, "after", 0)) for phase in phases)
        self.update.clock.fill_(step)
        self.update.set_rates(step)
        if key not in self.variants:
            self.variants[key] = self._capture(phases, step, index, noises)
        graph, metrics, fixed_index, fixed_noises = self.variants[key]
        fixed_index.copy_(index, non_blocking=True)
        for name, noise in noises.items():
            for entry, value in noise.items():
                fixed_noises[name][entry].copy_(value, non_blocking=True)
        graph.replay()
        return metrics

    def _capture(self, phases: tuple[Phase, ...], step: int, index: Tensor, noises: Mapping[str, Noise]) -> Any:
        device = self.update.device
        fixed_index = index.to(device).clone()
        fixed = {
            name: {entry: value.to(device).clone() for entry, value in noise.items()} for name, noise in noises.items()
        }
        state = self._changing()
        kept = [tensor.clone() for tensor in state]
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(3):
                self.update.run(phases, step, gather(self.data, fixed_index), fixed)
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            metrics = self.update.run(phases, step, gather(self.data, fixed_index), fixed)
        with torch.no_grad():
            for tensor, value in zip(state, kept, strict=True):
                tensor.copy_(value)
        return graph, metrics, fixed_index, fixed

    def _changing(self) -> list[Tensor]:
        moments = [t for o in self.update.optimisers.values() for state in o.state.values() for t in state.values()]
        return (
            [p.detach() for p in self.update.params.values()]
            + moments
            + [self.update.alive, *self.update.died.values()]
        )


def gather(data: Batches, index: Tensor) -> Any:
    """The batch at indices (b,), or one batch per seed with a leading seed axis at indices (seeds, b)."""
    if index.dim() == 1:
        return data.gather(index)
    batch = data.gather(index.flatten())
    return type(batch)(*(field.unflatten(0, index.shape) for field in batch))
