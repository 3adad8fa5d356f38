"""Weights and losses that prefer better actions without asking for new ones."""

import torch
from jaxtyping import Float
from torch import Tensor


def exponential_weight(
    advantage: Float[Tensor, " *b"], *, temperature: float, largest: float = 100.0
) -> Float[Tensor, " *b"]:
    """min(exp(temperature advantage), largest), detached: the weight of an action in a regression on data.

    `temperature` is inverse: 0 weighs all actions alike, larger values follow the advantage (IQL: 3, AntMaze 10).
    Source: Peng et al. 2019 (1910.00177); Kostrikov et al. 2022 (2110.06169), eq. 7.
    """
    if not temperature >= 0 or not largest > 0:
        raise ValueError(f"temperature = {temperature} must be at least 0 and largest = {largest} positive")
    return (temperature * advantage).exp().clamp(max=largest).detach()


def expectile_loss(error: Float[Tensor, " *b"], *, expectile: float) -> Float[Tensor, " *b"]:
    """|expectile - 1(error < 0)| error^2 per entry, for error = target - value: least at that expectile of the targets.

    Source: Kostrikov et al. 2022 (2110.06169), eq. 3.
    """
    if not 0 < expectile < 1:
        raise ValueError(f"expectile = {expectile} must lie between 0 and 1; 0.5 is the mean")
    return torch.where(error < 0, 1 - expectile, expectile) * error**2


def positive_weight(q: Float[Tensor, " b k"]) -> Float[Tensor, " b k"]:
    """max(Q - V, 0) for each of a row's k actions, V their mean. Source: Ding et al. 2024 (2405.16173), section 4.2."""
    return (q - q.mean(1, keepdim=True)).clamp_min(0.0)
