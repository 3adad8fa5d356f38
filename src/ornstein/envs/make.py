"""Environments by name, with flat observations: Gymnasium ids or `package.module:EnvId-v0`, goals appended."""

import contextlib
import difflib
import io
import json
import warnings
from collections.abc import Callable, Iterable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from ornstein.types import Spaces

Options = Mapping[str, Any]
"""Arguments of an environment's constructor, for instance {"continuing_task": False}."""

INSTALL = "pip install 'ornstein[envs]'"


def make(
    env_id: str, *, options: Options | None = None, max_episode_steps: int | None = None, flatten: bool = True
) -> Any:
    """A Gymnasium environment whose observation and action are one flat vector each.

    `env_id`: a Gymnasium id (those of gymnasium-robotics are registered when needed), or `package.module:EnvId-v0`,
    which imports the module first. Constructor options may follow a question mark, so that a file or a command line can
    name them: `PointMaze_UMaze-v3?continuing_task=false`; the values are JSON, other text is a string. `options` win
    over these. Goal environments give [observation, desired_goal]; `spaces` tells the sizes. `max_episode_steps`
    replaces the time limit. Without `flatten` goal environments keep their dictionaries, as `collect` wants them, and
    discrete actions stay numbers; else they are vectors of scores, the highest of which is chosen.
    """
    name, written = parse(env_id)
    if name in OWN:
        limit = {} if max_episode_steps is None else {"max_episode_steps": max_episode_steps}
        own = _own(name, {**written, **(options or {}), **limit})
        return flat(own) if flatten else own
    gymnasium = _gymnasium()
    if ":" not in name and name not in gymnasium.registry:
        _register_robotics(name)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*is out of date.*")
            env = gymnasium.make(
                name,
                max_episode_steps=max_episode_steps,
                disable_env_checker=True,
                **{**written, **(options or {})},
            )
    except gymnasium.error.DependencyNotInstalled as error:
        newer = _near(name, [*OWN, *gymnasium.registry])
        raise ValueError(f"environment {name!r} misses a package ({error.args[0]}){newer}: {INSTALL}") from error
    except (gymnasium.error.UnregisteredEnv, gymnasium.error.Error) as error:
        raise ValueError(f"unknown environment {name!r}{_near(name, [*OWN, *gymnasium.registry])}: {error}") from error
    except ModuleNotFoundError as error:
        raise ValueError(
            f"environment {name!r} cannot be imported ({error}): install its package, or {INSTALL}"
        ) from error
    except TypeError as error:
        raise ValueError(f"environment {name!r} does not take these options: {error}") from error
    except Exception as error:
        raise ValueError(f"environment {name!r} cannot be built here ({_versions()}): {error!r}") from error
    _tidy(env)
    return flat(env) if flatten else env


OWN: dict[str, str] = {
    "BidirectionalCar-v0": "ornstein.envs.car:BidirectionalCar",
    "EdgeProviders-v0": "ornstein.envs.edge:providers",
    "EdgeQueues-v0": "ornstein.envs.edge:queues",
    "FourCorners-v0": "ornstein.envs.toy:FourCorners",
    "LinearQuadratic-v0": "ornstein.envs.linear:LinearQuadratic",
    "PointMass-v0": "ornstein.envs.mass:PointMass",
    "Errands-v0": "ornstein.envs.point:Errands",
    "TwoDoors-v0": "ornstein.envs.doors:doors",
}
"""The environments of this package, by id."""


def _own(name: str, options: Options) -> Any:
    module, _, kind = OWN[name].partition(":")
    try:
        return getattr(import_module(module), kind)(**options)
    except TypeError as error:
        raise ValueError(f"environment {name!r} does not take these options: {error}") from error


def spec_of(name: str, options: Options, max_episode_steps: int | None = None) -> Any:
    """The Gymnasium specification by which an environment of this package is named and made again."""
    from gymnasium.envs.registration import EnvSpec

    return EnvSpec(name, entry_point=OWN[name], kwargs=dict(options), max_episode_steps=max_episode_steps)


def parse(env_id: str) -> tuple[str, dict[str, Any]]:
    """The plain id and the constructor options of `id?name=value&name=value`.

    >>> parse("PointMaze_UMaze-v3?continuing_task=false")
    ('PointMaze_UMaze-v3', {'continuing_task': False})
    """
    name, _, query = env_id.partition("?")
    options: dict[str, Any] = {}
    for item in filter(None, query.split("&")):
        key, equals, value = item.partition("=")
        if not equals or not key:
            raise ValueError(f"option {item!r} of environment {env_id!r} is not of the form name=value")
        try:
            options[key] = json.loads(value)
        except json.JSONDecodeError:
            options[key] = value
    if not name:
        raise ValueError(f"environment id {env_id!r} is empty: give a Gymnasium id such as 'Hopper-v4'")
    return name, options


def flat(env: Any) -> Any:
    """The environment with vectors on both sides: goals behind observations, scores in place of choices.

    Unchanged where it has them; see `_joined` and `_scored`.
    """
    return _scored(_joined(env))


def _scored(env: Any) -> Any:
    """An environment of n discrete actions with vectors of n scores in [0, 1], the highest of which is chosen.

    So a choice is a box like any other action for everything that stores, draws, scales or counts actions: a discrete
    policy gives one-hot vectors, any other one gives scores, and uniform scores make uniform choices. Only here is it
    known that an environment wants a number; `Spaces`, replays, episodes and losses are as they were.
    """
    import gymnasium
    from gymnasium import spaces as kinds
    from gymnasium.wrappers import TransformAction

    space = env.action_space
    if not isinstance(space, kinds.Discrete) or not isinstance(env, gymnasium.Env):
        return env
    box = kinds.Box(0.0, 1.0, (int(space.n),), np.float32)
    return TransformAction(env, lambda scores: int(space.start) + int(np.argmax(scores)), box)


def _joined(env: Any) -> Any:
    """The environment with vector observations: unchanged if they are, else [observation, desired_goal]."""
    import gymnasium
    from gymnasium import spaces as kinds
    from gymnasium.wrappers import TransformObservation

    space = env.observation_space
    if not isinstance(space, kinds.Dict):
        return env
    if "observation" not in space.spaces:
        raise ValueError(f"observation entries {sorted(space.spaces)}: expected 'observation' and 'desired_goal'")
    names = [name for name in ("observation", "desired_goal") if name in space.spaces]
    vectors = all(isinstance(space[name], kinds.Box) and len(space[name].shape or ()) == 1 for name in names)

    def join(obs: Mapping[str, Any]) -> Any:
        parts = [obs[name] if vectors else kinds.flatten(space[name], obs[name]) for name in names]
        return np.concatenate([np.asarray(part) for part in parts])

    size = sum(kinds.flatdim(space[name]) for name in names)
    joined = kinds.Box(-float("inf"), float("inf"), (size,), np.float64)
    return TransformObservation(env, join, joined) if isinstance(env, gymnasium.Env) else _Flat(env, join, joined)


class _Flat:
    """An environment of this package with its observations joined."""

    def __init__(self, env: Any, join: Callable[[Mapping[str, Any]], Any], space: Any) -> None:
        self.env, self.join, self.observation_space, self.action_space = env, join, space, env.action_space
        self.unwrapped, self.spec = env.unwrapped, env.spec

    def reset(self, *, seed: int | None = None, options: Mapping[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """As the environment's own."""
        obs, info = self.env.reset(seed=seed, options=options)
        return self.join(obs), info

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """As the environment's own."""
        obs, *rest = self.env.step(action)
        return self.join(obs), *rest

    def close(self) -> None:
        """As the environment's own."""
        self.env.close()


def spaces(env: Any) -> Spaces:
    """Sizes and action bounds of a flat environment; `goal` entries come last in its observation."""
    from gymnasium import spaces as kinds

    observation, action = env.observation_space, env.action_space
    if not isinstance(observation, kinds.Box) or len(observation.shape) != 1:
        raise ValueError(f"observation space {observation} is not a vector: make the environment by ornstein.envs.make")
    if not isinstance(action, kinds.Box) or len(action.shape) != 1:
        raise ValueError(
            f"action space {action} is neither a vector of real numbers, the only continuous actions that are "
            "supported, nor one discrete choice of an environment made by ornstein.envs.make"
        )
    inner = env.unwrapped.observation_space
    aimed = isinstance(inner, kinds.Dict) and "desired_goal" in inner.spaces
    goal = kinds.flatdim(inner["desired_goal"]) if aimed else 0
    return Spaces(
        obs=observation.shape[0] - goal,
        act=action.shape[0],
        goal=goal,
        action_low=tuple(float(x) for x in action.low),
        action_high=tuple(float(x) for x in action.high),
    )


def _gymnasium() -> Any:
    try:
        import gymnasium
    except ModuleNotFoundError as error:
        raise ValueError(f"environments need the package gymnasium: {INSTALL}") from error
    return gymnasium


ROBOTICS = ("PointMaze", "AntMaze", "FrankaKitchen", "AdroitHand", "Fetch", "HandReach", "HandManipulate", "MaMuJoCo")


def _register_robotics(name: str) -> None:
    """Register the environments of gymnasium-robotics; only its absence under one of its own names is an error."""
    import gymnasium

    try:
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stderr(io.StringIO()),
        ):  # it prints a notice about other tasks
            warnings.simplefilter("ignore")
            import gymnasium_robotics
    except ModuleNotFoundError as error:
        if name.startswith(ROBOTICS):
            raise ValueError(f"environment {name!r} needs the package {error.name!r}: {INSTALL}") from error
        return
    gymnasium.register_envs(gymnasium_robotics)


def _tidy(env: Any) -> None:
    """Remove the model file that the mazes of gymnasium-robotics write for MuJoCo to read once, and leave behind."""
    written = getattr(env.unwrapped, "tmp_xml_file_path", None)
    if written is not None:
        Path(written).unlink(missing_ok=True)


def _versions() -> str:
    """Installed versions of the packages that most environments stand on."""
    from importlib import metadata

    found = {x.metadata["Name"]: x.version for x in metadata.distributions()}
    return ", ".join(f"{name} {found.get(name, 'missing')}" for name in ("gymnasium", "gymnasium-robotics", "mujoco"))


def _near(name: str, known: Iterable[str]) -> str:
    matches = difflib.get_close_matches(name, list(known), n=3, cutoff=0.6)
    return f" (near: {', '.join(matches)})" if matches else ""
