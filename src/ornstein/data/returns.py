"""Discounted sums of rewards to the end of each episode, without a loop over steps."""

import torch
from jaxtyping import Float, Int
from torch import Tensor


def returns_to_go(
    reward: Float[Tensor, " steps"], lengths: Int[Tensor, " episodes"], discount: float
) -> Float[Tensor, " steps"]:
    """G_i = r_i + gamma r_(i+1) + ... up to the end of the episode of step i, in float64.

    Sums over 1, 2, 4, ... steps are joined pairwise, G_i^(2s) = G_i^(s) + gamma^s G_(i+s)^(s), so log2(longest episode)
    passes do it. Each term is added with its own factor gamma^k <= 1: nothing is divided by a vanishing power of gamma.
    """
    ends = torch.repeat_interleave(lengths.cumsum(0), lengths)
    remaining = ends - torch.arange(len(reward), device=reward.device)
    total = reward.double()
    span, longest = 1, int(lengths.max())
    while span < longest:
        later = torch.where(remaining[:-span] > span, total[span:], 0.0)
        total = torch.cat([total[:-span] + discount**span * later, total[-span:]])
        span *= 2
    return total
