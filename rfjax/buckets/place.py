"""Objects in buckets of Google (gs://) and of Amazon or what speaks its protocol (s3://), by the package obstore.

An object is written whole or not at all, and can be written under a condition: only if there is none, or only if it is
still the version that was read (If-None-Match and If-Match on S3, generations on Google's store). All else in rfjax
that has to do with buckets rests on these two guarantees. An object can neither grow nor be renamed.

"""

import contextlib
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

from rfjax.buckets import stores
from rfjax.buckets.stores import Unavailable
from rfjax.errors import UserError, one_line

ADDRESS = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):/")  # gs://bucket, and gs:/bucket as Path writes it
BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,220}[A-Za-z0-9]")
LONGEST_KEY = 1024  # bytes of an object's name, on both stores
CHUNK = 2**25  # bytes of a request, of which an object has at most 10,000
MANY = 1000  # objects that one request removes


class Conflict(Exception):
    """A write whose condition does not hold: another process has written the object."""


class Seen(NamedTuple):
    """An object as it was read.

    Attributes:
        version: what a conditional write takes.
        modified: time of the last write, by the store's clock.
    """

    data: bytes
    version: Mapping[str, str]
    modified: datetime


class Entry(NamedTuple):
    """An object in a listing: its name below the folder that was listed, its size in bytes, a tag of its content."""

    name: str
    size: int
    tag: str


@dataclass(frozen=True)
class Place:
    """An object, or a folder of objects: what their names begin with.

    Attributes:
        key: name in the bucket, without slashes at its ends; "" is the whole bucket.
    """

    scheme: str
    bucket: str
    key: str = ""

    def __str__(self) -> str:
        return f"{self.scheme}://{self.bucket}" + (self.key and f"/{self.key}")

    def __truediv__(self, name: str) -> "Place":
        return Place(self.scheme, self.bucket, f"{self.key}/{name}".strip("/"))

    @property
    def parent(self) -> "Place":
        return Place(self.scheme, self.bucket, self.key.rpartition("/")[0])

    @property
    def name(self) -> str:
        return self.key.rpartition("/")[2]

    def look(self) -> Seen | None:
        """The object with its version, or None if there is none."""
        try:
            with _told(self):
                found = stores.obstore().get(self._store, self.key)
                return Seen(bytes(found.bytes()), _version(found.meta), found.meta["last_modified"])
        except FileNotFoundError:
            return None

    def entry(self) -> Entry | None:
        """The object as a listing of its folder has it, or None if there is none."""
        try:
            with _told(self):
                meta = stores.obstore().head(self._store, self.key)
        except FileNotFoundError:
            return None
        return Entry(self.name, int(meta["size"]), tag_of(_version(meta)))

    def read(self, start: int, stop: int) -> bytes:
        """Bytes `start` to `stop` of the object.

        Raises:
            FileNotFoundError: if there is none.
        """
        with _told(self):
            return (
                bytes(stores.obstore().get_range(self._store, self.key, start=start, end=stop)) if stop > start else b""
            )

    def download(self, pieces: int = 2**23) -> Iterator[bytes]:
        """Yields the object from its beginning."""
        with _told(self):
            found = stores.obstore().get(self._store, self.key)
            for piece in found.stream(min_chunk_size=pieces) if found.meta["size"] else ():
                yield bytes(piece)

    def write(self, data: bytes | Path | Iterable[Any], condition: str | Mapping[str, str] = "overwrite") -> Mapping:
        """Writes the object; readers see the old one or the whole new one.

        Args:
            data: its bytes, a file with them, or its pieces in order.
            condition: "create" writes only if there is no object, a version only if it is still the object's.

        Returns:
            The new version.

        Raises:
            Conflict: if the condition does not hold. A request that is sent twice may meet its own object: compare.
        """
        store = stores.obstore()
        mode = condition if isinstance(condition, str) else dict(condition)
        try:
            with _told(self):
                return _version(store.put(self._store, self.key, data, mode=mode, chunk_size=CHUNK))
        except FileNotFoundError as error:
            if mode in ("create", "overwrite"):
                raise Unavailable(f"there is no bucket {self.scheme}://{self.bucket}: make it first") from error
            raise Conflict(str(self)) from error
        except (store.exceptions.AlreadyExistsError, store.exceptions.PreconditionError) as error:
            raise Conflict(str(self)) from error

    def entries(self) -> list[Entry]:
        """All objects below this folder, in order of their names."""
        try:
            with _told(self):
                found = [meta for page in stores.obstore().list(self._store, self.key or None) for meta in page]
        except FileNotFoundError:
            return []
        cut = len(self.key) + 1 if self.key else 0
        return sorted(Entry(meta["path"][cut:], int(meta["size"]), tag_of(_version(meta))) for meta in found)

    def remove(self, names: Iterable[str]) -> None:
        """Removes objects below this folder; those that are not there are no error."""
        keys = [(self / name).key for name in names]
        for start in range(0, len(keys), MANY):
            with _told(self), contextlib.suppress(FileNotFoundError):
                stores.obstore().delete(self._store, keys[start : start + MANY])

    def copy_to(self, other: "Place") -> None:
        """Copies the object within its bucket."""
        with _told(self):
            stores.obstore().copy(self._store, self.key, other.key)

    @property
    def _store(self) -> Any:
        return stores.opened(self.scheme, self.bucket)


def is_address(text: str | Path) -> bool:
    """Whether a path is an address with a scheme, supported or not."""
    return bool(ADDRESS.match(str(text)))


def place(address: str | Path, key: str) -> Place:
    """Reads an address.

    Args:
        address: such as gs://bucket/folder.
        key: the config key that holds it, for messages.

    Raises:
        UserError: if the scheme is not supported, the name of the bucket is none, or the object's is too long.
    """
    scheme, _, rest = str(address).partition(":/")
    bucket, _, name = rest.lstrip("/").partition("/")
    parts = [part for part in name.split("/") if part not in ("", ".")]
    known = sorted(stores.OPENERS)
    if scheme.lower() not in stores.OPENERS:
        raise UserError(
            f"{key} = '{one_line(str(address))}' has the scheme {one_line(scheme)}://, and rfjax reads and writes "
            f"{' and '.join(f'{one}://' for one in known)}: take one of these, or mount the store and name the folder"
        )
    if not BUCKET.fullmatch(bucket) or ".." in parts:
        raise UserError(f"{key} = '{one_line(str(address))}' is not written {scheme}://BUCKET/FOLDER")
    if len(os.fsencode(name)) > LONGEST_KEY // 2:
        raise UserError(f"{key} = '{str(address)[:60]}...' is too long: an object's name may have {LONGEST_KEY} bytes")
    return Place(scheme.lower(), bucket, "/".join(parts))


def check_writable(folder: Place, key: str) -> None:
    """Writes and removes a small object, and checks that the store refuses a conditional write.

    Raises:
        UserError: if there is no such bucket, these credentials can't write there, or the store knows no conditions;
            then nothing is left there.
    """
    probe = folder / f".rfjax-{os.getpid()}-{os.urandom(6).hex()}"
    try:
        try:
            probe.write(b"1", "create")
            try:
                probe.write(b"2", "create")
            except Conflict:
                return
        finally:
            probe.remove([""])
    except Unavailable as error:
        raise UserError(f"{key} = '{folder}' can't be written: {error}") from error
    raise UserError(
        f"{key} = '{folder}': this store overwrites objects in spite of If-None-Match, which rfjax needs for locks"
    )


def tag_of(version: Mapping[str, str]) -> str:
    """What tells an object's content from its content before, in a listing and after a write alike."""
    return version.get("e_tag") or version.get("version") or ""


def _version(meta: Mapping[str, Any]) -> dict[str, str]:
    return {name: meta[name] for name in ("e_tag", "version") if meta.get(name)}


@contextlib.contextmanager
def _told(place: Place) -> Iterator[None]:
    """Turns the errors of a store into one sentence, but for missing objects and conditions that don't hold."""
    kinds = stores.obstore().exceptions
    try:
        yield
    except (kinds.AlreadyExistsError, kinds.PreconditionError):
        raise
    except (kinds.PermissionDeniedError, kinds.UnauthenticatedError) as error:
        raise Unavailable(f"the store refuses these credentials for {place} ({_reason(error)})") from error
    except FileNotFoundError as error:
        if "NoSuchBucket" in str(error):
            raise Unavailable(f"there is no bucket {place.scheme}://{place.bucket}: make it first") from error
        raise
    except (kinds.BaseError, OSError, ValueError) as error:
        text = str(error)
        if "NoSuchBucket" in text:
            raise Unavailable(f"there is no bucket {place.scheme}://{place.bucket}: make it first") from error
        if "169.254.169.254" in text or "metadata.google" in text or "CredentialsNotFound" in text:
            keys = (
                "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
                if place.scheme == "s3"
                else ("GOOGLE_APPLICATION_CREDENTIALS, or run gcloud auth application-default login")
            )
            raise Unavailable(f"there are no credentials for {place.scheme}://{place.bucket}: set {keys}") from error
        raise Unavailable(f"{place} can't be reached ({_reason(error)})") from error


def _reason(error: Exception) -> str:
    """The code of the store's answer, or the beginning of the message."""
    text = str(error)
    if code := re.search(r"<Code>(\w+)</Code>", text):
        return code[1]
    return one_line(text.split("Debug source", maxsplit=1)[0])
