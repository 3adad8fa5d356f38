"""Toy tasks whose answers are known: the bandit of four corners, and the pendulum's exact dynamics."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from ornstein.envs.make import spec_of
from ornstein.types import Transitions

CORNERS = ((-0.8, 0.8), (-0.8, -0.8), (0.8, 0.8), (0.8, -0.8))
"""Where the data's actions lie: left up, left down, right up, right down."""

REWARDS = (3.0, 0.0, 1.5, 5.0)
"""Mean reward at each corner. The best action is the corner right down; its expected return, 5, is the optimum."""

ACTION_STD, REWARD_STD, RADIUS = 0.05, 0.5, 0.25
"""Spread of the data at a corner, noise of the reward, and how near an action must be to count as a corner's."""


def four_corners(n: int, generator: torch.Generator) -> Transitions:
    """One-step episodes of the bandit: a constant state 0, an action at a random corner, the corner's noisy reward.

    Source: Wang et al. 2023 (2208.06193), the toy of section 5; the action's spread is clipped to the box [-1, 1].
    """
    corner = torch.randint(4, (n,), generator=generator)
    action = torch.tensor(CORNERS)[corner] + ACTION_STD * torch.randn(n, 2, generator=generator)
    reward = torch.tensor(REWARDS)[corner] + REWARD_STD * torch.randn(n, generator=generator)
    state = torch.zeros(n, 1)
    return Transitions(state, action.clamp(-1.0, 1.0), reward, state.clone(), torch.ones(n), torch.zeros(n))


def corner_of(action: Float[Tensor, " n 2"]) -> Int[Tensor, " n"]:
    """The corner (index into CORNERS) within RADIUS of each action, or -1 outside of all."""
    distance = torch.cdist(action, torch.tensor(CORNERS, dtype=action.dtype, device=action.device))
    nearest = distance.min(1)
    return torch.where(nearest.values <= RADIUS, nearest.indices, -1)


def corner_shares(action: Float[Tensor, " n 2"]) -> tuple[float, ...]:
    """The shares of actions at the four corners, in the order of CORNERS, and outside of all of them."""
    counts = torch.bincount(corner_of(action) + 1, minlength=5).double() / len(action)
    return (*counts[1:].tolist(), float(counts[0]))


RING, RING_STD, RING_REACH = 2.0, 0.15, 0.6
"""Radius of the circle of eight modes, their spread, and how near a point must be to count as a mode's."""


def eight_modes(n: int, generator: torch.Generator) -> Transitions:
    """One-step episodes without a state: an action from one of eight Gaussians on a circle, of reward 0, 1/7, ..., 1.

    Source: Lu et al. 2023 (2304.12824), the toy of section 5.1.
    """
    mode = torch.randint(8, (n,), generator=generator)
    action = ring()[mode] + RING_STD * torch.randn(n, 2, generator=generator)
    state = torch.zeros(n, 1)
    return Transitions(state, action, mode / 7, state.clone(), torch.ones(n), torch.zeros(n))


def ring() -> Float[Tensor, " 8 2"]:
    """The eight means, anticlockwise from the right."""
    angle = torch.arange(8) * torch.pi / 4
    return RING * torch.stack([angle.cos(), angle.sin()], 1)


def ring_shares(action: Float[Tensor, " n 2"]) -> tuple[tuple[float, ...], float]:
    """The shares of the eight modes, each point being its nearest one's, and the share of points far from all."""
    nearest = torch.cdist(action, ring().to(action)).min(1)
    counts = torch.bincount(nearest.indices, minlength=8).double() / len(action)
    return tuple(counts.tolist()), float((nearest.values > RING_REACH).double().mean())


class FourCorners:
    """The bandit as an environment: one step, the corner's mean reward with noise, nothing outside of the corners.

    The optimum is 5, at the corner right down. `noisy=False` gives the means, for exact returns.
    """

    def __init__(self, *, noisy: bool = True) -> None:
        from gymnasium.spaces import Box

        self.observation_space = Box(-1.0, 1.0, (1,), np.float64)
        self.action_space = Box(-1.0, 1.0, (2,), np.float32)
        self.noisy = noisy
        self.spec = spec_of("FourCorners-v0", {"noisy": noisy}, 1)
        self._generator = torch.Generator()

    @property
    def unwrapped(self) -> "FourCorners":
        """Itself."""
        return self

    def reset(self, *, seed: int | None = None, options: Mapping[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """The constant state."""
        if seed is not None:
            self._generator.manual_seed(seed)
        return np.zeros(1), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """The reward; the episode is over."""
        corner = int(corner_of(torch.as_tensor(np.asarray(action, np.float64))[None]))
        mean = REWARDS[corner] if corner >= 0 else 0.0
        noise = REWARD_STD * float(torch.randn((), generator=self._generator)) if self.noisy and corner >= 0 else 0.0
        return np.zeros(1), mean + noise, True, False, {"success": corner == int(np.argmax(REWARDS))}

    def close(self) -> None:
        """Nothing to close."""


@dataclass(frozen=True)
class Pendulum:
    """Constants of Gymnasium's Pendulum-v1, and its dynamics as a pure function of many states at once."""

    gravity: float = 10.0
    mass: float = 1.0
    length: float = 1.0
    step: float = 0.05
    max_speed: float = 8.0
    max_torque: float = 2.0

    def __call__(
        self, obs: Float[Tensor, " b 3"], action: Float[Tensor, " b 1"]
    ) -> tuple[Float[Tensor, " b 3"], Float[Tensor, " b"]]:
        """The next observation (cos, sin, velocity) and the reward -(angle^2 + 0.1 velocity^2 + 0.001 torque^2)."""
        angle, velocity = torch.atan2(obs[:, 1], obs[:, 0]), obs[:, 2]
        torque = action[:, 0].clamp(-self.max_torque, self.max_torque)
        pull = 1.5 * self.gravity / self.length * angle.sin() + 3.0 / (self.mass * self.length**2) * torque
        speed = (velocity + pull * self.step).clamp(-self.max_speed, self.max_speed)
        turned = angle + speed * self.step
        reward = -(angle**2 + 0.1 * velocity**2 + 0.001 * torque**2)
        return torch.stack([turned.cos(), turned.sin(), speed], 1), reward


pendulum = Pendulum()
"""The dynamics with Gymnasium's own constants: `pendulum(obs, action) -> (next_obs, reward)`."""
