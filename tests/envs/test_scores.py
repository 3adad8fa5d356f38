import json
from pathlib import Path

import numpy as np
import pytest

from ornstein.envs.scores import DATASETS, ENVIRONMENTS, FAMILIES, family, normalise, reference, score

RANDOM_SUM, EXPERT_SUM = -1637.485152, 61048.220795
PUBLISHED = Path(__file__).parents[3] / "shared" / "data" / "reference-results" / "d4rl_reference_scores.json"


@pytest.mark.parametrize(
    ("name", "returns", "expected"),
    [
        ("hopper-medium-v2", 3234.3, 100.0),
        ("hopper-medium-v2", -20.272305, 0.0),
        ("hopper-medium-replay-v2", 1607.0138475, 50.0),
        ("halfcheetah-expert-v0", 12135.0 + 124.15178953, 101.0),
        ("walker2d-full-replay-v1", 4592.3, 100.0),
        ("ant-random-v2", -325.6 - 42.053, -1.0),
        ("antmaze-large-play-v2", 0.7, 70.0),
        ("kitchen-mixed-v0", 3.0, 75.0),
        ("maze2d-large-v1", 6.7 + 2.6729, 1.0),
        ("pen-human-v1", 96.262799 + 0.1 * (3076.8331017826877 - 96.262799), 10.0),
        ("minigrid-fourrooms-v0", 2.89685, 100.0),
        ("bullet-maze2d-large-v0", 1.82, 0.0),
    ],
)
def test_scores_by_hand(name, returns, expected):
    assert score(name, returns) == pytest.approx(expected, abs=1e-6)


def test_every_published_name_and_no_other():
    if not PUBLISHED.exists():
        pytest.skip(f"{PUBLISHED.name}, the table of published references, stands beside the repository, if at all")
    published = json.loads(PUBLISHED.read_text())
    assert {name: tuple(reference(name)) for name in DATASETS} == {
        name: (value["min"], value["max"]) for name, value in published.items()
    }


def test_counts_of_names():
    assert len(DATASETS) == 147 and len(FAMILIES) == 31
    assert {"pen-human-v0", "pen-human-v1", "antmaze-umaze-v0", "antmaze-umaze-v2"} <= set(DATASETS)
    assert sum(name.startswith("hopper-") for name in DATASETS) == 17
    assert "hopper-full-replay-v0" not in DATASETS and "antmaze-umaze-v1" not in DATASETS


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("Hopper-v4", "hopper"),
        ("Hopper-v5", "hopper"),
        ("HalfCheetah-v2", "halfcheetah"),
        ("Hopper-v3", "hopper"),
        ("pkg.module:Walker2d-v4", "walker2d"),
        ("Ant-v4?terminate_when_unhealthy=false", "ant"),
        ("AdroitHandDoor-v1", "door"),
        ("hopper", "hopper"),
        ("PointMaze_UMaze-v3", None),
        ("AntMaze_UMaze-v5", None),
        ("FrankaKitchen-v1", None),
        ("Humanoid-v4", None),
        ("", None),
    ],
)
def test_environments_lead_to_their_family_only_where_the_task_is_the_same(name, expected):
    assert family(name) == expected


def test_no_constant_has_changed():
    """Sums over all families of the published table."""
    assert sum(reference.random for reference, _ in FAMILIES.values()) == pytest.approx(RANDOM_SUM, abs=1e-5)
    assert sum(reference.expert for reference, _ in FAMILIES.values()) == pytest.approx(EXPERT_SUM, abs=1e-5)


def test_every_environment_has_a_family():
    assert set(ENVIRONMENTS.values()) <= set(FAMILIES)


def test_unknown_names_get_near_ones():
    with pytest.raises(ValueError, match="near: hopper-medium-v2"):
        reference("hoper-medium-v2")
    with pytest.raises(ValueError, match="families: halfcheetah"):
        reference("zzz")


def test_own_yardsticks():
    np.testing.assert_allclose(normalise([1.0, 2.0, 6.0], 2.0, 4.0), [-50.0, 0.0, 200.0])
    with pytest.raises(ValueError, match="must differ"):
        normalise(1.0, 2.0, 2.0)
