"""A linear-Gaussian task with quadratic costs: the values of linear policies and the best policy are known exactly."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from ornstein.envs.make import spec_of

State = Float[np.ndarray, " obs obs"]
Gain = Float[np.ndarray, " act obs"]


@dataclass(frozen=True, eq=False)
class Linear:
    """x' = A x + B u + N(0, noise^2 I), reward -(x' Q x + u' R u), discounted; it never ends by itself.

    The default is a double integrator with step 0.1.
    """

    a: State
    b: Float[np.ndarray, " obs act"]
    q: State
    r: Float[np.ndarray, " act act"]
    noise: float = 0.05
    discount: float = 0.95

    def best_gain(self) -> Gain:
        """K of the optimal policy u = -K x."""
        return self._gain(self._riccati())

    def value(self, x: Float[np.ndarray, " n obs"], gain: Gain | None = None) -> Float[np.ndarray, " n"]:
        """The expected discounted return from states under u = -gain x; under the optimal policy without `gain`."""
        p = self._riccati() if gain is None else self._lyapunov(gain)
        return -np.einsum("ni,ij,nj->n", x, p, x) - self._floor(p)

    def action_value(self, x: Float[np.ndarray, " n obs"], u: Float[np.ndarray, " n act"]) -> Float[np.ndarray, " n"]:
        """The optimal Q: the expected discounted return of u now and the optimal policy after it."""
        p = self._riccati()
        now = np.einsum("ni,ij,nj->n", x, self.q, x) + np.einsum("ni,ij,nj->n", u, self.r, u)
        then = x @ self.a.T + u @ self.b.T
        ahead = np.einsum("ni,ij,nj->n", then, p, then) + self.noise**2 * np.trace(p) + self._floor(p)
        return -now - self.discount * ahead

    def _gain(self, p: State) -> Gain:
        bp = self.discount * self.b.T @ p
        return np.linalg.solve(self.r + bp @ self.b, bp @ self.a)

    def _riccati(self) -> State:
        """The cost matrix P of the optimal policy: the fixed point of value iteration."""
        p = self.q
        for _ in range(100_000):
            following = self._backed_up(p, self._gain(p))
            if np.abs(following - p).max() < 1e-13 * (1 + np.abs(p).max()):
                return following
            p = following
        raise ValueError("the Riccati iteration does not converge: the system cannot be stabilised at this discount")

    def _lyapunov(self, gain: Gain) -> State:
        """The cost matrix of u = -gain x, from the linear equation P = Q + K'RK + discount (A-BK)' P (A-BK)."""
        closed = self.a - self.b @ gain
        if self.discount * np.abs(np.linalg.eigvals(closed)).max() ** 2 >= 1.0:
            raise ValueError(
                f"the policy with gain {gain.tolist()} has no finite value: it does not stabilise the system"
            )
        n = len(self.a)
        stage = self.q + gain.T @ self.r @ gain
        return np.linalg.solve(np.eye(n * n) - self.discount * np.kron(closed.T, closed.T), stage.reshape(-1)).reshape(
            n, n
        )

    def _backed_up(self, p: State, gain: Gain) -> State:
        closed = self.a - self.b @ gain
        return self.q + gain.T @ self.r @ gain + self.discount * closed.T @ p @ closed

    def _floor(self, p: State) -> float:
        """What the noise costs for ever: discount / (1 - discount) noise^2 tr P."""
        return float(self.discount / (1.0 - self.discount) * self.noise**2 * np.trace(p))


def double_integrator(*, noise: float = 0.05, discount: float = 0.95) -> Linear:
    """Position and velocity under a force, step 0.1: cost 1 and 0.1 on their squares, 0.1 on the force's."""
    return Linear(
        a=np.array([[1.0, 0.1], [0.0, 1.0]]),
        b=np.array([[0.0], [0.1]]),
        q=np.diag([1.0, 0.1]),
        r=np.array([[0.1]]),
        noise=noise,
        discount=discount,
    )


class LinearQuadratic:
    """The task as an environment: x starts uniformly in [-1, 1], the episode is truncated after `max_episode_steps`."""

    def __init__(self, task: Linear | None = None, *, bound: float = 10.0, max_episode_steps: int = 200) -> None:
        from gymnasium.spaces import Box

        self.task = double_integrator() if task is None else task
        obs, act = self.task.b.shape
        self.observation_space = Box(-np.inf, np.inf, (obs,), np.float64)
        self.action_space = Box(-bound, bound, (act,), np.float64)
        self.limit = max_episode_steps
        self.spec = spec_of("LinearQuadratic-v0", {"bound": bound}, max_episode_steps)
        self._generator = torch.Generator()

    @property
    def unwrapped(self) -> "LinearQuadratic":
        """Itself."""
        return self

    def reset(self, *, seed: int | None = None, options: Mapping[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """A random state, or the one given as `options={"state": x}`."""
        if seed is not None:
            self._generator.manual_seed(seed)
        size = len(self.task.a)
        drawn = 2.0 * torch.rand(size, generator=self._generator, dtype=torch.float64).numpy() - 1.0
        self.state = np.asarray((options or {}).get("state", drawn), np.float64)
        self._steps = 0
        return self.state.copy(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """One step; the reward is that of the state before it."""
        x, u, task = self.state, np.asarray(action, np.float64), self.task
        reward = -float(x @ task.q @ x + u @ task.r @ u)
        drawn = torch.randn(len(x), generator=self._generator, dtype=torch.float64).numpy()
        self.state = task.a @ x + task.b @ u + task.noise * drawn
        self._steps += 1
        return self.state.copy(), reward, False, self._steps >= self.limit, {}

    def close(self) -> None:
        """Nothing to close."""
