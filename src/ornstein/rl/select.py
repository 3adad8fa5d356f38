"""Choosing one of several candidate actions by their values, with the randomness handed in."""

import torch
from jaxtyping import Float
from torch import Tensor


def best(candidates: Float[Tensor, " b k *x"], value: Float[Tensor, " b k"]) -> Float[Tensor, " b *x"]:
    """The candidate of the highest value in each row."""
    return take(candidates, value.argmax(1))


def draw_by_value(
    candidates: Float[Tensor, " b k *x"], value: Float[Tensor, " b k"], uniform: Float[Tensor, " b k"]
) -> Float[Tensor, " b *x"]:
    """One candidate of each row, drawn with the probabilities softmax(value): the Gumbel-max of uniform numbers in
    [0, 1).
    """
    gumbel = -torch.log(-torch.log(uniform.clamp(1e-12, 1 - 1e-7)))
    return best(candidates, value + gumbel)


def take(candidates: Float[Tensor, " b k *x"], index: Tensor) -> Float[Tensor, " b *x"]:
    """Row i's candidate number index[i]."""
    spread = index.view(-1, *(1,) * (candidates.dim() - 1)).expand(-1, 1, *candidates.shape[2:])
    return candidates.gather(1, spread).squeeze(1)
