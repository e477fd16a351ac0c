"""Opens buckets by obstore (MIT), which is imported at the first address.

obstore takes credentials from the environment, from the machine's metadata server, and on Google's store from
`gcloud auth application-default login`. Keys in ~/.aws are read here, because it does not read them.
"""

import configparser
import contextlib
import functools
import importlib
import os
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

from rfjax.errors import UserError, one_line

RETRIES, SECONDS = 6, 60  # of a request: then the store counts as unreachable


class Unavailable(UserError):
    """A bucket that does not exist, does not answer, or refuses these credentials."""


@functools.cache
def obstore() -> Any:
    try:
        return importlib.import_module("obstore")
    except ImportError as error:
        raise UserError(
            "gs:// and s3:// addresses need the package obstore: pip install obstore, or -e '.[buckets]'"
        ) from error


@functools.cache
def opened(scheme: str, bucket: str) -> Any:
    obstore()
    try:
        return OPENERS[scheme](bucket)
    except UserError:
        raise
    except Exception as error:  # obstore's own kinds, and ValueError
        raise Unavailable(f"{scheme}://{bucket} can't be opened ({one_line(str(error))})") from error


def _settings(http: bool) -> dict[str, Any]:
    client = {"allow_http": http, "connect_timeout": "10s", "timeout": "300s"}
    retry = {"max_retries": RETRIES, "retry_timeout": timedelta(seconds=SECONDS)}
    return {"client_options": client, "retry_config": retry}


def _amazon(bucket: str) -> Any:
    """AWS_ENDPOINT_URL names another server than Amazon's (MinIO, Ceph, R2 and so on)."""
    store = importlib.import_module("obstore.store")
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL", "")
    config = profile() | ({"endpoint": endpoint} if endpoint else {})
    return store.S3Store(bucket, **config, **_settings(endpoint.startswith("http://")))


def profile() -> dict[str, str]:
    """Keys and region of ~/.aws for a profile, where the environment has none."""
    environ, found = os.environ, {}
    parsers = []
    for name, default in (("AWS_SHARED_CREDENTIALS_FILE", "~/.aws/credentials"), ("AWS_CONFIG_FILE", "~/.aws/config")):
        parser = configparser.RawConfigParser()
        with contextlib.suppress(configparser.Error, OSError, UnicodeDecodeError):
            parser.read(Path(environ.get(name) or default).expanduser(), encoding="utf-8")
        parsers.append(parser)
    profile = environ.get("AWS_PROFILE", "default")
    for parser in parsers:
        for section in (profile, f"profile {profile}"):
            if parser.has_section(section):
                found = dict(parser[section]) | found
    names = {"region": "region"}
    if "AWS_ACCESS_KEY_ID" not in environ:
        names |= {"aws_access_key_id": "access_key_id", "aws_secret_access_key": "secret_access_key"}
        names |= {"aws_session_token": "session_token"}
    if "AWS_REGION" in environ or "AWS_DEFAULT_REGION" in environ:
        del names["region"]
    return {ours: found[theirs] for theirs, ours in names.items() if found.get(theirs)}


def _google(bucket: str) -> Any:
    return importlib.import_module("obstore.store").GCSStore(bucket, **_settings(False))


OPENERS: dict[str, Callable[[str], Any]] = {"gs": _google, "s3": _amazon}
