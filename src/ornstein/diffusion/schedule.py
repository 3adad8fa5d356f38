"""Tables of discrete noise schedules: log alpha at k = 0..steps, in double precision."""

import math
from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

Schedule = Literal["vp", "cosine", "linear", "linear_scaled", "scaled_linear", "sqrt", "karras"]
"""Names of the published rules for beta_k, k = 1..steps."""

ENDS: dict[str, tuple[float, float]] = {
    "vp": (0.1, 10.0),
    "linear": (1e-4, 0.02),
    "linear_scaled": (1e-4, 0.02),
    "scaled_linear": (1e-4, 0.02),
    "karras": (0.05, 12.5),
}
"""The (beta_min, beta_max) of each rule that has them, as published; for "karras" the least and largest noise over
signal, with the largest that of "vp".
"""


def betas(
    schedule: Schedule, steps: int, ends: tuple[float, float] | None = None, *, device: torch.device | None = None
) -> Float[Tensor, " steps"]:
    """Variances beta_1..beta_steps added by the steps of a discrete chain, in double precision.

    - "vp": the continuous linear VP process cut into `steps` pieces, so that abar_T does not depend on `steps`.
      Source: Xiao, Kreis, Vahdat 2022 (2112.07804), as in Diffusion-QL.
    - "linear": evenly spaced. Source: Ho, Jain, Abbeel 2020 (2006.11239). Reaches noise only if `steps` is about 1000.
    - "linear_scaled": the same times 1000 / steps. Source: Nichol, Dhariwal 2021 (2102.09672), official code.
    - "scaled_linear": evenly spaced square roots. Source: Rombach et al. 2022 (2112.10752), official code.
    - "cosine": abar = cos^2, each beta at most 0.999. Source: Nichol, Dhariwal 2021 (2102.09672), eq. 17.
    - "karras": noise over signal s_k by its seventh root, evenly spaced, and abar = 1 / (1 + s^2).
      Source: Karras et al. 2022 (2206.00364), eq. 5, on a variance preserving path.
    - "sqrt": abar = 1 - sqrt(u + 1e-4), each beta at most 0.999. Source: Li et al. 2022 (2205.14217).
    """
    if schedule not in get_args(Schedule):
        raise ValueError(f"schedule = {schedule!r} is unknown: choose one of {', '.join(get_args(Schedule))}")
    if schedule in ("cosine", "sqrt"):
        u = torch.linspace(0.0, 1.0, steps + 1, dtype=torch.float64, device=device)
        abar = torch.cos((u + 0.008) / 1.008 * math.pi / 2) ** 2 if schedule == "cosine" else 1 - torch.sqrt(u + 1e-4)
        return (1 - abar[1:] / abar[:-1]).clamp(max=0.999)
    low, high = ends or ENDS[schedule]
    k = torch.arange(1, steps + 1, dtype=torch.float64, device=device)
    if schedule == "vp":
        return -torch.expm1(-low / steps - 0.5 * (high - low) * (2 * k - 1) / steps**2)
    if schedule == "karras":
        root = high ** (1 / 7) + (steps - k) / max(steps - 1, 1) * (low ** (1 / 7) - high ** (1 / 7))
        abar = torch.cat([k.new_ones(1), 1 / (1 + root**14)])
        return 1 - abar[1:] / abar[:-1]
    share = (k - 1) / max(steps - 1, 1)
    if schedule == "scaled_linear":
        return (math.sqrt(low) + share * (math.sqrt(high) - math.sqrt(low))) ** 2
    scale = 1000 / steps if schedule == "linear_scaled" else 1.0
    return scale * (low + share * (high - low))


def log_alphas(
    schedule: Schedule, steps: int, ends: tuple[float, float] | None = None, *, device: torch.device | None = None
) -> Float[Tensor, " nodes"]:
    """Log alpha_k = 0.5 log abar_k for k = 0..steps; the first is 0 (clean data)."""
    chain = 0.5 * torch.cumsum(torch.log1p(-betas(schedule, steps, ends, device=device)), 0)
    return torch.cat([chain.new_zeros(1), chain])
