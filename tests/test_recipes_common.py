"""What recipes share."""

import json
from dataclasses import replace

import pytest
from recipes.common import interval, learned

from ornstein.envs.make import make
from ornstein.online import Online
from ornstein.systems.policies import sac


def test_intervals_are_students_and_one_value_has_none():
    assert interval([1.0, 3.0]) == pytest.approx({"mean": 2.0, "low": 2 - 12.7062, "high": 2 + 12.7062}, abs=1e-3)
    one = interval([2.5])
    assert one == {"mean": 2.5, "low": None, "high": None}
    assert json.loads(json.dumps(one, allow_nan=False)) == one


def test_a_curve_ends_with_the_last_update():
    config = replace(sac.PRESETS["pendulum"], width=4, batch_size=2, steps=5)
    online, score = Online(warmup=3), lambda policy: {"return": 1.0}
    _, points = learned(sac.SYSTEM, config, lambda: make("Pendulum-v1"), online, every=2, score=score)
    assert points == [{"updates": n, "return": 1.0} for n in (2, 4, 5)]
