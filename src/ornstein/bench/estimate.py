"""What a trained policy is worth by the data alone: fitted-Q evaluation, averaged over the data's first states."""

from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ornstein.data.episodes import Episodes
from ornstein.data.goal import joined
from ornstein.data.transitions import transitions
from ornstein.fit import Run, fit
from ornstein.noise import draw, generator
from ornstein.rl.action import ActionBox
from ornstein.rl.fitted_q import FittedQ, Followed

DISCOUNT = 0.99


@dataclass(frozen=True)
class FollowedData:
    """All usable steps of some episodes with the policy's next actions, which are drawn once."""

    rows: Followed

    def __len__(self) -> int:
        return len(self.rows.reward)

    def gather(self, index: Int[Tensor, " b"]) -> Followed:
        """The steps at these indices."""
        return Followed(*(column[index] for column in self.rows))

    def to(self, where: torch.device | str) -> "FollowedData":
        """The same data on a device."""
        return replace(self, rows=Followed(*(column.to(where) for column in self.rows)))


def fitted_q(
    policy: Any,
    episodes: Episodes,
    *,
    steps: int,
    seed: int = 0,
    discount: float = DISCOUNT,
    samples: int = 1,
    most: int = 20_000,
    width: int = 256,
    batch_size: int = 256,
    device: str = "cpu",
) -> float | None:
    """The discounted return that a policy is expected to have from the data's first states, in the data's rewards.

    A policy acts here on single observations, as at the first step of an episode: `samples` actions are drawn for each
    and kept. Of the data's steps `most` are used, chosen by the seed: it is the acting on each of them that takes time,
    for policies that choose among candidates more than all else. None for planners, whose acts follow a plan and so are
    no function of the observation.
    """
    if hasattr(policy, "plan"):
        return None
    episodes = joined(episodes)
    known = transitions(episodes, discount=discount)
    batch = known.gather(torch.randperm(len(known), generator=generator("fqe rows", seed))[:most])
    first = episodes.obs[episodes.rows]
    mean, scale = batch.obs.mean(0), batch.obs.std(0).clamp(min=1e-3)
    box = ActionBox(episodes.spaces)
    unit = float((1 - discount) / batch.reward.abs().mean().clamp(min=1e-6))  # values of about 1
    rows = Followed(
        obs=(batch.obs - mean) / scale,
        action=box.to_unit(batch.action),
        reward=unit * batch.reward,
        next_obs=(batch.next_obs - mean) / scale,
        next_action=box.to_unit(actions(policy, batch.next_obs, samples, seed=seed, device=device)),
        terminal=batch.terminal,
        discount=batch.discount,
    )
    run = Run(None, seeds=(seed,), steps=steps, device=device, quiet=True)
    learner = run.build(lambda: FittedQ(batch.obs.shape[1], batch.action.shape[1], width=width))[0]
    fit([learner], FollowedData(rows), steps=steps, batch_size=batch_size, run=run, stage="fqe")
    taken = box.to_unit(actions(policy, first, samples, seed=seed + 1, device=device))
    with torch.no_grad():
        value = learner.value(((first - mean) / scale).to(device), taken.to(device))  # pyright: ignore[reportCallIssue]
    return float(value.double().mean()) / unit


@torch.no_grad()
def actions(
    policy: Any, obs: Float[Tensor, " b obs"], samples: int, *, seed: int, device: str = "cpu", rows: int = 512
) -> Float[Tensor, " b k act"]:
    """Several actions of a policy at each observation, in the environment's units; one if it draws no noise."""
    copies, source, found = samples if policy.noise else 1, generator("fqe", seed), []
    for part in obs.repeat_interleave(copies, 0).split(rows):
        noise = {name: x.to(device, obs.dtype) for name, x in draw(policy.noise, len(part), source).items()}
        action, _ = policy.act(part.to(device), policy.start(len(part)), noise)
        found.append(action.cpu())
    return torch.cat(found).unflatten(0, (len(obs), copies))
