"""Recorded episodes as contiguous arrays, never padded: what every reader delivers and every learner starts from.

Observations have one row more per episode than actions: step `i` (counted over all episodes) of episode `e` starts from
observation row `i + e` and leads to row `i + e + 1`.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Generator, Tensor

from ornstein.data.check import (
    DataError,
    as_extra,
    as_flags,
    as_floats,
    check_ends,
    check_extras,
    check_finite,
    check_lengths,
    check_matrix,
    check_rows,
    check_type,
    check_vector,
)
from ornstein.types import Spaces

TYPES = {
    "obs": torch.float32,
    "action": torch.float32,
    "reward": torch.float32,
    "terminal": torch.bool,
    "truncated": torch.bool,
    "lengths": torch.int64,
    "final_known": torch.bool,
}
"""The arrays of Episodes and their number types."""


@dataclass(frozen=True, eq=False)
class Episodes:
    """Episodes of one task. `terminal` is a true end (it cuts bootstraps), `truncated` a time limit or the last row.

    `final_known` is false where the observation after the last step was not stored (D4RL); that row then repeats the
    last stored one as a placeholder. `extras` have one row per episode, per step or per observation, told apart by
    their number; the name `goal` is understood by goal-conditioned systems. Empty bounds stand for [-1, 1].
    `env` is the environment's id where the recording tells it; it is no part of the content's hash.
    """

    obs: Float[Tensor, " rows obs"]
    action: Float[Tensor, " steps act"]
    reward: Float[Tensor, " steps"]
    terminal: Bool[Tensor, " steps"]
    truncated: Bool[Tensor, " steps"]
    lengths: Int[Tensor, " episodes"]
    final_known: Bool[Tensor, " episodes"]
    extras: Mapping[str, Tensor] = field(default_factory=dict)
    action_low: tuple[float, ...] = ()
    action_high: tuple[float, ...] = ()
    env: str = ""

    def __post_init__(self) -> None:
        """Refuse wrong shapes, non-finite entries and flags that contradict the episodes' lengths."""
        check_lengths(self.lengths)
        steps, episodes = int(self.lengths.sum()), len(self.lengths)
        check_vector("reward", self.reward, steps, "steps")
        check_matrix("action", self.action, steps, "steps")
        check_matrix("obs", self.obs, steps + episodes, "observations (one more than steps in each episode)")
        for name, flag in (("terminal", self.terminal), ("truncated", self.truncated)):
            check_vector(name, flag, steps, "steps")
        check_vector("final_known", self.final_known, episodes, "episodes")
        for name, values in (("obs", self.obs), ("action", self.action), ("reward", self.reward)):
            check_finite(name, values)
        for name, dtype in TYPES.items():
            check_type(name, getattr(self, name), dtype)
        check_ends(self.terminal, self.truncated, self.lengths)
        check_extras(self.extras, episodes, steps)

    @property
    def n_episodes(self) -> int:
        """The number of episodes."""
        return len(self.lengths)

    @property
    def n_steps(self) -> int:
        """The number of steps of all episodes."""
        return len(self.reward)

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays."""
        return sum(array.numel() * array.element_size() for array in self.arrays().values())

    @cached_property
    def offsets(self) -> Int[Tensor, " episodes"]:
        """The first step of each episode, counted over all episodes."""
        return self.lengths.cumsum(0) - self.lengths

    @property
    def rows(self) -> Int[Tensor, " episodes"]:
        """The first observation row of each episode."""
        return self.offsets + torch.arange(self.n_episodes)

    @cached_property
    def returns(self) -> Float[Tensor, " episodes"]:
        """The undiscounted sum of rewards of each episode, summed in float64."""
        episode = torch.repeat_interleave(self.lengths)
        return torch.zeros(self.n_episodes, dtype=torch.float64).index_add_(0, episode, self.reward.double())

    @cached_property
    def spaces(self) -> Spaces:
        """Sizes and action bounds. Without bounds of its own: [-1, 1], widened where the data exceed it."""
        low, high = self.action.min(0).values.clamp(max=-1.0), self.action.max(0).values.clamp(min=1.0)
        goal = self.extras.get("goal")
        return Spaces(
            obs=self.obs.shape[1],
            act=self.action.shape[1],
            goal=0 if goal is None else goal.shape[-1],
            action_low=self.action_low or tuple(low.tolist()),
            action_high=self.action_high or tuple(high.tolist()),
        )

    @cached_property
    def hash(self) -> str:
        """The SHA-256 of the content: names, shapes, types and bytes of all arrays, and the bounds."""
        digest = hashlib.sha256()
        for name, array in sorted(self.arrays().items()):
            digest.update(f"{name} {tuple(array.shape)} {array.dtype}\n".encode())
            digest.update(array.contiguous().numpy().reshape(-1).view("uint8").data)
        digest.update(repr((self.spaces.action_low, self.spaces.action_high)).encode())
        return digest.hexdigest()

    def arrays(self) -> dict[str, Tensor]:
        """All arrays by name, extras as `extras/<name>`."""
        return {name: getattr(self, name) for name in TYPES} | {f"extras/{k}": v for k, v in self.extras.items()}

    def belongs_to(self, name: str) -> Literal["episode", "step", "row"]:
        """What the rows of an extra belong to: episodes, steps, or observations."""
        count = len(self.extras[name])
        return "episode" if count == self.n_episodes else "step" if count == self.n_steps else "row"

    def select(self, indices: Int[Tensor, " some"] | Sequence[int]) -> "Episodes":
        """The given episodes, in the given order, copied."""
        index = torch.as_tensor(indices, dtype=torch.int64)
        if index.numel() == 0 or int(index.min()) < 0 or int(index.max()) >= self.n_episodes:
            raise DataError(
                f"episodes {index.tolist()[:8]} asked for, but indices in [0, {self.n_episodes}) are expected"
            )
        return self._take(index, self.lengths[index])

    def split(self, fraction: float, generator: Generator) -> tuple["Episodes", "Episodes"]:
        """Training and validation episodes: a random `fraction` of the episodes (at least one) is held out."""
        if not 0.0 < fraction < 1.0 or self.n_episodes < 2:
            raise DataError(
                f"a validation share of {fraction} of {self.n_episodes} episodes, but a share in (0, 1) of two or "
                "more episodes is expected: give another share or record more"
            )
        held_out = min(max(round(fraction * self.n_episodes), 1), self.n_episodes - 1)
        order = torch.randperm(self.n_episodes, generator=generator)
        return self.select(order[held_out:].sort().values), self.select(order[:held_out].sort().values)

    def without_unknown(self) -> "Episodes":
        """The same episodes, less the last step wherever the observation after it is unknown; single steps vanish."""
        keep = self.lengths - (~self.final_known).long()
        kept = torch.arange(self.n_episodes)[keep > 0]
        if not len(kept):
            raise DataError(
                "no step has a known next observation, but one at least is expected: read a fuller recording"
            )
        return self._take(kept, keep[kept])

    def _take(self, index: Tensor, lengths: Tensor) -> "Episodes":
        """The first `lengths` steps of the given episodes; those that end early are marked as truncated."""
        steps, rows = ragged(self.offsets[index], lengths), ragged(self.rows[index], lengths + 1)
        chosen = {"episode": index, "step": steps, "row": rows}
        shortened = lengths < self.lengths[index]
        truncated = self.truncated[steps]
        truncated[lengths.cumsum(0) - 1] |= shortened
        return replace(
            self,
            obs=self.obs[rows],
            action=self.action[steps],
            reward=self.reward[steps],
            terminal=self.terminal[steps],
            truncated=truncated,
            lengths=lengths,
            final_known=self.final_known[index] | shortened,
            extras={name: values[chosen[self.belongs_to(name)]] for name, values in self.extras.items()},
        )

    def describe(self) -> dict[str, Any]:
        """What `ornstein data info` prints: counts, sizes, returns, ends, ranges, content hash, as plain values."""
        returns, lengths = self.returns, self.lengths.double()
        return {
            "env": self.env,
            "episodes": self.n_episodes,
            "steps": self.n_steps,
            "obs": self.spaces.obs,
            "act": self.spaces.act,
            "goal": self.spaces.goal,
            "length_mean": float(lengths.mean()),
            "length_min": int(lengths.min()),
            "length_max": int(lengths.max()),
            "return_mean": float(returns.mean()),
            "return_std": float(returns.std(correction=0)),
            "return_min": float(returns.min()),
            "return_max": float(returns.max()),
            "terminal_share": float(self.terminal.sum() / self.n_episodes),
            "final_known_share": float(self.final_known.double().mean()),
            "action_min": self.action.min(0).values.tolist(),
            "action_max": self.action.max(0).values.tolist(),
            "extras": {name: list(values.shape) for name, values in self.extras.items()},
            "bytes": self.nbytes,
            "hash": self.hash,
        }

    @classmethod
    def from_lists(
        cls,
        obs: Sequence[Any],
        action: Sequence[Any],
        reward: Sequence[Any],
        *,
        terminal: Sequence[bool],
        extras: Mapping[str, Any] | None = None,
        action_low: tuple[float, ...] = (),
        action_high: tuple[float, ...] = (),
    ) -> "Episodes":
        """Episodes from one array per episode; `terminal[e]`: whether episode e truly ended (else it was truncated).

        Observations of an episode have T + 1 rows, or T where the final one is not known. Extras as in the class.
        """
        counts = (len(obs), len(action), len(reward), len(terminal))
        if len(set(counts)) != 1:
            raise DataError(f"(obs, action, reward, terminal) of {counts} episodes: give one entry per episode in each")
        rewards = [as_floats(f"reward of episode {e}", values) for e, values in enumerate(reward)]
        actions = [as_floats(f"action of episode {e}", values) for e, values in enumerate(action)]
        for e, (values, steps) in enumerate(zip(actions, rewards, strict=True)):
            check_rows(f"action of episode {e}", values, len(steps), "rewards")
        lengths = torch.tensor([len(values) for values in rewards], dtype=torch.int64)
        check_lengths(lengths)
        finished = [
            _finished(e, as_floats(f"obs of episode {e}", values), len(rewards[e])) for e, values in enumerate(obs)
        ]
        ended = torch.as_tensor(terminal, dtype=torch.bool)
        last, none = lengths.cumsum(0) - 1, torch.zeros(int(lengths.sum()), dtype=torch.bool)
        return cls(
            obs=_join("obs", [rows for rows, _ in finished]),
            action=_join("action", actions),
            reward=_join("reward", rewards),
            terminal=none.index_copy(0, last, ended),
            truncated=none.index_copy(0, last, ~ended),
            lengths=lengths,
            final_known=torch.tensor([known for _, known in finished]),
            extras={name: as_extra(name, values) for name, values in (extras or {}).items()},
            action_low=action_low,
            action_high=action_high,
        )

    @classmethod
    def from_transitions(
        cls,
        obs: Any,
        action: Any,
        reward: Any,
        *,
        next_obs: Any,
        terminal: Any,
        extras: Mapping[str, Any] | None = None,
        action_low: tuple[float, ...] = (),
        action_high: tuple[float, ...] = (),
    ) -> "Episodes":
        """Unconnected transitions (s, a, r, s', end) as episodes of length 1, truncated unless they are terminal."""
        first, then = as_floats("obs", obs), as_floats("next_obs", next_obs)
        check_matrix("obs", first, len(first), "transitions")
        if first.shape != then.shape:
            raise DataError(
                f"'next_obs' has shape {tuple(then.shape)}, but that of 'obs' is expected: {tuple(first.shape)}"
            )
        ended = as_flags("terminal", terminal)
        return cls(
            obs=torch.stack([first, then], 1).reshape(2 * len(first), -1),
            action=as_floats("action", action),
            reward=as_floats("reward", reward),
            terminal=ended,
            truncated=~ended,
            lengths=torch.ones(len(first), dtype=torch.int64),
            final_known=torch.ones(len(first), dtype=torch.bool),
            extras={name: as_extra(name, values) for name, values in (extras or {}).items()},
            action_low=action_low,
            action_high=action_high,
        )

    @classmethod
    def from_steps(
        cls,
        obs: Any,
        action: Any,
        reward: Any,
        *,
        terminal: Any,
        truncated: Any,
        final: Any = None,
        final_known: Any = None,
        extras: Mapping[str, Any] | None = None,
        action_low: tuple[float, ...] = (),
        action_high: tuple[float, ...] = (),
    ) -> "Episodes":
        """Episodes from flat arrays, one row per step, as in D4RL; one ends where a flag is true, or at the last row.

        `final` holds the observation after the last step of each episode (or of those that `final_known` marks).
        """
        flat = as_floats("obs", obs)
        check_matrix("obs", flat, len(flat), "steps")
        ended, cut = as_flags("terminal", terminal), as_flags("truncated", truncated).clone()
        check_vector("terminal", ended, len(flat), "steps")
        check_vector("truncated", cut, len(flat), "steps")
        check_rows("obs", flat, max(len(flat), 1), "steps (and one at least)")
        cut[-1] |= ~ended[-1]
        last = (ended | cut).nonzero().squeeze(1)
        lengths = torch.diff(last, prepend=torch.tensor([-1]))
        known = (
            torch.full((len(last),), final is not None) if final_known is None else as_flags("final_known", final_known)
        )
        ends = flat[last] if final is None else torch.where(known[:, None], as_floats("final", final), flat[last])
        return cls(
            obs=interleave(flat, ends, lengths),
            action=as_floats("action", action),
            reward=as_floats("reward", reward),
            terminal=ended,
            truncated=cut,
            lengths=lengths,
            final_known=known,
            extras={name: as_extra(name, values) for name, values in (extras or {}).items()},
            action_low=action_low,
            action_high=action_high,
        )


def concatenate(parts: Iterable[Episodes]) -> Episodes:
    """All episodes of several recordings of one task, in order."""
    several = list(parts)
    if not several:
        raise DataError("no recordings to concatenate: give one at least")
    first = several[0]
    for part in several[1:]:
        if _kind(part) != _kind(first):
            raise DataError(
                f"recordings of unlike sizes, bounds or extras, {_kind(part)} beside {_kind(first)}: "
                "join recordings of one task only"
            )
    joined = {name: torch.cat([part.arrays()[name] for part in several]) for name in first.arrays()}
    extras = {name: joined.pop(f"extras/{name}") for name in first.extras}
    return Episodes(**joined, extras=extras, action_low=first.action_low, action_high=first.action_high, env=first.env)


def ragged(start: Int[Tensor, " some"], length: Int[Tensor, " some"]) -> Int[Tensor, " total"]:
    """The indices start[j], ..., start[j] + length[j] - 1 of all j, one after the other."""
    shift = start - (length.cumsum(0) - length)
    return torch.arange(int(length.sum())) + torch.repeat_interleave(shift, length)


def interleave(
    steps: Shaped[Tensor, " steps *size"], final: Shaped[Tensor, " episodes *size"], lengths: Int[Tensor, " episodes"]
) -> Shaped[Tensor, " rows *size"]:
    """Rows of T + 1 per episode from the rows of its steps and its final row."""
    rows = steps.new_empty((len(steps) + len(final), *steps.shape[1:]))
    rows[torch.arange(len(steps)) + torch.repeat_interleave(lengths)] = steps
    rows[lengths.cumsum(0) + torch.arange(len(final))] = final
    return rows


def _kind(part: Episodes) -> tuple[Any, ...]:
    bounds = (part.action_low, part.action_high)
    return (part.obs.shape[1], part.action.shape[1], *bounds, *sorted((k, part.belongs_to(k)) for k in part.extras))


def _finished(episode: int, obs: Tensor, steps: int) -> tuple[Tensor, bool]:
    if len(obs) == steps:
        return torch.cat([obs, obs[-1:]]), False
    check_rows(f"obs of episode {episode}", obs, steps + 1, "steps, and the final one")
    return obs, True


def _join(name: str, parts: list[Tensor]) -> Tensor:
    shapes = {tuple(part.shape[1:]) for part in parts}
    if len(shapes) > 1:
        raise DataError(f"'{name}' has entries of shapes {sorted(shapes)}, but one shape for all episodes is expected")
    return torch.cat(parts)
