"""Data sets by name: which file or Minari set a name stands for, and in which environment a policy of it is judged.

Files are looked for in the folder that the variable ORNSTEIN_DATA names, D4RL's also where D4RL itself puts them.
"""

import difflib
import os
from dataclasses import dataclass
from pathlib import Path

ROBOTS = {"hopper": "Hopper", "walker2d": "Walker2d", "halfcheetah": "HalfCheetah"}
HANDS = {"pen": "Pen", "hammer": "Hammer", "door": "Door", "relocate": "Relocate"}
LEVELS = ("medium", "medium-replay", "medium-expert")


@dataclass(frozen=True)
class Known:
    """A data set: its file below ORNSTEIN_DATA or its Minari id, and the task that it was recorded in.

    `env`: where policies are judged; empty: the environment that the data name. `task` and `family`: the presets that
    suit it, the narrow one first. `max_steps`: cuts episodes where the paper's are shorter than the environment's.
    """

    place: str
    env: str = ""
    task: str = ""
    family: str = ""
    max_steps: int | None = None


DATASETS: dict[str, Known] = {
    **{
        f"{robot}-{level}": Known(f"mujoco-offline/{robot}-{level}.h5", f"{name}-v5", f"{robot}-{level}", "locomotion")
        for level in ("replay", "medium", "expert")
        for robot, name in ROBOTS.items()
    },
    **{
        f"{hand}-{kind}": Known(f"{folder}/{hand}-{kind}.h5", f"AdroitHand{HANDS[hand]}-v1", f"{hand}-{kind}", "adroit")
        for hand, kind, folder in (
            ("door", "human", "adroit-door-human"),
            ("door", "expert", "adroit-expert"),
            ("hammer", "expert", "adroit-expert"),
            ("pen", "expert", "adroit-expert"),
        )
    },
    **{
        f"{robot}-{level}-v2": Known(
            f"{robot}_{level.replace('-', '_')}-v2.hdf5", f"{name}-v4", f"{robot}-{level}", "locomotion"
        )
        for level in LEVELS
        for robot, name in ROBOTS.items()
    },
    **{
        f"{hand}-{kind}-v1": Known(
            f"{hand}-{kind}-v1.hdf5",
            f"AdroitHand{HANDS[hand]}-v1",
            f"{hand}-{kind}",
            "adroit",
            100 if hand == "pen" else 200,
        )
        for kind in ("human", "cloned")
        for hand in HANDS
    },
    **{
        f"mujoco/{robot}/{level}-v0": Known(
            f"mujoco/{robot}/{level}-v0", f"{name}-v5", f"{robot}-{level}", "locomotion"
        )
        for level in ("medium", "expert")
        for robot, name in ROBOTS.items()
    },
    **{
        f"D4RL/antmaze/{maze}-v1": Known(f"D4RL/antmaze/{maze}-v1", "", f"antmaze-{maze}", "antmaze")
        for maze in ("umaze", "umaze-diverse", "medium-play", "medium-diverse", "large-play", "large-diverse")
    },
    **{
        f"D4RL/kitchen/{kind}-v2": Known(f"D4RL/kitchen/{kind}-v2", "", f"kitchen-{kind}", "kitchen")
        for kind in ("complete", "partial", "mixed")
    },
    **{
        f"D4RL/{hand}/{kind}-v2": Known(f"D4RL/{hand}/{kind}-v2", "", f"{hand}-{kind}", "adroit")
        for kind in ("human", "cloned")
        for hand in HANDS
    },
    **{
        f"D4RL/pointmaze/{maze}-v2": Known(f"D4RL/pointmaze/{maze}-v2", "", f"maze2d-{maze}", "maze2d")
        for maze in ("umaze", "medium", "large")
    },
}
"""Names of three kinds: plain ones are small files in D4RL's layout, whose scores never stand beside published ones;
those that end in a version are D4RL's own files; those with slashes are sets of Minari.

D4RL's locomotion data were recorded in the `-v2` robots, whose dynamics and rewards the `-v4` ones keep. AntMaze and
the kitchen of D4RL itself are left out: today's environments of these names are other ones, those of Minari's sets.
"""


def find(name: str) -> Known:
    """The data set of a name, or one of that file or Minari id of which nothing else is known."""
    return DATASETS.get(name) or Known(name)


def locate(name: str) -> str:
    """Where the data set of a name lies: a path that exists, or the name itself where it may be a Minari set's.

    A name that is neither known nor there as it stands is looked for as a path below ORNSTEIN_DATA.
    """
    place = find(name).place
    if Path(name).exists() or (name in DATASETS and place == name):
        return name
    places = _places(place)
    found = next((str(path) for path in places if path.exists()), None)
    if found is not None:
        return found
    if name in DATASETS:
        where = " nor ".join(map(str, places)) or f"{place}, for which ORNSTEIN_DATA names no folder"
        raise FileNotFoundError(f"data set {name}: not at {where}; set ORNSTEIN_DATA to the folder that holds {place}")
    if Path(name).suffix:
        raise FileNotFoundError(absent(name))
    return name


def absent(name: str) -> str:
    """What an error says of a name that stands for nothing: all that was tried, and the known names most like it."""
    if Path(name).is_absolute():
        return f"{name}: no such file or folder; check the path"
    tried = "".join(f", nor is {path}" for path in _places(name))
    near = difflib.get_close_matches(name, DATASETS, n=3, cutoff=0.6)
    hint = f" (near {' or '.join(near)})" if near else ""
    mend = "" if os.environ.get("ORNSTEIN_DATA") else ", or set ORNSTEIN_DATA to the folder that holds it"
    told = f"{name}: no such file or folder{tried}; no known data set{hint}, nor the id of a Minari set"
    return f"{told}: check the name{mend}; `ornstein data list` shows the known sets"


def _places(place: str) -> list[Path]:
    """Where a file may lie: below ORNSTEIN_DATA, and D4RL's own also in D4RL's folder."""
    folder = os.environ.get("ORNSTEIN_DATA")
    places = [Path(folder).expanduser() / place] if folder else []
    if place.endswith(".hdf5"):
        places.append(Path(os.environ.get("D4RL_DATASET_DIR", Path.home() / ".d4rl" / "datasets")) / place)
    return places
