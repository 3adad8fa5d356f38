"""Recordings that the tests of this folder share."""

from pathlib import Path

import pytest
import torch

from ornstein.data.episodes import Episodes

SHARED = Path(__file__).parents[3] / "shared" / "data"


@pytest.fixture
def shared():
    """Finds a file of the shared recordings, or skips the test."""

    def find(name: str) -> Path:
        path = SHARED / name
        if not path.exists():
            pytest.skip(
                f"the shared recordings are not on this machine (no {SHARED.name}/{name} beside the repository)"
            )
        return path

    return find


@pytest.fixture
def record():
    """Makes episodes of given lengths; entry j of observation row i is 100 i + j, so that every row tells itself.

    So do the placeholders of unknown final observations, unless `repeated` asks for the last known ones, as readers do.
    """

    def make(
        lengths=(3, 1, 4), *, terminal=(), known=(), obs=2, act=1, extras=None, reward=None, repeated=False
    ) -> Episodes:
        count, steps = len(lengths), sum(lengths)
        ends = torch.tensor([e in terminal for e in range(count)])
        last = torch.tensor(lengths).cumsum(0) - 1
        none = torch.zeros(steps, dtype=torch.bool)
        rows = torch.arange(steps + count, dtype=torch.float32)[:, None] * 100 + torch.arange(obs)
        known = torch.tensor([not known or known[e] for e in range(count)])
        if repeated:
            final = (torch.tensor(lengths) + 1).cumsum(0)[~known] - 1
            rows[final] = rows[final - 1]
        return Episodes(
            obs=rows,
            action=(torch.arange(steps, dtype=torch.float32)[:, None] + torch.arange(act)) / 100,
            reward=torch.arange(1, steps + 1, dtype=torch.float32) if reward is None else torch.tensor(reward),
            terminal=none.index_copy(0, last, ends),
            truncated=none.index_copy(0, last, ~ends),
            lengths=torch.tensor(lengths),
            final_known=known,
            extras=extras or {},
        )

    return make


@pytest.fixture
def same():
    """Asserts that two recordings have the same content."""

    def check(one: Episodes, other: Episodes) -> None:
        left, right = one.arrays(), other.arrays()
        assert left.keys() == right.keys()
        for name in left:
            assert left[name].dtype == right[name].dtype, name
            torch.testing.assert_close(left[name], right[name], rtol=0, atol=0, msg=lambda m, name=name: f"{name}: {m}")
        assert one.spaces == other.spaces
        assert one.hash == other.hash

    return check
