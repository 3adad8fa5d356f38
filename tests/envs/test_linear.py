import numpy as np
import pytest
from scipy.linalg import solve_discrete_are

from ornstein.envs.linear import Linear, LinearQuadratic, double_integrator

SCALAR = Linear(np.eye(1), np.eye(1), np.eye(1), np.eye(1), noise=0.0, discount=0.5)


def test_the_scalar_case_by_hand():
    """P = 1 + P/2 - (P/2)^2 / (1 + P/2), so that P^2 = 2."""
    p = np.sqrt(2.0)
    assert SCALAR.value(np.array([[1.0]])) == pytest.approx(-p)
    assert SCALAR.best_gain() == pytest.approx(0.5 * p / (1 + 0.5 * p))
    assert SCALAR.value(np.array([[2.0]])) == pytest.approx(-4 * p)


def test_a_policy_that_does_nothing_by_hand():
    """x stays: cost x^2 (1 + 1/2 + 1/4 + ...) = 2 x^2; noise adds 1/2 / (1 - 1/2) s^2 2."""
    nothing = np.zeros((1, 1))
    assert SCALAR.value(np.array([[3.0]]), nothing) == pytest.approx(-18.0)
    noisy = Linear(np.eye(1), np.eye(1), np.eye(1), np.eye(1), noise=0.3, discount=0.5)
    assert noisy.value(np.array([[3.0]]), nothing) == pytest.approx(-18.0 - 0.18)


def test_the_riccati_solution_is_scipys():
    task = double_integrator()
    root = np.sqrt(task.discount)
    p = solve_discrete_are(root * task.a, root * task.b, task.q, task.r)
    x = np.random.default_rng(0).normal(size=(5, 2))
    floor = task.discount / (1 - task.discount) * task.noise**2 * np.trace(p)
    np.testing.assert_allclose(task.value(x), -np.einsum("ni,ij,nj->n", x, p, x) - floor, rtol=1e-9)


def test_the_best_gain_is_best_and_consistent():
    task, x = double_integrator(), np.array([[1.0, -0.5], [0.2, 0.7]])
    best = task.best_gain()
    np.testing.assert_allclose(task.value(x), task.value(x, best), rtol=1e-9)
    np.testing.assert_allclose(task.action_value(x, -x @ best.T), task.value(x), rtol=1e-9)
    for change in (0.3, -0.3):
        assert (task.value(x, best + change) < task.value(x)).all()
        assert (task.action_value(x, -x @ best.T + change) < task.value(x)).all()


def test_rollouts_earn_the_value():
    task = double_integrator(discount=0.9)
    env, gain, returns = LinearQuadratic(task, max_episode_steps=100), task.best_gain(), []
    for seed in range(150):
        x, _ = env.reset(seed=seed, options={"state": [1.0, -0.5]})
        total, over, t = 0.0, False, 0
        while not over:
            x, reward, terminal, over, _ = env.step(-gain @ x)
            total, t = total + task.discount**t * reward, t + 1
            assert not terminal
        returns.append(total)
        assert t == 100
    expected = float(task.value(np.array([[1.0, -0.5]]))[0])
    assert np.mean(returns) == pytest.approx(expected, abs=4 * np.std(returns) / np.sqrt(150))


def test_one_step_by_hand():
    env = LinearQuadratic(double_integrator(noise=0.0))
    env.reset(seed=0, options={"state": [1.0, 2.0]})
    state, reward, *_ = env.step(np.array([3.0]))
    np.testing.assert_allclose(state, [1.2, 2.3])
    assert reward == pytest.approx(-(1.0 + 0.4 + 0.9))


def test_unstable_policies_have_no_value():
    with pytest.raises(ValueError, match="no finite value"):
        double_integrator().value(np.ones((1, 2)), np.array([[-5.0, -5.0]]))


def test_starts_are_seeded_and_in_the_box():
    env = LinearQuadratic()
    starts = np.array([env.reset(seed=s)[0] for s in range(60)])
    assert np.abs(starts).max() <= 1.0 and starts.std() > 0.4
    np.testing.assert_array_equal(env.reset(seed=3)[0], starts[3])
