"""Learning from a policy's own newest steps: advantages along episodes, scaled rewards, and steps that stay near."""

import math

import torch
from jaxtyping import Float
from torch import Tensor


def generalised_advantage(
    reward: Float[Tensor, " t n"],
    value: Float[Tensor, " t n"],
    next_value: Float[Tensor, " t n"],
    *,
    terminal: Float[Tensor, " t n"],
    end: Float[Tensor, " t n"],
    discount: float,
    trace: float,
) -> Float[Tensor, " t n"]:
    """The sum of (discount trace)^i delta_(t + i) to the episode's end, delta = reward + discount V(s') - V(s).

    `next_value` is that of the observation after the step, also where the episode ended there; `terminal` alone takes
    it away, and `end` (terminal, or cut by a time limit) ends the sum. Behind the last row nothing is known.
    Source: Schulman et al. 2016 (1506.02438), eq. 16.
    """
    delta = reward + discount * (1 - terminal) * next_value - value
    found, ahead = [], torch.zeros_like(delta[0])
    for error, last in zip(delta.flip(0), end.flip(0), strict=True):
        ahead = error + discount * trace * (1 - last) * ahead
        found.append(ahead)
    return torch.stack(found).flip(0)


def clipped_gain(
    log_ratio: Float[Tensor, " *#b"], weight: Float[Tensor, " *#b"], reach: Float[Tensor, " *#b"]
) -> Float[Tensor, " *#b"]:
    """min(ratio weight, clamp(ratio, 1 - reach, 1 + reach) weight): what a likelier draw gains, up to that reach.

    Source: Schulman et al. 2017 (1707.06347), eq. 7.
    """
    ratio = log_ratio.exp()
    return torch.minimum(ratio * weight, ratio.clamp(1 - reach, 1 + reach) * weight)


def rising_reach(first: float, last: float, n: int, *, rate: float = 3.0) -> Float[Tensor, " n"]:
    """The reach of each of n denoising steps, from `first` to `last` by
    (exp(rate u) - 1) / (exp(rate) - 1), u from 0 to 1; of a single step, the last.

    Source: the official code of Ren et al. 2024 (2409.00588).
    """
    u = torch.linspace(0, 1, n, dtype=torch.float64) if n > 1 else torch.ones(1, dtype=torch.float64)
    return (first + (last - first) * torch.expm1(rate * u) / math.expm1(rate)).float()


def drift(log_ratio: Float[Tensor, " *b"]) -> Float[Tensor, ""]:
    """The divergence KL(old | new) by draws of the old law: the mean of (ratio - 1) - log ratio, never negative.

    Source: Schulman 2020, Approximating KL divergence.
    """
    return (torch.expm1(log_ratio) - log_ratio).mean()


def standardised(x: Float[Tensor, " b"]) -> Float[Tensor, " b"]:
    """Mean 0 and standard deviation 1 over the batch."""
    return (x - x.mean()) / (x.std(correction=0) + 1e-8)


class ReturnScale:
    """Rewards over the running standard deviation of their discounted sums, in n environments, clipped to 10.

    The sums begin anew with each episode and go on from one call to the next.
    Source: Engstrom et al. 2020 (2005.12729), on its part in PPO.
    """

    def __init__(self, n: int, discount: float, *, clip: float = 10.0) -> None:
        self.discount, self.clip = discount, clip
        self.sums = torch.zeros(n, dtype=torch.float64)
        self.moments = torch.zeros(3, dtype=torch.float64)  # how many sums, their mean, their squared distances from it

    def __call__(self, reward: Float[Tensor, " t n"], end: Float[Tensor, " t n"]) -> Float[Tensor, " t n"]:
        """The rewards of the next t steps, scaled, these steps counted in."""
        sums = []
        for now, last in zip(reward.double(), end.double(), strict=True):
            sums.append(self.discount * self.sums + now)
            self.sums = sums[-1] * (1 - last)
        self._count(torch.stack(sums))
        spread = (self.moments[2] / self.moments[0]).sqrt() + 1e-8
        return (reward / spread).clamp(-self.clip, self.clip).to(reward.dtype)

    def restart(self) -> None:
        """All episodes are over."""
        self.sums = torch.zeros_like(self.sums)

    def _count(self, sums: Float[Tensor, " t n"]) -> None:
        """Add values to the moments (Chan et al. 1979)."""
        count, mean, square = self.moments
        more, centre = sums.numel(), sums.mean()
        total, apart = count + more, centre - mean
        squares = square + (sums - centre).square().sum() + apart**2 * count * more / total
        self.moments = torch.stack([total, mean + apart * more / total, squares])
