"""The study's measures against laws for which they are known, and the study itself, small."""

import json
import math

import pytest
import torch

from ornstein.noise import generator
from ornstein.studies.expressiveness import RADIUS, actions, centres, compared, energy_distance, main, models, table


def test_the_data_themselves_cover_everything_and_a_single_mode_does_not():
    fresh = actions(8, 4000, generator("fresh"))
    own = compared(actions(8, 4000, generator("own")), 8, fresh)
    assert (own["covered"], own["distance"]) == (1.0, pytest.approx(0.0, abs=0.05))
    assert own["outside"] < 0.002
    one = compared(centres(8)[:1].repeat(4000, 1), 8, fresh)
    assert one["covered"] == 1 / 8
    middle = compared(torch.zeros(4000, 2), 8, fresh)
    assert (middle["covered"], middle["outside"]) == (0.0, 1.0)
    assert middle["distance"] > 0.5


def test_the_energy_distance_of_two_points_and_of_shifted_normals():
    a, b = torch.zeros(50, 1), torch.full((50, 1), 3.0)
    assert energy_distance(a, b) == pytest.approx(math.sqrt(6.0))
    g = generator("normals")
    x, y = torch.randn(4000, 1, generator=g), torch.randn(4000, 1, generator=g) + 1
    within = 2 / math.sqrt(math.pi)  # E|N(0, 2)|
    across = math.sqrt(2) * (math.sqrt(2 / math.pi) * math.exp(-0.25) + math.sqrt(0.5) * math.erf(0.5))
    assert energy_distance(x, y) == pytest.approx(math.sqrt(2 * across - 2 * within), rel=0.05)


def test_modes_lie_on_the_circle():
    torch.testing.assert_close(centres(4).norm(dim=1), torch.full((4,), RADIUS))
    torch.testing.assert_close(centres(2), torch.tensor([[RADIUS, 0.0], [-RADIUS, 0.0]]), atol=1e-6, rtol=0)


def test_the_study_writes_its_rows_table_and_figure(tmp_path, monkeypatch):
    kept = {name: value for name, value in models().items() if name in ("Gaussian", "flow, 2 steps")}
    monkeypatch.setattr("ornstein.studies.expressiveness.models", lambda: kept)
    found = main(tmp_path, seeds=1, quick=True)
    assert json.loads((tmp_path / "expressiveness.json").read_text())["rows"] == found["rows"]
    assert [(row["model"], row["modes"]) for row in found["rows"]] == [(m, n) for n in (2, 4) for m in kept]
    assert "| Gaussian | " in (tmp_path / "expressiveness.md").read_text()
    assert found["command"] in table(found["rows"], found["command"])
    assert (tmp_path / "expressiveness.png").stat().st_size > 10_000
    assert next(row for row in found["rows"] if row["model"] == "Gaussian")["outside"] > 0.5
