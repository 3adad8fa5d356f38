"""Advantages along episodes, scaled rewards and clipped gains: hand-computed cases and plain loops."""

import math

import pytest
import torch
from torch import Tensor

from ornstein.noise import generator
from ornstein.rl.proximal import (
    ReturnScale,
    clipped_gain,
    drift,
    generalised_advantage,
    rising_reach,
    standardised,
)


def column(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64).unsqueeze(1)


def test_advantages_of_two_steps_by_hand():
    """Deltas 1 + .5 * 4 - 2 = 1 and 3 + .5 * 6 - 4 = 2; the first sum is 1 + .5 * .8 * 2."""
    flags = {"terminal": column(0, 0), "end": column(0, 0)}
    found = generalised_advantage(column(1, 3), column(2, 4), column(4, 6), discount=0.5, trace=0.8, **flags)
    torch.testing.assert_close(found, column(1.8, 2))
    flags = {"terminal": column(0, 1), "end": column(0, 1)}
    found = generalised_advantage(column(1, 3), column(2, 4), column(4, 6), discount=0.5, trace=0.8, **flags)
    torch.testing.assert_close(found, column(0.6, -1))


def plain_advantage(
    reward: list[float], value: list[float], after: list[float], kinds: list[str], discount: float, trace: float
) -> list[float]:
    """For each step the sum forward to the end of its episode, term by term."""
    found = []
    for i in range(len(reward)):
        total, factor = 0.0, 1.0
        for j in range(i, len(reward)):
            bootstrap = 0.0 if kinds[j] == "terminal" else discount * after[j]
            total += factor * (reward[j] + bootstrap - value[j])
            factor *= discount * trace
            if kinds[j] != "on":
                break
        found.append(total)
    return found


def test_advantages_equal_a_plain_loop_over_ends_and_time_limits():
    source = generator("advantage")
    t, n = 30, 3
    reward, value, after = (torch.randn(t, n, generator=source, dtype=torch.float64) for _ in range(3))
    kind = torch.randint(6, (t, n), generator=source)  # 0: ended by itself, 1: by a time limit
    flags = {"terminal": (kind == 0).double(), "end": (kind < 2).double()}
    found = generalised_advantage(reward, value, after, discount=0.9, trace=0.7, **flags)
    for row in range(n):
        kinds = [{0: "terminal", 1: "limit"}.get(int(k), "on") for k in kind[:, row]]
        plain = plain_advantage(*(x[:, row].tolist() for x in (reward, value, after)), kinds, 0.9, 0.7)  # type: ignore
        assert found[:, row].tolist() == pytest.approx(plain)
    leaking = generalised_advantage(
        reward, value, after, discount=0.9, trace=0.7, **(flags | {"end": (kind == 0).double()})
    )
    assert not torch.allclose(found, leaking)  # a time limit ends the sum, as in no code that only looks at terminals


def test_gains_end_at_the_reach_on_the_side_where_they_grow():
    log_ratio = torch.tensor([0.3, 0.3, -0.3, -0.3, 0.05])
    weight = torch.tensor([2.0, -2.0, 2.0, -2.0, 2.0])
    found = clipped_gain(log_ratio, weight, torch.tensor(0.1))
    up, down = math.exp(0.3), math.exp(-0.3)
    assert found.tolist() == pytest.approx([2.2, -2 * up, 2 * down, -1.8, 2 * math.exp(0.05)])


def test_the_reach_rises_to_the_last_step():
    found = rising_reach(0.001, 0.01, 3, rate=2.0)
    middle = 0.001 + 0.009 * (math.e - 1) / (math.e**2 - 1)
    assert found.tolist() == pytest.approx([0.001, middle, 0.01])
    assert rising_reach(0.001, 0.01, 1).tolist() == pytest.approx([0.01])


def test_drift_is_the_divergence_of_two_gaussians():
    """KL(N(0, 1) | N(.3, 1)) = .045, by draws of the first."""
    x = torch.randn(200_000, generator=generator("drift"), dtype=torch.float64)
    assert drift(0.3 * x - 0.045).item() == pytest.approx(0.045, rel=0.02)
    assert drift(torch.zeros(3)).item() == 0


def test_rewards_are_divided_by_the_spread_of_running_returns():
    """One environment, discount .5: returns 1, 2.5, then 4 alone after an end; their population std is 1.2247."""
    scale = ReturnScale(1, 0.5)
    reward = torch.tensor([[1.0], [2.0], [4.0]])
    end = torch.tensor([[0.0], [1.0], [0.0]])
    torch.testing.assert_close(scale(reward, end), reward / 1.2247449)
    scale(torch.tensor([[1.0]]), torch.zeros(1, 1))  # the sum goes on: 3
    returns = torch.tensor([1.0, 2.5, 4.0, 3.0], dtype=torch.float64)
    count, mean, square = scale.moments.tolist()
    assert (count, mean, square) == pytest.approx((4, returns.mean().item(), returns.var(correction=0).item() * 4))
    scale.restart()
    scale(torch.tensor([[7.0]]), torch.zeros(1, 1))
    assert scale.moments[1].item() == pytest.approx((10.5 + 7) / 5)
    rare = torch.cat((torch.zeros(399, 1), torch.ones(1, 1)))  # 20 standard deviations
    assert ReturnScale(1, 0.5)(rare, torch.zeros(400, 1))[-1].item() == 10


def test_standardised_values_have_mean_zero_and_spread_one():
    found = standardised(torch.tensor([1.0, 2.0, 3.0]))
    assert found.tolist() == pytest.approx([-(1.5**0.5), 0, 1.5**0.5])
    assert standardised(torch.ones(3)).tolist() == [0, 0, 0]
