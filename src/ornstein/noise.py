"""Randomness as data: named generators, and the draws that losses and acts declare."""

from collections.abc import Mapping, Sequence
from hashlib import blake2b

import torch
from jaxtyping import Int
from torch import Generator, Tensor

from ornstein.types import Noise, NoiseSpec

_LAWS = {"normal": torch.randn, "uniform": torch.rand}


def generator(*names: object) -> Generator:
    """A CPU generator whose stream depends on every one of `names`, for instance (seed, stage, phase).

    Streams of different names are independent for all practical purposes: the seed is a 63-bit hash of the names.
    """
    digest = blake2b("\0".join(map(str, names)).encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "big") >> 1)


def draw(spec: NoiseSpec, rows: int, source: Generator) -> Noise:
    """The tensors that `spec` names, drawn in its order on the CPU: (rows, *shape), or shape for draws per update."""
    return {
        name: _LAWS[need.law]((rows, *need.shape) if need.per == "row" else need.shape, generator=source)
        for name, need in spec.items()
    }


class Streams:
    """The random streams of one stage of training: for each seed one for the batches and one for each phase."""

    def __init__(self, seeds: Sequence[int], stage: str, phases: Sequence[str]) -> None:
        self.batches = [generator(seed, stage, "batch") for seed in seeds]
        self.phases = [{name: generator(seed, stage, "phase", name) for name in phases} for seed in seeds]

    def indices(self, size: int, rows: int) -> list[Int[Tensor, " rows"]]:
        """For each seed, the indices of its next batch from a data set of this size, drawn with replacement."""
        return [torch.randint(size, (rows,), generator=source) for source in self.batches]

    def noises(self, specs: Mapping[str, NoiseSpec], rows: int) -> list[dict[str, Noise]]:
        """For each seed, the next noise of the named phases; the streams of other phases stay where they are."""
        return [{name: draw(spec, rows, own[name]) for name, spec in specs.items()} for own in self.phases]

    def state(self, seed: int) -> dict[str, Tensor]:
        """Where the streams of one seed, by position, stand."""
        named = {f"phase/{name}": source for name, source in self.phases[seed].items()}
        return {name: source.get_state() for name, source in (named | {"batch": self.batches[seed]}).items()}

    def load_state(self, states: Sequence[Mapping[str, Tensor]]) -> None:
        """Go on from where `state` was taken, one mapping per seed."""
        for batch, phases, state in zip(self.batches, self.phases, states, strict=True):
            batch.set_state(state["batch"])
            for name, source in phases.items():
                source.set_state(state[f"phase/{name}"])
