"""CUDA graphs of a whole update: indices and noise are copied into fixed tensors, everything after them is replayed."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Int
from torch import Tensor
from torch.utils import _pytree as pytree

from ornstein.types import Batches, Noise, Phase
from ornstein.update.descent import Reading
from ornstein.update.update import Update

Recorder = Callable[[Callable[[], Any], torch.device], tuple[Callable[[], None], Any]]
"""Records the work of a function without doing it; gives what repeats that work, and the results' fixed tensors."""


def cuda_graph(work: Callable[[], Any], device: torch.device) -> tuple[Callable[[], None], Any]:
    """A CUDA graph of `work`, which has run before on a side stream, and its results, overwritten by every replay."""
    with torch.cuda.device(device):
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            results = work()
    return graph.replay, results


class Variant(NamedTuple):
    """The recorded update for one set of active phases."""

    replay: Callable[[], None]
    readings: dict[str, Reading]
    indices: Tensor
    noises: Mapping[str, Noise]


class Captured:
    """An `Update` whose variants, one for each set of active phases, are recorded at first use and replayed afterwards.

    The data must live on the same device: sampling by index is part of the graph. Before it is recorded the update runs
    three times on a side stream, as recording asks for; what these runs change is put back, so that they do not count.
    Nothing inside reads a tensor back to the host, and every tensor that outlives a step is changed in place.
    """

    def __init__(self, update: Update, data: Batches, *, recorder: Recorder = cuda_graph) -> None:
        if update.device.type != "cuda" and recorder is cuda_graph:
            raise ValueError(
                f"mode 'graphs' needs a CUDA device, the learner is on {update.device}; use mode 'eager' or 'compiled'"
            )
        self.update, self.data, self.recorder = update, data, recorder
        self.variants: dict[tuple[Any, ...], Variant] = {}

    def __call__(self, step: int, index: Tensor, noises: Mapping[str, Noise]) -> dict[str, Reading]:
        """Replay this step's update on new indices and noise; its next replay overwrites the readings."""
        phases = self.update.active(step)
        key = tuple((id(phase), step < getattr(phase, "after", 0)) for phase in phases)
        self.update.prepare(step)
        if key not in self.variants:
            self.variants[key] = self._record(phases, step, index, noises)
        variant = self.variants[key]
        load(variant.indices, index)
        for name, noise in noises.items():
            for entry, values in noise.items():
                load(variant.noises[name][entry], values)
        variant.replay()
        return variant.readings

    def _record(self, phases: tuple[Phase, ...], step: int, index: Tensor, noises: Mapping[str, Noise]) -> Variant:
        device = self.update.device
        fixed_index = index.to(device, copy=True)
        fixed = {
            name: {e: values.to(device, copy=True) for e, values in noise.items()} for name, noise in noises.items()
        }

        def work() -> dict[str, Reading]:
            return self.update.run(phases, step, gather(self.data, fixed_index), fixed)

        state = self.update.tensors()
        kept = [tensor.clone() for tensor in state]
        self._warm_up(work)
        replay, readings = self.recorder(work, device)
        with torch.no_grad():
            for tensor, values in zip(state, kept, strict=True):
                tensor.copy_(values)
        return Variant(replay, readings, fixed_index, fixed)

    def _warm_up(self, work: Callable[[], Any]) -> None:
        """Let libraries and autograd set themselves up, on a side stream."""
        device = self.update.device
        if device.type != "cuda":
            work()
            return
        side = torch.cuda.Stream(device)
        side.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(side):
            for _ in range(3):
                work()
        torch.cuda.current_stream(device).wait_stream(side)


def load(fixed: Tensor, values: Tensor) -> None:
    """Copy into a fixed tensor; from the host to a GPU through pinned memory, without waiting."""
    fixed.copy_(values.pin_memory() if fixed.is_cuda and not values.is_cuda else values, non_blocking=True)


def move(values: Any, device: torch.device) -> Any:
    """A pytree of tensors from the host on a device; to a GPU through pinned memory, without waiting."""
    if device.type == "cpu":
        return values
    if device.type != "cuda":
        return pytree.tree_map(lambda x: x.to(device), values)
    return pytree.tree_map(lambda x: x if x.is_cuda else x.pin_memory().to(device, non_blocking=True), values)


class PerSeed:
    """Data sets of one size, one for each seed of a run, where what is learned from depends on what was learned."""

    def __init__(self, parts: Sequence[Batches]) -> None:
        if len({len(part) for part in parts}) != 1:
            raise ValueError(f"data of {[len(part) for part in parts]} examples: give every seed as many")
        self.parts = list(parts)

    def __len__(self) -> int:
        return len(self.parts[0])

    def to(self, where: torch.device | str) -> "PerSeed":
        """The same data on a device."""
        return PerSeed([part.to(where) for part in self.parts])

    def gather(self, index: Int[Tensor, " b"]) -> Any:
        """The batch of the only seed, or of the first of several."""
        return self.parts[0].gather(index)


def gather(data: Batches, index: Tensor) -> Any:
    """The batch at indices (b,), or one batch per seed with a leading seed axis at indices (seeds, b)."""
    if index.dim() == 1:
        return data.gather(index)
    if isinstance(data, PerSeed):
        batches = [part.gather(own) for part, own in zip(data.parts, index, strict=True)]
        return type(batches[0])(*(torch.stack(fields) for fields in zip(*batches, strict=True)))
    batch = data.gather(index.flatten())
    return type(batch)(*(field.unflatten(0, index.shape) for field in batch))
