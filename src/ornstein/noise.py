"""Randomness as data: named generators, and the draws that losses and acts declare."""

from hashlib import blake2b

import torch
from torch import Generator

from ornstein.types import Noise, NoiseSpec


def generator(*names: object) -> Generator:
    """A CPU generator whose stream depends on every one of `names`, for instance (seed, stage, phase).

    Streams of different names are independent for all practical purposes: the seed is a 63-bit hash of the names.
    """
    digest = blake2b("\0".join(map(str, names)).encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "big") >> 1)


def draw(spec: NoiseSpec, rows: int, source: Generator) -> Noise:
    """The tensors that `spec` names, drawn in its order on the CPU: (rows, *shape), or (*shape) for draws per update."""
    laws = {"normal": torch.randn, "uniform": torch.rand}
    return {
        name: laws[need.law]((rows, *need.shape) if need.per == "row" else need.shape, generator=source)
        for name, need in spec.items()
    }
