"""Hand-made environments whose episodes can be counted on the fingers."""

import numpy as np
from gymnasium import Env, spaces


class Counter(Env):
    """Observation (steps so far, seed mod 1000); reward is 10^steps, so that every step shows in the sum.

    Ends after `length` steps: terminal with `ends`, else truncated. The last reward is worth the most.
    """

    def __init__(self, length=3, *, ends=True, report=None, lengths=None):
        self.observation_space = spaces.Box(-np.inf, np.inf, (2,), np.float64)
        self.action_space = spaces.Box(-1.0, 1.0, (1,), np.float64)
        self.length, self.ends, self.report, self.lengths = length, ends, report, lengths
        self.resets, self.actions = [], []

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.resets.append((seed, options))
        self.steps, self.mark = 0, float((seed or 0) % 1000)
        if options and "length" in options:
            self.length = options["length"]
        return np.array([0.0, self.mark]), {}

    def step(self, action):
        self.actions.append(float(action[0]))
        self.steps += 1
        over = self.steps >= self.length
        info = {} if self.report is None else {"success": self.report(self.steps)}
        return (
            np.array([self.steps, self.mark]),
            10.0 ** (self.steps - 1),
            over and self.ends,
            over and not self.ends,
            info,
        )


class Noisy(Env):
    """A random walk: the environment's own noise and the policy's action both move it; the reward is its position."""

    def __init__(self, length=6):
        self.observation_space = spaces.Box(-np.inf, np.inf, (2,), np.float64)
        self.action_space = spaces.Box(-1.0, 1.0, (1,), np.float64)
        self.length = length

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.steps, self.x = 0, self.np_random.normal()
        self.end = int(self.np_random.integers(2, self.length + 1))
        return np.array([self.x, 0.0]), {}

    def step(self, action):
        self.steps += 1
        self.x += float(action[0]) + self.np_random.normal()
        return np.array([self.x, float(self.steps)]), self.x, False, self.steps >= self.end, {}
