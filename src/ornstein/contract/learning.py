"""Checks of what a learner declares: phases, losses as pure functions, what each of them trains, seeds, repetition."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from ornstein.contract.case import STEPS, Broken, Case, Stage, double, same, tensors
from ornstein.fit import Run, digest
from ornstein.noise import generator
from ornstein.types import Average, Batches, Descend, Draw
from ornstein.update import Update


def registered(case: Case) -> None:
    """Every tensor is a parameter or a buffer, so that it is stored, moved to a device and stacked over seeds."""
    for stage in case.stages:
        for path, module in stage.learner.named_modules():
            kept = {
                name: value
                for name, value in vars(module).items()
                if name not in ("_parameters", "_buffers", "_modules")
            }
            for name, value in kept.items():
                if any(isinstance(leaf, Tensor) for leaf in pytree.tree_leaves(value)):
                    where = f"{path}.{name}" if path else name
                    raise Broken(
                        f"{where!r} holds a tensor that is neither a parameter nor a buffer; use register_buffer"
                    )


def phases(case: Case) -> None:
    """Phases are Descend or Average values with names of their own, declared noise, and modules of the learner."""
    for stage in case.stages:
        found = stage.phases()
        if wrong := [p for p in found if not isinstance(p, Descend | Average)]:
            raise Broken(f"stage {stage.name!r}: phase {wrong[0]!r} is neither Descend nor Average")
        names = [phase.name for phase in stage.descents()]
        if not names or not all(names) or len(set(names)) < len(names):
            raise Broken(
                f"stage {stage.name!r}: the phases are named {names}; give one at least, each a name of its own"
            )
        for phase in stage.descents():
            if wrong := [name for name, need in phase.noise.items() if not isinstance(need, Draw)]:
                raise Broken(f"phase {phase.name!r}: noise {wrong[0]!r} is {phase.noise[wrong[0]]!r}, expected a Draw")
        Update([deepcopy(stage.learner)], steps=STEPS)  # refuses modules outside of the learner


def losses(case: Case) -> None:
    """Losses are finite scalars that depend on a parameter; metrics are scalar tensors."""
    for stage, _, phase in _each(case):
        found: Any = phase.loss(stage.batch(0), stage.noise(phase, 0))
        if not (isinstance(found, tuple) and len(found) == 2 and isinstance(found[1], Mapping)):
            raise Broken(f"phase {phase.name!r}: the loss gave {_shown(found)}, expected (loss, metrics)")
        loss, metrics = found
        if not isinstance(loss, Tensor) or loss.dim() or not loss.is_floating_point():
            raise Broken(f"phase {phase.name!r}: the loss is {_shown(loss)}, expected a scalar tensor")
        if not math.isfinite(loss.item()):
            raise Broken(f"phase {phase.name!r}: the loss is {loss.item()} on ordinary data")
        for name, value in metrics.items():
            if not isinstance(value, Tensor) or value.dim():
                raise Broken(f"phase {phase.name!r}: metric {name!r} is {_shown(value)}, expected a scalar tensor")


def pure(case: Case) -> None:
    """A loss depends on its batch and noise alone, and changes nothing."""
    for stage, learner, phase in _each(case):
        batch, noise, before = stage.batch(0), stage.noise(phase, 0), tensors(learner)
        given = [t.clone() for t in (*batch, *noise.values())]
        random = torch.get_rng_state()
        first = phase.loss(batch, noise)[0]
        if not torch.equal(first, phase.loss(batch, noise)[0]):
            raise Broken(f"phase {phase.name!r}: the same batch and noise gave another loss; draw from `noise` only")
        if not torch.equal(random, torch.get_rng_state()):
            raise Broken(f"phase {phase.name!r}: the loss draws from torch's global generator; declare a Draw instead")
        if changed := same(before, tensors(learner)):
            raise Broken(f"phase {phase.name!r}: the loss changed {changed[0]!r}; changes belong into phases")
        if not all(torch.equal(a, b) for a, b in zip(given, (*batch, *noise.values()), strict=True)):
            raise Broken(f"phase {phase.name!r}: the loss changed its batch or noise in place")


def trained(case: Case) -> None:
    """A few updates move every parameter that a Descend names, averages, and nothing else."""
    for stage in case.stages:
        learner = deepcopy(stage.learner).train()
        update, before = Update([learner], steps=8), tensors(learner)
        for step in range(8):
            update(step, stage.batch(step), stage.noises(step))
        changed = set(same(before, tensors(learner)))
        named = {name for descent in update.descents.values() for name in descent.names}
        if still := sorted(named - changed):
            raise Broken(
                f"stage {stage.name!r}: 8 updates did not move {still[0]!r} ({len(still)} in all); no loss reaches it"
            )
        targets = [p.target for p in update.phases if isinstance(p, Average)]
        averaged = {id(t) for target in targets for t in [*target.parameters(), *target.buffers()]}
        own = {name: id(t) for name, t in [*learner.named_parameters(), *learner.named_buffers()]}
        if stray := sorted(name for name in changed - named if own[name] not in averaged):
            raise Broken(f"stage {stage.name!r}: updates moved {stray[0]!r}, which no phase names")


def seeds(case: Case) -> None:
    """Learners over a leading axis, by torch.func, move as each of them alone: to 1e-6 in double precision."""
    for stage in case.stages:
        together, alone = [_variants(stage.learner) for _ in range(2)]
        stacked, single = Update(together, steps=STEPS), [Update([learner], steps=STEPS) for learner in alone]
        for step in range(STEPS):
            parts = [(stage.batch(step, i), stage.noises(step, i)) for i in range(len(alone))]
            batch = type(parts[0][0])(*(torch.stack(fields) for fields in zip(*(b for b, _ in parts), strict=True)))
            noises = {
                phase: {name: torch.stack([n[phase][name] for _, n in parts]) for name in noise}
                for phase, noise in parts[0][1].items()
            }
            stacked(step, double(batch), double(noises))
            for update, part in zip(single, parts, strict=True):
                update(step, *double(part))
        stacked.write_back()
        for a, b in zip(together, alone, strict=True):
            ours, theirs = tensors(a), tensors(b)
            far = max((float((ours[n].double() - theirs[n].double()).abs().max()), n) for n in ours if ours[n].numel())
            if not far[0] < 1e-6:  # Adam makes steps of gradients that are zero but for rounding
                raise Broken(
                    f"stage {stage.name!r}: {far[1]!r} differs by {far[0]:.2g} between seeds at once and alone"
                )


def repeated(case: Case) -> None:
    """A seed gives the same weights bit for bit, and another seed begins with others."""
    starts: list[str] = []

    def end(seed: int) -> str:
        def note(name: str, learners: Sequence[nn.Module], data: Batches, batch_size: int) -> None:
            starts.append(digest(learners[0].state_dict()))

        run = Run(seeds=(seed,), steps=STEPS, quiet=True, on_stage=note)
        return digest(case.system.train(case.config, case.episodes, run)[0].state_dict())

    if end(0) != end(0):
        raise Broken("two runs of seed 0 ended with different weights; draw from named generators or from `noise` only")
    end(1)
    if starts[0] == starts[-len(starts) // 3]:
        raise Broken("seeds 0 and 1 begin with the same weights; build learners with run.build")


DECLARED: dict[str, Callable[[Case], None]] = {
    "tensors are registered": registered,
    "phases are well formed": phases,
    "losses are finite scalars": losses,
    "losses are functions of batch and noise": pure,
}
"""What can be checked of a learner that cannot be trained."""

TRAINED: dict[str, Callable[[Case], None]] = {
    "updates move what phases name and nothing else": trained,
    "seeds at once move as each alone": seeds,
    "a seed gives the same weights again": repeated,
}


def _each(case: Case) -> Iterator[tuple[Stage, nn.Module, Descend]]:
    """Every loss of every stage, on a copy of the learner in training mode."""
    for stage in case.stages:
        learner = deepcopy(stage.learner).train()
        for phase in stage.descents(learner):
            yield stage, learner, phase


def _variants(learner: nn.Module, count: int = 3) -> list[nn.Module]:
    """Copies of a learner in double precision, whose parameters are moved a little, differently for each."""
    found = []
    for i in range(count):
        copy, source = deepcopy(learner).double().train(), generator("variant", i)
        with torch.no_grad():
            for p in copy.parameters():
                p.add_(1e-2 * torch.randn(p.shape, generator=source, dtype=p.dtype))
        found.append(copy)
    return found


def _shown(value: Any) -> str:
    return f"a tensor of shape {tuple(value.shape)}" if isinstance(value, Tensor) else repr(value)
