"""The update of a learner, or of many seeds of it over a leading axis of every tensor: its phases, in their order.

A learner only declares phases. This room decides how they run: eagerly, compiled, captured, or over many seeds at once
(`torch.func` over the same losses), with clipping per seed and a diverged seed frozen while the others go on.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.func import stack_module_state

from ornstein.rl.average import blend_tensors
from ornstein.types import Average, Descend, Noise, Phase
from ornstein.update.descent import Descent, Reading
from ornstein.update.gradient import compiler, plain, stacked
from ornstein.update.life import Life, column

Mode = Literal["eager", "compiled", "graphs"]


class Update:
    """The state of training: live tensors, with a leading seed axis if there are several learners, and the descents."""

    def __init__(
        self,
        learners: Sequence[nn.Module],
        *,
        steps: int,
        mode: Mode = "eager",
        loss_limit: float = 1e9,
    ) -> None:
        self.learners, self.template = list(learners), learners[0]
        self.phases: tuple[Phase, ...] = self.template.phases()  # pyright: ignore[reportCallIssue]
        self.mode: Mode = mode
        self.stacked = len(learners) > 1
        self.live = self._live()
        self.device = next(iter(self.live.values())).device
        phases = [phase for phase in self.phases if isinstance(phase, Descend)]
        if len({phase.name for phase in phases}) < len(phases):
            names = [phase.name for phase in phases]
            raise ValueError(f"phases {names} must have different names: each has its own noise and optimiser")
        static = mode == "graphs" or self.device.type != "cpu"
        self.life = Life(
            len(learners), [phase.name for phase in phases], device=self.device, static=static, limit=loss_limit
        )
        self.descents = {phase.name: self._descent(phase, steps) for phase in phases}
        self.averages = {id(phase): self._pair(phase) for phase in self.phases if isinstance(phase, Average)}

    def active(self, step: int) -> tuple[Phase, ...]:
        """The phases that run at an update step, counted from 0; averages that only hold their target are left out."""
        due = [phase for phase in self.phases if step % phase.every == 0]
        return tuple(p for p in due if isinstance(p, Descend) or step >= p.after or p.before == "copy")

    def prepare(self, step: int) -> None:
        """Set what depends on the update step and is not part of a captured graph: the clock and the learning rates."""
        self.life.clock.fill_(step)
        for descent in self.descents.values():
            descent.set_rate(step)

    def __call__(self, step: int, batch: Any, noises: Mapping[str, Noise]) -> dict[str, Reading]:
        """Run the phases of one update step on a batch (one per seed along the leading axis, if there are several).

        Raises Diverged, on a CPU, when the last seed has died; elsewhere deaths are found by `life.causes`.
        """
        self.prepare(step)
        return self.run(self.active(step), step, batch, noises)

    def run(self, phases: Sequence[Phase], step: int, batch: Any, noises: Mapping[str, Noise]) -> dict[str, Reading]:
        """Run the given phases; `step` only tells averages whether these are their first, so this can be captured."""
        readings: dict[str, Reading] = {}
        for phase in phases:
            if isinstance(phase, Descend):
                readings[phase.name] = self.descents[phase.name](batch, noises[phase.name])
            else:
                self._average(phase, 1.0 if step < phase.after else phase.rate)
        return readings

    @torch.no_grad()
    def _average(self, phase: Average, rate: float) -> None:
        target, source = self.averages[id(phase)]
        if not self.life.masked:
            blend_tensors(target, source, rate)
            return
        for name, ours in target.items():
            alive = column(self.life.alive, ours, stacked=self.stacked)
            if ours.is_floating_point():
                ours.lerp_(source[name], alive.to(ours.dtype) * rate)
            else:
                ours.copy_(torch.where(alive, source[name], ours))

    def _live(self) -> dict[str, Tensor]:
        if not self.stacked:
            return dict(self.template.named_parameters()) | dict(self.template.named_buffers())
        params, buffers = stack_module_state(self.learners)
        return {name: tensor.detach() for name, tensor in (params | buffers).items()}

    def _descent(self, phase: Descend, steps: int) -> Descent:
        names = self._names(phase.module)
        compiled = compiler if self.mode == "compiled" else None
        gradient = (
            stacked(self.template, phase, names, compiler=compiled)
            if self.stacked
            else plain(phase, names, compiler=compiled)
        )
        return Descent(phase, self.live, names, gradient, life=self.life, steps=steps, stacked=self.stacked)

    def _names(self, module: nn.Module) -> list[str]:
        """The learner's names of a submodule's parameters, without those that are frozen."""
        inside = {id(p) for p in module.parameters() if p.requires_grad}
        names = [name for name, p in self.template.named_parameters() if id(p) in inside]
        if len(names) < len(inside):
            raise ValueError(
                f"{type(module).__name__} has parameters outside of its learner; make it a submodule of the learner"
            )
        if not names:
            raise ValueError(
                f"{type(module).__name__} has no parameter to train; it needs one that requires a gradient"
            )
        return names

    def _pair(self, phase: Average) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """The live tensors of an average's target and source, which must be copies of one module."""
        target, source = self._tensors(phase.target), self._tensors(phase.source)
        shapes = [{(name, tensor.shape) for name, tensor in side.items()} for side in (target, source)]
        if differs := sorted(name for name, _ in shapes[0] ^ shapes[1]):
            raise ValueError(f"target and source of an Average differ in {differs[0]!r}; average copies of one module")
        return target, source

    def _tensors(self, module: nn.Module) -> dict[str, Tensor]:
        """The live tensors of a submodule, by their names inside of it."""
        own = {id(t): n for n, t in [*self.template.named_parameters(), *self.template.named_buffers()]}
        return {n: self.live[own[id(t)]] for n, t in [*module.named_parameters(), *module.named_buffers()]}

    def tensors(self) -> list[Tensor]:
        """All tensors that a step may change."""
        moments = [tensor for descent in self.descents.values() for tensor in descent.tensors()]
        return [*(tensor.detach() for tensor in self.live.values()), *moments, *self.life.tensors()]

    @torch.no_grad()
    def write_back(self) -> None:
        """Copy the live tensors into the learners; nothing to do for a single learner, which trains in place."""
        if self.stacked:
            for i, learner in enumerate(self.learners):
                for name, tensor in [*learner.named_parameters(), *learner.named_buffers()]:
                    tensor.copy_(self.live[name][i])

    def state(self, seed: int) -> dict[str, Tensor]:
        """The optimisers' moments and step counts of one seed, by position."""
        return {name: tensor for descent in self.descents.values() for name, tensor in descent.state(seed).items()}

    @torch.no_grad()
    def load_state(self, states: Sequence[Mapping[str, Tensor]]) -> None:
        """Take over what `state` gave, one mapping per seed; weights are restored before the update is made."""
        for descent in self.descents.values():
            descent.load_state(states)
