"""Values learned on the data's own actions, and the policy that such values imply.

Nothing here asks for the value of an action that is not in the data: V is a high statistic of Q over the data's
actions, and Q is regressed on V. `batch` has actions in the learner's units, whatever these are.
"""

import math
from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from ornstein.rl.critic import Critics, StateValues, regression
from ornstein.rl.target import td_target
from ornstein.rl.weight import expectile_loss
from ornstein.types import Metrics, Transitions

Asymmetry = Literal["expectile", "quantile", "exponential"]
"""Which loss of u = Q - V makes V a high statistic of Q."""


def asymmetric_loss(error: Float[Tensor, " *b"], kind: Asymmetry, *, level: float) -> Float[Tensor, " *b"]:
    """The loss f(u) per entry for u = target - value, convex and least at u = 0.

    "expectile": |level - 1(u < 0)| u^2; "quantile": |level - 1(u < 0)| |u|; "exponential": exp(level u) - level u, and
    its tangent beyond exp(level u) = 6. Source: Hansen-Estruch et al. 2023 (2304.10573), section 4.2.
    """
    if kind == "expectile":
        return expectile_loss(error, expectile=level)
    if kind == "quantile":
        _share(level)
        return torch.where(error < 0, level - 1, level) * error
    _known(kind, level)
    power = level * error
    most = math.log(6.0)
    return torch.where(power < most, power.clamp(max=most).exp(), 6 * (1 + power - most)) - power


def implicit_weight(advantage: Float[Tensor, " *b"], kind: Asymmetry, *, level: float) -> Float[Tensor, " *b"]:
    """|f'(u)| / |u| at u = Q - V, detached and up to a factor: how much more often the implied policy takes an action.

    For expectiles that is `level` above V and 1 - level below. |u| counts as at least 1e-6.
    Source: Hansen-Estruch et al. 2023 (2304.10573), theorem 4.1. Deviates: the official code divides quantile weights
    by u itself, which makes them negative, and leaves exponential ones without exp.
    """
    size = advantage.detach().abs().clamp(min=1e-6)
    if kind == "exponential":
        _known(kind, level)
        power = (level * advantage.detach()).clamp(max=math.log(6.0))  # beyond, the loss goes on along its tangent
        return torch.expm1(power).abs() / size
    _share(level)
    side = torch.where(advantage.detach() < 0, 1 - level, level)
    return side if kind == "expectile" else side / size


def in_sample_value_loss(
    values: StateValues, critics: Critics, batch: Transitions, *, level: float, kind: Asymmetry = "expectile"
) -> tuple[Float[Tensor, ""], Metrics]:
    """The loss of V(s) against min_i Q_i(s, a) at the data's action; no gradient reaches the critics.

    Source: Kostrikov et al. 2022 (2110.06169), eq. 5, with the target critics.
    """
    error = advantage(values, critics, batch)
    loss = asymmetric_loss(error, kind, level=level).mean()
    return loss, {"advantage": error.mean()}


def in_sample_critic_loss(
    critics: Critics, values: StateValues, batch: Transitions
) -> tuple[Float[Tensor, ""], Metrics]:
    """The critics' squared error, summed over them, against r + gamma V(s'); no gradient reaches V.

    Source: Kostrikov et al. 2022 (2110.06169), eq. 6.
    """
    with torch.no_grad():
        target = td_target(batch.reward, batch.terminal, batch.discount, values(batch.next_obs)[0])
    return regression(critics, batch.obs, batch.action, target)


def advantage(values: StateValues, critics: Critics, batch: Transitions) -> Float[Tensor, " b"]:
    """The smallest Q_i(s, a) at the data's action, a number, less V(s), which has a gradient."""
    with torch.no_grad():
        q = critics(batch.obs, batch.action).amin(0)
    return q - values(batch.obs)[0]


def _share(level: float) -> None:
    if not 0 < level < 1:
        raise ValueError(f"level = {level} must lie between 0 and 1; 0.5 is the middle")


def _known(kind: str, level: float) -> None:
    if kind not in get_args(Asymmetry) or not level > 0:
        raise ValueError(
            f"{kind!r} at level {level}: choose one of {', '.join(get_args(Asymmetry))}, at a positive level"
        )
