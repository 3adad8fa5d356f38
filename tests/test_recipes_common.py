"""What recipes share."""

import json

import pytest
from recipes.common import interval


def test_intervals_are_students_and_one_value_has_none():
    assert interval([1.0, 3.0]) == pytest.approx({"mean": 2.0, "low": 2 - 12.7062, "high": 2 + 12.7062}, abs=1e-3)
    one = interval([2.5])
    assert one == {"mean": 2.5, "low": None, "high": None}
    assert json.loads(json.dumps(one, allow_nan=False)) == one
