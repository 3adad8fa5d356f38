"""Denoising diffusion the way DDPM repositories write it: tables as buffers, gathered by an integer step per sample."""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

Normal = Callable[[Tensor], Tensor]
"""Fresh unit noise like a tensor; the tests hand in recorded noise instead."""


def vp_betas(steps: int) -> Tensor:
    """Diffusion-QL's schedule."""
    t = torch.arange(1, steps + 1, dtype=torch.float64)
    return (1 - torch.exp(-0.1 / steps - 0.5 * (10.0 - 0.1) * (2 * t - 1) / steps**2)).float()


def cosine_betas(steps: int) -> Tensor:
    """Diffuser's schedule."""
    x = torch.linspace(0, steps, steps + 1, dtype=torch.float64)
    bar = torch.cos((x / steps + 0.008) / 1.008 * math.pi * 0.5) ** 2
    return (1 - bar[1:] / bar[:-1]).clip(0, 0.999).float()


def extract(table: Tensor, t: Tensor, shape: torch.Size) -> Tensor:
    """Row t of a table, shaped to multiply a batch."""
    return table.gather(-1, t).reshape(t.shape[0], *(1,) * (len(shape) - 1))


class Chain(nn.Module):
    """The tables of a discrete chain and the two directions through it."""

    betas: Tensor
    alphas_bar: Tensor
    root_bar: Tensor
    root_one_minus: Tensor
    root_recip: Tensor
    root_recip_minus: Tensor
    variance: Tensor
    log_variance: Tensor
    mean_x0: Tensor
    mean_xt: Tensor

    def __init__(self, betas: Tensor) -> None:
        super().__init__()
        alphas = 1.0 - betas
        bar = torch.cumprod(alphas, 0)
        before = torch.cat([torch.ones(1), bar[:-1]])
        variance = betas * (1.0 - before) / (1.0 - bar)
        tables = {
            "betas": betas,
            "alphas_bar": bar,
            "root_bar": bar.sqrt(),
            "root_one_minus": (1.0 - bar).sqrt(),
            "root_recip": (1.0 / bar).sqrt(),
            "root_recip_minus": (1.0 / bar - 1).sqrt(),
            "variance": variance,
            "log_variance": variance.clamp(min=1e-20).log(),
            "mean_x0": betas * before.sqrt() / (1.0 - bar),
            "mean_xt": (1.0 - before) * alphas.sqrt() / (1.0 - bar),
        }
        for name, table in tables.items():
            self.register_buffer(name, table)
        self.steps = len(betas)

    def noised(self, x0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        """A draw of the forward process."""
        return extract(self.root_bar, t, x0.shape) * x0 + extract(self.root_one_minus, t, x0.shape) * noise

    def x0_from_eps(self, x_t: Tensor, t: Tensor, eps: Tensor) -> Tensor:
        """The clean sample that a predicted noise means."""
        return extract(self.root_recip, t, x_t.shape) * x_t - extract(self.root_recip_minus, t, x_t.shape) * eps

    def posterior(self, x0: Tensor, x_t: Tensor, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Mean, variance and log variance of the step before."""
        mean = extract(self.mean_x0, t, x_t.shape) * x0 + extract(self.mean_xt, t, x_t.shape) * x_t
        return mean, extract(self.variance, t, x_t.shape), extract(self.log_variance, t, x_t.shape)

    def back(self, x_t: Tensor, x0: Tensor, t: Tensor, normal: Normal) -> Tensor:
        """One ancestral step, without noise at the last."""
        mean, _, log_variance = self.posterior(x0, x_t, t)
        noise = normal(x_t)
        mask = (1 - (t == 0).float()).reshape(len(x_t), *(1,) * (x_t.dim() - 1))
        return mean + mask * (0.5 * log_variance).exp() * noise


class Sinusoid(nn.Module):
    """The features of a step, made anew at each call."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size

    def forward(self, t: Tensor) -> Tensor:
        half = self.size // 2
        scale = math.log(10000) / (half - 1)
        frequency = torch.exp(torch.arange(half, device=t.device) * -scale)
        angle = t[:, None] * frequency[None, :]
        return torch.cat((angle.sin(), angle.cos()), dim=-1)


def time_network(size: int, hidden: int) -> nn.Sequential:
    """Sinusoid and two layers."""
    return nn.Sequential(Sinusoid(size), nn.Linear(size, hidden), nn.Mish(), nn.Linear(hidden, size))


def follow(target: nn.Module, source: nn.Module, keep: float) -> None:
    """An exponential average, parameter by parameter."""
    for new, old in zip(source.parameters(), target.parameters(), strict=True):
        old.data = old.data * keep + (1 - keep) * new.data


mse = functional.mse_loss
