from pathlib import Path

import numpy as np
import pytest

from ornstein.envs.make import OWN, flat, make, parse, spaces, spec_of
from ornstein.envs.mass import PointMass
from ornstein.types import Spaces


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Hopper-v4", ("Hopper-v4", {})),
        ("A-v0?x=1&y=false&z=word", ("A-v0", {"x": 1, "y": False, "z": "word"})),
        ('A-v0?name="large"&low=-1.5', ("A-v0", {"name": "large", "low": -1.5})),
        ("pkg.mod:A-v0?maze=[[1,0],[0,1]]", ("pkg.mod:A-v0", {"maze": [[1, 0], [0, 1]]})),
    ],
)
def test_options_are_read_from_the_id(text, expected):
    assert parse(text) == expected


@pytest.mark.parametrize("text", ["", "?a=1", "A-v0?a", "A-v0?=1"])
def test_malformed_ids_are_refused(text):
    with pytest.raises(ValueError, match="environment"):
        parse(text)


def test_a_gymnasium_environment_keeps_its_vector_and_its_bounds():
    env = make("Pendulum-v1", max_episode_steps=7)
    assert spaces(env) == Spaces(obs=3, act=1, action_low=(-2.0,), action_high=(2.0,))
    assert env.spec.max_episode_steps == 7
    assert env.reset(seed=0)[0].shape == (3,)


def test_a_module_is_imported_for_its_environment():
    env = make("gymnasium.envs.classic_control.pendulum:Pendulum-v1", options={"g": 3.0})
    assert env.unwrapped.g == 3.0


def test_options_in_the_call_win_over_those_in_the_id():
    assert make("Pendulum-v1?g=1.0", options={"g": 2.0}).unwrapped.g == 2.0
    assert make("Pendulum-v1?g=1.0").unwrapped.g == 1.0


def test_robotics_is_registered_when_asked_for_and_its_goal_comes_last():
    env = make("PointMaze_UMaze-v3?continuing_task=false")
    assert spaces(env) == Spaces(obs=4, act=2, goal=2)
    assert env.unwrapped.continuing_task is False
    obs, _ = env.reset(seed=0)
    inner = env.unwrapped
    assert not Path(inner.tmp_xml_file_path).exists()
    np.testing.assert_array_equal(obs, [*inner.data.qpos, *inner.data.qvel, *inner.goal])
    env.close()


def test_goal_dictionaries_are_kept_for_recording():
    env = make("PointMass-v0", flatten=False)
    assert set(env.reset(seed=0)[0]) == {"observation", "achieved_goal", "desired_goal"}


def test_joining_puts_the_goal_behind_the_observation_after_reset_and_step():
    plain, joined = PointMass(), flat(PointMass())
    options = {"start": (-1.0, 1.0), "goal": (1.0, 0.3)}
    (first, _), (same, _) = plain.reset(seed=0, options=options), joined.reset(seed=0, options=options)
    np.testing.assert_array_equal(same, [*first["observation"], *first["desired_goal"]])
    after, reward, *flags = joined.step(np.array([0.5, -1.0]))
    expected, reward_too, *flags_too = plain.step(np.array([0.5, -1.0]))
    np.testing.assert_array_equal(after, [*expected["observation"], 1.0, 0.3])
    assert (reward, *flags) == (reward_too, *flags_too)
    assert joined.unwrapped.maze is joined.env.maze


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("Hoper-v4", "near: Hopper-v4"),
        ("Hopper-v99", "near: Hopper"),
        ("PointMas-v0", "near: PointMass-v0"),
        ("NoSuchThing-v0", "unknown environment"),
        ("no_such_module:Thing-v0", "cannot be imported"),
        ("Pendulum-v1?wings=2", "wings"),
        ("PointMass-v0?wings=2", "wings"),
        ("Hopper-v2", r"pip install 'ornstein\[envs\]'"),
    ],
)
def test_what_cannot_be_made_says_why(name, message):
    with pytest.raises(ValueError, match=message):
        make(name)


def test_a_missing_extra_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "gymnasium", None)
    with pytest.raises(ValueError, match=r"pip install 'ornstein\[envs\]'"):
        make("Hopper-v4")


def test_one_discrete_action_is_a_vector_of_scores_and_several_are_refused():
    sizes = spaces(make("CartPole-v1"))
    assert (sizes.act, sizes.action_low, sizes.action_high) == (2, (0.0, 0.0), (1.0, 1.0))

    class Switches:
        from gymnasium.spaces import Box, MultiDiscrete

        observation_space, action_space = Box(0.0, 1.0, (2,)), MultiDiscrete([2, 3])

    with pytest.raises(ValueError, match="only continuous actions"):
        spaces(flat(Switches()))


def test_pictures_are_refused_as_observations():
    class Camera:
        from gymnasium.spaces import Box

        observation_space, action_space = Box(0, 255, (8, 8, 3), np.uint8), Box(-1, 1, (2,))

    with pytest.raises(ValueError, match="not a vector"):
        spaces(Camera())


@pytest.mark.parametrize("name", sorted(OWN))
def test_every_environment_of_the_package_is_named_by_its_specification(name):
    env = make(name)
    assert env.spec.id == name
    again = make(name, options=env.spec.kwargs, max_episode_steps=17 if name != "FourCorners-v0" else None)
    assert again.spec.kwargs == env.spec.kwargs
    assert again.spec.max_episode_steps == (17 if name != "FourCorners-v0" else 1)
    assert spec_of(name, env.spec.kwargs).entry_point == OWN[name]
    env.close()
    again.close()
