"""A store in the memory of this process, with conditional writes: memory://BUCKET."""

import functools

import pytest

from rfjax import buckets
from rfjax.buckets import stores


@pytest.fixture
def memory(monkeypatch, tmp_path):
    """The bucket memory://bucket, empty."""
    import obstore

    opened = functools.cache(lambda bucket: obstore.store.MemoryStore())
    monkeypatch.setitem(stores.OPENERS, "memory", opened)
    monkeypatch.setenv("RFJAX_CACHE", str(tmp_path / "cache"))
    stores.opened.cache_clear()
    yield buckets.place("memory://bucket", "x")
    stores.opened.cache_clear()
