"""The study's coverage against known visits, and the study itself, small."""

import json

import numpy as np
import pytest

from ornstein.envs.doors import NARROW, WIDE, reachable
from ornstein.studies.noise_schedule import ENV, Visits, effective, main, table


def test_coverage_is_the_number_of_cells_visited_evenly():
    assert effective([3, 3, 3]) == pytest.approx(3.0)
    assert effective([7]) == pytest.approx(1.0)
    assert effective([9, 1, 0]) == pytest.approx(np.exp(-0.9 * np.log(0.9) - 0.1 * np.log(0.1)))


@pytest.mark.parametrize(("height", "found"), [(NARROW + 0.01, 1.0), (WIDE + 0.01, 0.0)])
def test_one_height_visits_one_cell_a_wall_after_the_warm_up(height, found):
    env = Visits(after=4)
    for episode in range(3):
        env.reset(seed=episode)
        over = False
        while not over:
            _, _, over, _, _ = env.step(np.array([0.9 if episode == 0 else height]))
    assert env.summary() == pytest.approx({"coverage": 4 / reachable(), "visited": 4 / reachable(), "found": found})


def test_the_study_writes_its_rows_table_and_figure(tmp_path):
    found = main(tmp_path, seeds=1, quick=True)
    assert json.loads((tmp_path / "noise_schedule.json").read_text())["rows"] == found["rows"]
    names = [(row["model"], row["steps"]) for row in found["rows"]]
    assert names == [(m, n) for m in ("vp", "cosine") for n in (5, 10)] + [
        ("Gaussian (SAC)", 0),
        ("uniform actions", 0),
    ]
    assert all(0 < row["coverage"] <= row["visited"] <= 1 for row in found["rows"])
    assert "| cosine | 10 | " in (tmp_path / "noise_schedule.md").read_text()
    assert found["command"] in table(found["rows"], found["command"])
    assert (tmp_path / "noise_schedule.png").stat().st_size > 10_000
    assert ENV == "TwoDoors-v0"
