"""Checks of what a learner can do once trained: act and plan as a function of its inputs, or generate data."""

from collections.abc import Callable, Sequence
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from ornstein.contract.case import Broken, Case, double, same, tensors
from ornstein.data.episodes import Episodes
from ornstein.noise import draw, generator
from ornstein.types import Noise, NoiseSpec, Policy


class Player:
    """A policy in some rows of an imaginary environment: carries, noise of one generator per row, plans when due."""

    def __init__(self, policy: Any, rows: Sequence[int], *, wide: bool = False) -> None:
        self.policy, self.wide, self.steps = policy, wide, 0
        self.sources = [generator("row", row) for row in rows]
        self.plans = hasattr(policy, "plan")
        self.carry = self._cast(policy.start(len(rows)))

    def step(self, obs: Tensor) -> Tensor:
        """Actions for the observations of all rows."""
        obs = self._cast(obs)
        spec: NoiseSpec = getattr(self.policy, "act_noise", {}) if self.plans else self.policy.noise
        with torch.no_grad():
            every = self.policy.plan_every if self.plans else 0
            if self.plans and (self.steps == 0 or (every and self.steps % every == 0)):
                self.carry = self.policy.plan(obs, self.carry, self._noise(self.policy.noise))
            action, self.carry = self.policy.act(obs, self.carry, self._noise(spec))
        self.steps += 1
        return action

    def _noise(self, spec: NoiseSpec) -> Noise:
        rows = [draw(spec, 1, source) for source in self.sources]
        return {name: self._cast(torch.cat([row[name] for row in rows])) for name in spec}

    def _cast(self, values: Any) -> Any:
        return double(values) if self.wide else values


def shapes(case: Case) -> None:
    """Actions have the task's size, are finite and within its bounds; carries are tensors with one row each."""
    policy, spaces = case.learner, case.episodes.spaces
    spec: NoiseSpec = policy.noise  # pyright: ignore[reportAssignmentType]
    if shared := [name for name, need in spec.items() if need.per != "row"]:
        raise Broken(f"noise {shared[0]!r} of the policy is drawn per update; a policy's noise is drawn per row")
    low, high = torch.tensor(spaces.action_low), torch.tensor(spaces.action_high)
    for rows in (1, 4):
        player = Player(policy, range(rows))
        for obs in observations(case, rows):
            action = player.step(obs)
            if action.shape != (rows, spaces.act):
                raise Broken(
                    f"actions of {rows} environments have shape {tuple(action.shape)}, not ({rows}, {spaces.act})"
                )
            if not bool(torch.isfinite(action).all()):
                raise Broken("an action is not finite")
            if bool((action < low - 1e-5).any() | (action > high + 1e-5).any()):
                raise Broken(f"an action is outside of the bounds {spaces.action_low} to {spaces.action_high}")
            if wrong := [leaf for leaf in pytree.tree_leaves(player.carry) if not _has_rows(leaf, rows)]:
                raise Broken(
                    f"the carry of {rows} environments holds {wrong[0]!r}, not a tensor with {rows} leading rows"
                )


def repeatable(case: Case) -> None:
    """The same observations and noise give the same actions bit for bit; acting changes nothing."""
    policy, before, random = case.learner, tensors(case.learner), torch.get_rng_state()
    first, again = (_play(policy, case, [0, 1, 2]) for _ in range(2))
    if not torch.equal(first, again):
        raise Broken("the same observations and noise gave other actions; memory belongs into the carry")
    if not torch.equal(random, torch.get_rng_state()):
        raise Broken("acting draws from torch's global generator; declare the noise instead")
    if changed := same(before, tensors(policy)):
        raise Broken(f"acting changed {changed[0]!r}")


def rowwise(case: Case) -> None:
    """A batch of one acts as a row of a larger batch: to 1e-6 in double precision."""
    policy = deepcopy(case.learner).double()
    many = _play(policy, case, [0, 1, 2, 3], wide=True)
    for row in range(4):
        far = float((_play(policy, case, [row], wide=True) - many[:, row : row + 1]).abs().max())
        if not far < 1e-6:
            raise Broken(f"an environment alone acts differently than among four, by {far:.2g}")


def apart(case: Case) -> None:
    """Two environments whose steps are interleaved act as each does by itself, bit for bit."""
    alone = [_play(case.learner, case, [row]) for row in range(2)]
    players = [Player(case.learner, [row]) for row in range(2)]
    steps = [[player.step(obs[row : row + 1]) for row, player in enumerate(players)] for obs in observations(case, 4)]
    for row in range(2):
        if not torch.equal(alone[row], torch.stack([step[row] for step in steps])):
            raise Broken(
                "interleaved environments act differently than alone; memory belongs into the carry, not on self"
            )


def generates(case: Case) -> None:
    """Generated episodes have the task's sizes, come again from the same seed, and leave the generator as it was."""
    made: Any = case.learner.generate
    spaces, before, random = case.episodes.spaces, tensors(case.learner), torch.get_rng_state()
    first, again, other = made(70, 0), made(70, 0), made(70, 1)
    if not isinstance(first, Episodes):
        raise Broken(f"generate(70, 0) gave {type(first).__name__}, expected Episodes")
    found = (first.n_steps, first.spaces.obs, first.spaces.act)
    if found != (70, spaces.obs, spaces.act):
        raise Broken(f"generate(70, 0) gave (steps, obs, act) = {found}, expected {(70, spaces.obs, spaces.act)}")
    if first.hash != again.hash:
        raise Broken("generate gave other data for the same seed")
    if first.hash == other.hash:
        raise Broken("generate gave the same data for another seed")
    if changed := same(before, tensors(case.learner)):
        raise Broken(f"generating changed {changed[0]!r}")
    if not torch.equal(random, torch.get_rng_state()):
        raise Broken("generating draws from torch's global generator; use a named one")


def useful(case: Case) -> None:
    """A learner is good for something: it acts, or it generates."""
    raise Broken(f"{type(case.learner).__name__} neither acts (noise, start, act) nor generates data (generate)")


POLICY: dict[str, Callable[[Case], None]] = {
    "actions have shapes and bounds": shapes,
    "the same noise gives the same actions": repeatable,
    "one environment acts as among many": rowwise,
    "interleaved environments are apart": apart,
}
GENERATOR: dict[str, Callable[[Case], None]] = {"generated data are data": generates}


def checks(learner: nn.Module) -> dict[str, Callable[[Case], None]]:
    """The checks that fit what a learner offers: those of a policy, of a generator, or of both."""
    found: dict[str, Callable[[Case], None]] = {}
    if isinstance(learner, Policy):
        found |= POLICY
    if hasattr(learner, "generate"):
        found |= GENERATOR
    return found or {"a learner acts or generates": useful}


def observations(case: Case, rows: int, steps: int = 3) -> list[Tensor]:
    """For each step one observation per row, the goal behind it where the task has one."""
    data = case.episodes
    state = data.obs[: steps * rows].view(steps, rows, -1)
    if "goal" not in data.extras:
        return list(state)
    goal = data.extras["goal"][torch.arange(rows) % data.n_episodes]
    return [torch.cat((obs, goal), dim=1) for obs in state]


def _play(policy: nn.Module, case: Case, rows: Sequence[int], *, wide: bool = False) -> Tensor:
    """The actions (steps, rows, act) of some of four environments."""
    player = Player(policy, rows, wide=wide)
    return torch.stack([player.step(obs[list(rows)]) for obs in observations(case, 4)])


def _has_rows(leaf: Any, rows: int) -> bool:
    return isinstance(leaf, Tensor) and leaf.dim() > 0 and len(leaf) == rows
