"""Weights between losses, and the terms of the variational bound on -log p(x0), per entry and in nats."""

import math

import torch
from torch import Tensor

from ornstein.diffusion.denoiser import Predict
from ornstein.diffusion.solver import DDIM
from ornstein.types import Point, X


def min_snr(predict: Predict, level: Point, limit: float = 5.0) -> Tensor:
    """Weight on the squared error of a parameterisation that weighs x0's by min(alpha^2 / sigma^2, limit).

    Source: Hang et al. 2023 (2303.09556), eq. 3, for every parameterisation.
    """
    return torch.clamp((level.alpha / level.sigma) ** 2, max=limit) / predict.gain(level) ** 2


def start_bound(x0: X, level: Point) -> X:
    """KL(q(x_T | x0) || N(0, 1)): what is lost by starting from pure noise."""
    return 0.5 * (level.sigma**2 + (level.alpha * x0) ** 2 - 1) - torch.log(level.sigma)


def step_bound(error: X, variance: Tensor, now: Point, then: Point) -> X:
    """KL of the posterior q(x_s | x_t, x0) from a model with x0 wrong by `error` and this variance.

    Source: Ho, Jain, Abbeel 2020 (2006.11239), eq. 8; Nichol, Dhariwal 2021 (2102.09672), eq. 6.
    """
    _, pull, std = DDIM(1.0).row(now, then)
    return 0.5 * (torch.log(variance / std**2) - 1 + (std**2 + (pull * error) ** 2) / variance)


def data_bound(error: X, variance: Tensor) -> X:
    """-log N(x0; x0hat, variance): the last term, for continuous data."""
    return 0.5 * (torch.log(2 * math.pi * variance) + error**2 / variance)
