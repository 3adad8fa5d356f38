"""Small recordings of random episodes, and the words that command lines in tests share."""

from pathlib import Path

import numpy as np

OWN = str(Path(__file__).parent / "own_system.py")
QUIET = ("--quiet", "--no-picture")
OBS, ACT = 3, 1  # as Pendulum-v1


def recording(path: Path, *, episodes: int = 6, length: int = 12, obs: int = OBS, **changes) -> Path:
    """An NPZ file of random episodes; `changes` replace whole arrays."""
    source = np.random.default_rng(0)
    n = episodes * length
    ends = np.arange(n) % length == length - 1
    arrays = {
        "observations": source.normal(size=(n, obs)).astype(np.float32),
        "actions": source.uniform(-1, 1, size=(n, ACT)).astype(np.float32),
        "rewards": source.normal(size=n).astype(np.float32),
        "terminals": np.zeros(n, bool),
        "timeouts": ends,
    }
    np.savez(path, **(arrays | changes))
    return path
