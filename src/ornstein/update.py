"""One update of a learner, or of many seeds of it at once: the phases, their gradients, the optimisers' state.

A learner only declares phases. This file decides how they run: eagerly, compiled, or over N seeds with a leading axis on every
tensor (`torch.func` over the same losses), with clipping per seed and a diverged seed frozen while the others go on.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad_and_value, stack_module_state, vmap

from ornstein.rl.average import blend_tensors
from ornstein.types import Adam, Average, Descend, Noise, Phase

Mode = Literal["eager", "compiled", "graphs"]
Gradient = tuple[Sequence[Tensor], Tensor, Mapping[str, Tensor]]


class Diverged(RuntimeError):
    """A loss or gradient that is not finite, or a loss beyond the limit; the weights are those before that step."""


class Update:
    """The state of training: live tensors (with a leading seed axis if there are several learners) and Adam's moments."""

    def __init__(
        self, learners: Sequence[nn.Module], *, steps: int, mode: Mode = "eager", loss_limit: float = 1e9
    ) -> None:
        self.learners, self.template = list(learners), learners[0]
        self.phases: tuple[Phase, ...] = self.template.phases()  # pyright: ignore[reportCallIssue]
        self.steps, self.mode, self.loss_limit = steps, mode, loss_limit
        self.stacked = len(learners) > 1
        self.params, self.buffers = self._live()
        self.device = next(iter(self.params.values())).device
        self.descents = [phase for phase in self.phases if isinstance(phase, Descend)]
        if len({phase.name for phase in self.descents}) < len(self.descents):
            raise ValueError(
                f"phases {[phase.name for phase in self.descents]} must have different names: each has its own noise and optimiser"
            )
        self.trained = {phase.name: self._names(phase.module) for phase in self.descents}
        self.optimisers = {phase.name: self._adam(phase) for phase in self.descents}
        self.gradients = {phase.name: self._gradient(phase) for phase in self.descents}
        self.alive = torch.ones(len(learners), dtype=torch.bool, device=self.device)
        self.clock = torch.zeros((), dtype=torch.int64, device=self.device)
        self.died = {phase.name: torch.full((len(learners),), -1, device=self.device) for phase in self.descents}

    def active(self, step: int) -> tuple[Phase, ...]:
        """The phases that run at an update step, counted from 0; averages that only hold their target are left out."""
        due = [phase for phase in self.phases if step % phase.every == 0]
        return tuple(p for p in due if isinstance(p, Descend) or step >= p.after or p.before == "copy")

    def __call__(self, step: int, batch: Any, noises: Mapping[str, Noise]) -> dict[str, Tensor]:
        """Run the phases of one update step; metrics are tensors of one value per seed."""
        self.clock.fill_(step)
        self.set_rates(step)
        return self.run(self.active(step), step, batch, noises)

    def run(self, phases: Sequence[Phase], step: int, batch: Any, noises: Mapping[str, Noise]) -> dict[str, Tensor]:
        """Run the given phases; nothing here depends on `step` but for an average's first steps, so that it can be captured."""
        metrics: dict[str, Tensor] = {}
        for phase in phases:
            if isinstance(phase, Descend):
                metrics |= self._descend(phase, batch, noises[phase.name])
            else:
                self._average(phase, 1.0 if step < phase.after else phase.rate)
        return metrics

    def set_rates(self, step: int) -> None:
        """Set every optimiser's learning rate for an update step."""
        for phase in self.descents:
            rate = learning_rate(phase.adam, step, self.steps)
            for group in self.optimisers[phase.name].param_groups:
                if isinstance(group["lr"], Tensor):
                    group["lr"].fill_(rate)
                else:
                    group["lr"] = rate

    def _live(self) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        if not self.stacked:
            return dict(self.template.named_parameters()), dict(self.template.named_buffers())
        params, buffers = stack_module_state(self.learners)
        return {name: p.detach().requires_grad_() for name, p in params.items()}, dict(buffers)

    def _names(self, module: nn.Module) -> list[str]:
        inside = {id(p) for p in module.parameters()}
        names = [name for name, p in self.template.named_parameters() if id(p) in inside]
        if len(names) < len(inside):
            raise ValueError(
                f"{type(module).__name__} has parameters outside of its learner; make it a submodule of the learner"
            )
        return names

    def _tensors(self, module: nn.Module) -> dict[str, Tensor]:
        """The live tensors of a submodule, by their names inside of it."""
        live = self.params | self.buffers
        own = {id(t): n for n, t in [*self.template.named_parameters(), *self.template.named_buffers()]}
        return {n: live[own[id(t)]] for n, t in [*module.named_parameters(), *module.named_buffers()]}

    def _adam(self, phase: Descend) -> torch.optim.Adam:
        captured = self.mode == "graphs"
        rate: Any = torch.tensor(phase.adam.lr, device=self.device) if captured else phase.adam.lr
        own = [self.params[name] for name in self.trained[phase.name]]
        optimiser = torch.optim.Adam(
            own, lr=rate, betas=phase.adam.betas, weight_decay=phase.adam.weight_decay, fused=True, capturable=captured
        )
        for p in own:  # moments exist from the start, so that a checkpoint of any step has the same tensors
            place = self.device if captured or self.device.type == "cuda" else torch.device("cpu")
            step = torch.zeros((), dtype=torch.float32, device=place)
            optimiser.state[p] = {"step": step, "exp_avg": torch.zeros_like(p), "exp_avg_sq": torch.zeros_like(p)}
        return optimiser

    def _gradient(self, phase: Descend) -> Callable[[Any, Noise], Gradient]:
        names, compiled = self.trained[phase.name], self.mode == "compiled"
        if not self.stacked:
            loss = torch.compile(phase.loss, fullgraph=True) if compiled else phase.loss
            return _Plain(loss, [self.params[name] for name in names])
        return _Stacked(self.template, phase, self.params, self.buffers, names, compiled)

    def _descend(self, phase: Descend, batch: Any, noise: Noise) -> dict[str, Tensor]:
        grads, loss, metrics = self._accumulated(phase, batch, noise)
        norm = self._norm(grads)
        fine = torch.isfinite(norm) & (loss.abs() < self.loss_limit)  # a NaN compares false
        self.died[phase.name].copy_(torch.where(self.alive & ~fine, self.clock, self.died[phase.name]))
        self.alive.logical_and_(fine)
        scale = (phase.adam.clip / (norm + 1e-6)).clamp(max=1.0) if phase.adam.clip else None
        optimiser, own = self.optimisers[phase.name], [self.params[name] for name in self.trained[phase.name]]
        if self.device.type != "cpu" or not bool(self.alive.all()):
            if not self.stacked and self.device.type == "cpu":
                raise Diverged(self.obituary()[0])
            grads = self._freeze_the_dead(optimiser, own, grads)
        if scale is not None:
            grads = (
                [g * self._column(scale, g) for g in grads]
                if self.stacked
                else torch._foreach_mul(list(grads), scale[0])
            )
        for p, g in zip(own, grads, strict=True):
            p.grad = g
        optimiser.step()
        return {f"{phase.name}/{name}": value for name, value in metrics.items()} | {f"{phase.name}/grad_norm": norm}

    def _accumulated(self, phase: Descend, batch: Any, noise: Noise) -> Gradient:
        gradient, parts = self.gradients[phase.name], phase.adam.accumulate
        if parts == 1:
            return gradient(batch, noise)
        dim = int(self.stacked)
        rows = [type(batch)(*fields) for fields in zip(*(field.chunk(parts, dim) for field in batch), strict=True)]
        draws = [
            {n: d.chunk(parts, dim)[i] if phase.noise[n].per == "row" else d for n, d in noise.items()}
            for i in range(parts)
        ]
        grads, losses, metrics = zip(*(gradient(b, d) for b, d in zip(rows, draws, strict=True)), strict=True)
        mean = {name: torch.stack([m[name] for m in metrics]).mean(0) for name in metrics[0]}
        return [torch.stack(g).mean(0) for g in zip(*grads, strict=True)], torch.stack(losses).mean(0), mean

    def _norm(self, grads: Sequence[Tensor]) -> Tensor:
        if self.stacked:
            return torch.stack([torch.linalg.vector_norm(g.flatten(1), dim=1) for g in grads]).square().sum(0).sqrt()
        return torch.stack(torch._foreach_norm(list(grads))).norm()[None]

    def _column(self, per_seed: Tensor, like: Tensor) -> Tensor:
        return per_seed.view(-1, *(1,) * (like.dim() - 1)) if self.stacked else per_seed[0]

    def _freeze_the_dead(self, optimiser: torch.optim.Adam, own: list[Tensor], grads: Sequence[Tensor]) -> list[Tensor]:
        """Zero gradients and first moments of dead seeds: Adam then moves them by exactly nothing."""
        for p in own:
            moment = optimiser.state[p]["exp_avg"]
            moment.copy_(torch.where(self._column(self.alive, moment), moment, 0.0))
        return [torch.where(self._column(self.alive, g), g, 0.0) for g in grads]

    def _average(self, phase: Average, rate: float) -> None:
        blend_tensors(self._tensors(phase.target), self._tensors(phase.source), rate)

    def obituary(self) -> dict[int, str]:
        """For each dead seed (by position) the phase and step at which it died."""
        cause = {}
        for name, step in self.died.items():
            for i, at in enumerate(step.tolist()):
                if at >= 0 and i not in cause:
                    cause[i] = (
                        f"phase {name!r} diverged at step {at}: its loss or gradient is not finite, or the loss exceeds {self.loss_limit:g}"
                    )
        return cause

    def write_back(self) -> None:
        """Copy the live tensors into the learners; a no-op for a single learner, which trains in place."""
        if not self.stacked:
            return
        with torch.no_grad():
            for i, learner in enumerate(self.learners):
                for name, tensor in [*learner.named_parameters(), *learner.named_buffers()]:
                    tensor.copy_((self.params | self.buffers)[name][i])

    def state(self, i: int) -> dict[str, Tensor]:
        """The optimisers' moments and step counts of seed `i`."""
        found = {}
        for phase, optimiser in self.optimisers.items():
            for name in self.trained[phase]:
                moments = optimiser.state[self.params[name]]
                for key in ("exp_avg", "exp_avg_sq"):
                    found[f"{phase}/{name}/{key}"] = moments[key][i] if self.stacked else moments[key]
                found[f"{phase}/{name}/step"] = moments["step"]
        return found

    def load_state(self, states: Sequence[Mapping[str, Tensor]]) -> None:
        """Take over what `state` gave, one mapping per seed; the learners' weights have been restored before this update was made."""
        with torch.no_grad():
            for phase, optimiser in self.optimisers.items():
                for name in self.trained[phase]:
                    moments = optimiser.state[self.params[name]]
                    for key in ("exp_avg", "exp_avg_sq"):
                        saved = [state[f"{phase}/{name}/{key}"] for state in states]
                        moments[key].copy_(torch.stack(saved) if self.stacked else saved[0])
                    moments["step"].copy_(states[0][f"{phase}/{name}/step"])


class _Plain:
    """Loss and gradient of one learner; only the named parameters' gradients are computed."""

    def __init__(self, loss: Callable[[Any, Noise], tuple[Tensor, Mapping[str, Tensor]]], own: list[Tensor]) -> None:
        self.loss, self.own = loss, own

    def __call__(self, batch: Any, noise: Noise) -> Gradient:
        loss, metrics = self.loss(batch, noise)
        grads = torch.autograd.grad(loss, self.own)
        return (
            grads,
            loss.detach()[None],
            {name: value.detach()[None] for name, value in ({"loss": loss} | dict(metrics)).items()},
        )


class _Shell(nn.Module):
    """Makes a learner's loss a forward pass, so that functional_call can swap all of the learner's tensors."""

    def __init__(self, learner: nn.Module, phase: Descend) -> None:
        super().__init__()
        self.learner, self.phase = learner, phase

    def forward(self, batch: Any, noise: Noise) -> tuple[Tensor, Mapping[str, Tensor]]:
        return self.phase.loss(batch, noise)


class _Stacked:
    """Losses and gradients of all seeds in one call, over the leading axis of parameters, batch and noise."""

    def __init__(
        self,
        template: nn.Module,
        phase: Descend,
        params: dict[str, Tensor],
        buffers: dict[str, Tensor],
        names: list[str],
        compiled: bool,
    ) -> None:
        shell = _Shell(template, phase)
        self.names, self.params, self.buffers = names, params, buffers

        def loss(own: dict[str, Tensor], rest: dict[str, Tensor], batch: Any, noise: Noise) -> Any:
            swapped = {f"learner.{name}": tensor for name, tensor in (rest | own).items()}
            value, metrics = functional_call(shell, swapped, (batch, noise))
            return value, dict(metrics)

        many = vmap(grad_and_value(loss, has_aux=True), randomness="error")
        self.many = torch.compile(many, fullgraph=True) if compiled else many

    def __call__(self, batch: Any, noise: Noise) -> Gradient:
        own = {name: self.params[name].detach() for name in self.names}
        rest = {name: p.detach() for name, p in self.params.items() if name not in own} | self.buffers
        grads, (losses, metrics) = self.many(own, rest, batch, dict(noise))
        return [grads[name] for name in self.names], losses, {"loss": losses} | metrics


def learning_rate(adam: Adam, step: int, steps: int) -> float:
    """The rate at an update step: linear warm-up over `warmup` steps, then constant or half a cosine from `lr` to 0 at `steps`."""
    if step < adam.warmup:
        return adam.lr * (step + 1) / adam.warmup
    if adam.schedule == "constant":
        return adam.lr
    return adam.lr * 0.5 * (1.0 + math.cos(math.pi * step / max(steps, 1)))
