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
    return best(candidates, value + _gumbel(uniform))


def perturbed(log_prob: Float[Tensor, " b k"], uniform: Float[Tensor, " b k"]) -> Float[Tensor, " b k"]:
    """Scores whose highest is a draw from the probabilities exp(log_prob), by uniform numbers in [0, 1)."""
    return log_prob + _gumbel(uniform)


def draw_several(
    candidates: Float[Tensor, " b k *x"], value: Float[Tensor, " b k"], uniform: Float[Tensor, " b k"], n: int
) -> Float[Tensor, " b n *x"]:
    """`n` different candidates of each row, one after the other by softmax(value) of those that are left.

    Source: Kool et al. 2019 (1903.06059), the Gumbel-top-k trick.
    """
    chosen = (value + _gumbel(uniform)).topk(n, dim=1).indices
    spread = chosen.view(*chosen.shape, *(1,) * (candidates.dim() - 2)).expand(-1, -1, *candidates.shape[2:])
    return candidates.gather(1, spread)


def take(candidates: Float[Tensor, " b k *x"], index: Tensor) -> Float[Tensor, " b *x"]:
    """Row i's candidate number index[i]."""
    spread = index.view(-1, *(1,) * (candidates.dim() - 1)).expand(-1, 1, *candidates.shape[2:])
    return candidates.gather(1, spread).squeeze(1)


def _gumbel(uniform: Tensor) -> Tensor:
    return -torch.log(-torch.log(uniform.clamp(1e-12, 1 - 1e-7)))
