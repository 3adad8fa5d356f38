"""Regression targets of values."""

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional


def td_target(
    reward: Float[Tensor, " b"],
    terminal: Float[Tensor, " b"],
    discount: Float[Tensor, " b"],
    next_value: Float[Tensor, " b"],
) -> Float[Tensor, " b"]:
    """The target of a value after one or n steps, detached: reward + discount (1 - terminal) next_value.

    `terminal` is 1 where the episode ended by itself, never for a time limit: only that cuts the bootstrap.
    Source: Sutton, Barto 2018, section 6.1.
    """
    named = {"reward": reward, "terminal": terminal, "discount": discount, "next_value": next_value}
    shapes = {name: tuple(value.shape) for name, value in named.items()}
    if len(set(shapes.values())) != 1 or reward.ndim != 1:
        raise ValueError(f"shapes {shapes}: give every one as (b,), or (b, 1) against (b,) would broadcast to (b, b)")
    return (reward + discount * (1 - terminal) * next_value).detach()


def soft_value(q: Float[Tensor, " *b k"], *, temperature: float) -> Float[Tensor, " *b"]:
    """The mean of k candidates' values by the weights softmax(temperature q).

    `temperature` is inverse: 0 is the plain mean, and large ones give the largest value.
    Source: Chen et al. 2023 (2209.14548), eq. 8; Lu et al. 2023 (2304.12824), eq. 12.
    """
    return (functional.softmax(temperature * q, dim=-1) * q).sum(-1)
