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


def planned_returns(
    reward: Float[Tensor, " steps"],
    lengths: Int[Tensor, " episodes"],
    discount: float,
    value: Float[Tensor, " steps"],
    *,
    swap: bool = False,
) -> Float[Tensor, " steps"]:
    """The best that is known of each step: at every later one of its episode either the record goes on, or its value.

    R_i = r_i + gamma max(R_(i+1), V_(i+1)) with R = r at an episode's last step, in float64: nothing is bootstrapped
    past the end. `swap`: R_i = max(r_i + gamma R_(i+1), V_i) instead, which credits a step with a value that its own
    action may not have.
    Source: Chen et al. 2023 (2209.14548), SfBC, eq. 9; `swap` as in its official code.
    """
    total, value = reward.double(), value.double()
    first = lengths.cumsum(0) - lengths
    for i in range(int(lengths.max()) - 1, -1, -1):
        step = first[lengths > i] + i
        inner = lengths[lengths > i] > i + 1
        after = torch.where(inner, step + 1, step)
        ahead = total[after] if swap else torch.maximum(total[after], value[after])
        found = total[step] + discount * torch.where(inner, ahead, 0.0)
        total[step] = torch.maximum(found, value[step]) if swap else found
    return total
