"""A cache of their own for the tests of the bench."""

import pytest


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("ORNSTEIN_CACHE", str(tmp_path_factory.mktemp("cache")))
    monkeypatch.delenv("ORNSTEIN_DATA", raising=False)
