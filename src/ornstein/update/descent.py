"""One gradient step of one phase: clipping, the judgement over life and death, and Adam, whose state is kept here."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ornstein.types import Adam, Descend, Noise
from ornstein.update.gradient import Gradient, Live, accumulated
from ornstein.update.life import Life, column


class Reading(NamedTuple):
    """Measured values of a phase: one row per name, one column per seed."""

    names: tuple[str, ...]
    values: Tensor


class Descent:
    """The steps of one phase on the named live tensors, and their moments, which have the same leading seed axis."""

    def __init__(
        self,
        phase: Descend,
        live: Live,
        names: Sequence[str],
        gradient: Gradient,
        *,
        life: Life,
        steps: int,
        stacked: bool,
    ) -> None:
        self.phase, self.live, self.names, self.life = phase, live, list(names), life
        self.steps, self.stacked = steps, stacked
        self.gradient = accumulated(gradient, phase, seeds=stacked)
        self.own = [live[name].detach() for name in names]
        self.mean = [torch.zeros_like(p) for p in self.own]
        self.square = [torch.zeros_like(p) for p in self.own]
        device = self.own[0].device
        self.count = torch.zeros((), dtype=torch.float32, device=device)
        self.rate: Any = torch.zeros((), dtype=torch.float32, device=device) if life.static else 0.0

    def set_rate(self, step: int) -> None:
        """Set the learning rate of an update step."""
        rate = learning_rate(self.phase.adam, step, self.steps)
        if self.life.static:
            self.rate.fill_(rate)
        else:
            self.rate = rate

    def __call__(self, batch: Any, noise: Noise) -> Reading:
        """Step once, unless the gradient is not fit for it, and tell what was measured."""
        slope = self.gradient(self.live, batch, noise)
        with torch.no_grad():
            norm = self._norm(slope.gradients)
            loss = slope.loss.detach()
            masked = self.life.judge(self.phase.name, loss.reshape(-1), norm.reshape(-1))
            gradients = self._clipped(slope.gradients, norm)
            if decay := self.phase.adam.weight_decay:
                gradients = torch._foreach_add(list(gradients), self.own, alpha=decay)  # pyright: ignore[reportPrivateImportUsage]
            if masked and self.stacked:
                gradients = self._of_the_living(gradients)
            self._adam(gradients, skip=(~self.life.alive).float() if masked and not self.stacked else None)
            names = ("loss", *slope.metrics, "grad_norm")
            values = torch.stack([loss, *(value.detach() for value in slope.metrics.values()), norm])
        return Reading(names, values.view(len(names), -1))

    def _norm(self, gradients: list[Tensor]) -> Tensor:
        """The norm over all of the phase's gradients, one per seed."""
        if not self.stacked:
            return torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))  # pyright: ignore[reportPrivateImportUsage]
        return torch.linalg.vector_norm(
            torch.stack([torch.linalg.vector_norm(g.flatten(1), dim=1) for g in gradients]), dim=0
        )

    def _clipped(self, gradients: list[Tensor], norm: Tensor) -> Sequence[Tensor]:
        """Gradients of norm at most `clip`, by the factor of torch.nn.utils.clip_grad_norm_."""
        clip = self.phase.adam.clip
        if not clip:
            return gradients
        if self.stacked:
            factor = (clip / (norm + 1e-6)).clamp(max=1.0)
            return [g * column(factor, g, stacked=True) for g in gradients]
        if self.life.static:
            return torch._foreach_mul(gradients, (clip / (norm + 1e-6)).clamp(max=1.0))  # pyright: ignore[reportPrivateImportUsage]
        factor = clip / (norm.item() + 1e-6)
        return torch._foreach_mul(gradients, factor) if factor < 1.0 else gradients  # pyright: ignore[reportPrivateImportUsage]

    def _of_the_living(self, gradients: Sequence[Tensor]) -> list[Tensor]:
        """Zero gradients and first moments for dead seeds: Adam then moves them by exactly nothing."""
        for moment in self.mean:
            moment.mul_(column(self.life.alive, moment, stacked=True))
        return [torch.where(column(self.life.alive, g, stacked=True), g, 0.0) for g in gradients]

    def _adam(self, gradients: Sequence[Tensor], *, skip: Tensor | None) -> None:
        """Torch's fused Adam on our own state: the optimiser class costs a small network as much again as the step.

        Where `skip` is 1 it changes nothing.
        """
        self.count.add_(1)
        beta1, beta2 = self.phase.adam.betas
        torch._fused_adam_(  # pyright: ignore[reportPrivateImportUsage]
            self.own,
            list(gradients),
            self.mean,
            self.square,
            [],
            [self.count] * len(self.own),
            lr=self.rate,
            beta1=beta1,
            beta2=beta2,
            weight_decay=0.0,
            eps=1e-8,
            amsgrad=False,
            maximize=False,
            found_inf=skip,
        )

    def tensors(self) -> list[Tensor]:
        """All tensors that a step changes, but for the weights."""
        return [*self.mean, *self.square, self.count]

    def state(self, seed: int) -> dict[str, Tensor]:
        """The moments and the step count of one seed, by position."""
        found = {f"{self.phase.name}/count": self.count}
        for name, mean, square in zip(self.names, self.mean, self.square, strict=True):
            found[f"{self.phase.name}/{name}/mean"] = mean[seed] if self.stacked else mean
            found[f"{self.phase.name}/{name}/square"] = square[seed] if self.stacked else square
        return found

    def load_state(self, states: Sequence[Mapping[str, Tensor]]) -> None:
        """Take over what `state` gave, one mapping per seed."""
        name = self.phase.name
        self.count.copy_(states[0][f"{name}/count"])
        for kind, moments in (("mean", self.mean), ("square", self.square)):
            for parameter, moment in zip(self.names, moments, strict=True):
                saved = [state[f"{name}/{parameter}/{kind}"] for state in states]
                moment.copy_(torch.stack(saved) if self.stacked else saved[0])


def learning_rate(adam: Adam, step: int, steps: int) -> float:
    """The rate at an update step, counted from 0: linear over `warmup` steps, then constant or half a cosine to 0."""
    if step < adam.warmup:
        return adam.lr * (step + 1) / adam.warmup
    if adam.schedule == "constant":
        return adam.lr
    return adam.lr * 0.5 * (1.0 + math.cos(math.pi * (step - adam.warmup) / max(steps - adam.warmup, 1)))
