"""Buckets (gs://, s3://): addresses, the mirror of a work folder, and a local cache of what is read."""

from rfjax.buckets.cache import listed, local, opened, release
from rfjax.buckets.place import Conflict, Place, is_address, place
from rfjax.buckets.stores import Unavailable

__all__ = ["Conflict", "Place", "Unavailable", "is_address", "listed", "local", "opened", "place", "release"]
