"""The task that a system is checked on: a few generated episodes, a small configuration, and its stages of training."""

import dataclasses
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from ornstein.data.episodes import Episodes
from ornstein.fit import Run
from ornstein.noise import draw, generator
from ornstein.system import System
from ornstein.types import Batches, Descend, Noise, Spaces

STEPS = 3
SMALLER: dict[str, Any] = {
    "batch_size": 8,
    "width": 16,
    "multipliers": (1, 2),
    "blocks": 2,
    "horizon": 16,
    "calls": 3,
    "diffusion_steps": 3,
    "candidates": 3,
    "backup_candidates": 2,
    "generate_batch": 64,
    "stored": 3,
    "value_width": 16,
    "critic_width": 16,
    "value_batch_size": 8,
    "critic_batch_size": 8,
}
"""Fields of a configuration that cost time, and values that are enough for the contract."""


TASKS = (Spaces(obs=5, act=2), Spaces(obs=4, act=2, goal=2))
"""Sizes of the generated task: the first with which the system can be built."""


class Broken(Exception):
    """A part of the contract that is not kept; the message says what was found and what was expected."""


@dataclass(frozen=True)
class Stage:
    """One stage of a training, as it was before its first step."""

    name: str
    learner: nn.Module
    data: Batches
    batch_size: int

    def phases(self) -> tuple[Any, ...]:
        """What the learner gives as its phases."""
        return self._of(self.learner)

    def descents(self, learner: Any = None) -> list[Descend]:
        """The phases that descend, of this learner or of a copy of it."""
        return [phase for phase in self._of(learner or self.learner) if isinstance(phase, Descend)]

    def _of(self, learner: Any) -> tuple[Any, ...]:
        return learner.phases()

    def batch(self, *names: object) -> Any:
        """A batch that depends on the names."""
        index = torch.randint(len(self.data), (self.batch_size,), generator=generator("batch", *names))
        return self.data.gather(index)

    def noise(self, phase: Descend, *names: object) -> Noise:
        """Noise for a phase that depends on the names."""
        return draw(phase.noise, self.batch_size, generator("noise", phase.name, *names))

    def noises(self, *names: object) -> dict[str, Noise]:
        """Noise for every phase that descends."""
        return {phase.name: self.noise(phase, *names) for phase in self.descents()}


@dataclass(frozen=True)
class Case:
    """A system with a configuration and a task, the stages that its short training went through, and what came out."""

    system: System
    config: Any
    episodes: Episodes
    stages: tuple[Stage, ...]
    trained: Any
    """The learner, or the exception that ended its training."""

    @property
    def learner(self) -> Any:
        """The trained learner."""
        if isinstance(self.trained, Exception):
            raise self.trained
        return self.trained

    def train(self, run: Run) -> list[nn.Module]:
        """Train as `ornstein train` does."""
        return self.system.run(self.config, self.episodes, run)


def prepare(system: System, config: Any = None, spaces: Spaces | None = None) -> Case:
    """The case of a system; its sizes are cut down where the configuration still builds."""
    config = system.preset() if config is None else config
    spaces = spaces or next((task for task in TASKS if builds(system, config, task)), TASKS[0])
    chosen = smaller(system, config, spaces)
    data = episodes(spaces, steps=getattr(chosen, "horizon", 1) * getattr(chosen, "stride", 1) + 12)
    stages: list[Stage] = []

    def note(name: str, learners: Sequence[nn.Module], batches: Batches, batch_size: int) -> None:
        stages.append(Stage(name, deepcopy(learners[0]), batches, batch_size))

    trained: Any = Broken("train(...) never called fit, the only training loop")
    try:
        found = system.train(chosen, data, Run(steps=STEPS, quiet=True, on_stage=note))
        trained = found[0] if stages else trained
    except Exception as error:
        trained = error
    return Case(system, chosen, data, tuple(stages), trained)


def smaller(system: System, config: Any, spaces: Spaces) -> Any:
    """The configuration with every size of `SMALLER` with which the system can still be built."""
    for name, value in SMALLER.items():
        if getattr(config, name, value) > value:
            cut = dataclasses.replace(config, **{name: value})
            config = cut if builds(system, cut, spaces) else config
    return config


def builds(system: System, config: Any, spaces: Spaces) -> bool:
    """Whether a system has a learner of this configuration for a task of these sizes."""
    try:
        system.build(config, spaces)
    except ValueError:
        return False
    return True


def episodes(spaces: Spaces, *, count: int = 5, steps: int = 20) -> Episodes:
    """Smooth random walks with rewards and, in every other episode, a true end; the same for the same sizes."""
    source = generator("contract", spaces.obs, spaces.act, spaces.goal)
    low, high = torch.tensor(spaces.action_low), torch.tensor(spaces.action_high)
    obs, action, reward = [], [], []
    for _ in range(count):
        obs.append(0.3 * torch.randn(steps + 1, spaces.obs, generator=source).cumsum(0))
        action.append(low + (high - low) * torch.rand(steps, spaces.act, generator=source))
        reward.append(torch.randn(steps, generator=source))
    extras = {"goal": torch.randn(count, spaces.goal, generator=source)} if spaces.goal else {}
    return Episodes.from_lists(
        obs,
        action,
        reward,
        terminal=[e % 2 == 0 for e in range(count)],
        extras=extras,
        action_low=spaces.action_low,
        action_high=spaces.action_high,
    )


def double(values: Any) -> Any:
    """A pytree of tensors with its floating ones in double precision, in which rounding hides no mistake."""
    return pytree.tree_map(lambda x: x.double() if isinstance(x, Tensor) and x.is_floating_point() else x, values)


def tensors(module: nn.Module) -> dict[str, Tensor]:
    """A copy of all parameters and buffers, also of those that checkpoints leave out."""
    return {name: t.detach().clone() for name, t in [*module.named_parameters(), *module.named_buffers()]}


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> list[str]:
    """The names of the tensors that are not equal bit for bit."""
    return [name for name in a.keys() | b.keys() if name not in a or name not in b or not torch.equal(a[name], b[name])]
