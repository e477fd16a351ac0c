"""Finds a prepared TensorFlow Datasets data set in a folder of them, and opens its description and its records."""

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rfjax import untrusted
from rfjax.config.paths import expanded
from rfjax.data import paths
from rfjax.data.features import kind_of
from rfjax.errors import UserError, nearest

ARRAY_RECORD = "array_record"

_NAME = re.compile(r"(\w+(?:/[^:/]+)?)(?::(\d+\.\d+\.\d+))?")
_VERSION = re.compile(r"\d+\.\d+\.\d+")  # a half-written one is called incomplete.XXXXXX_1.0.0
_LARGEST = 2**28  # bytes of a file that describes a data set
_OWN = "tensorflow_datasets."  # the package whose classes a data set's features may be


def dataset_folder(dataset: str, data_dir: str) -> Path:
    """The folder of a prepared data set, data_dir/name[/config]/version; arguments as in the config.

    Raises:
        UserError: if it is missing, with the nearest that exists.
    """
    named = data_dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets"
    root = expanded(named, "config.data.data_dir")
    matched = _NAME.fullmatch(dataset)
    if not matched:
        raise UserError(f"the data set's name must be like 'name', 'name/config' or 'name:1.0.0', not {dataset!r}")
    name, version = matched.groups()
    hint = f"; `python -m rfjax.data.fashion_mnist --data_dir {root}` prepares it" if name == "fashion_mnist" else ""
    if not root.is_dir():
        raise UserError(f"there is no data set {dataset!r}: its data_dir {str(root)!r} is not a folder{hint}")
    versions_of = prepared(root)
    if not versions_of:
        raise UserError(f"there is no prepared TFDS data set in the data_dir {str(root)!r}{hint}")
    if name not in versions_of:
        configs = [other for other in versions_of if other.startswith(f"{name}/")]
        if len(configs) > 1:
            raise UserError(f"data set {name!r} needs a config: choose from {', '.join(sorted(configs))}")
        if not configs:
            raise UserError(f"no data set {dataset!r} is prepared in {str(root)!r}{nearest(name, versions_of)}{hint}")
        name = configs[0]
    versions = versions_of[name]
    version = version or max(versions, key=lambda text: tuple(map(int, text.split("."))))
    if version not in versions:
        raise UserError(f"data set {name!r} has no version {version}{nearest(version, versions)}")
    return root / name / version


def prepared(root: Path) -> dict[str, list[str]]:
    """The complete data sets in a folder: {"name" or "name/config": versions}."""
    versions: dict[str, list[str]] = {}
    for pattern in ("*/*/dataset_info.json", "*/*/*/dataset_info.json"):
        for folder in (path.parent for path in sorted(root.glob(pattern))):
            if _VERSION.fullmatch(folder.name) and (folder / "features.json").is_file():
                versions.setdefault(folder.parent.relative_to(root).as_posix(), []).append(folder.name)
    return versions


def open_folder(folder: Path, what: str, outside: bool) -> Any:
    """The data set's builder, from the files that describe it; refuses, with a UserError, damaged ones."""
    try:
        if not outside:
            paths.check_inside(folder, (entry.name for entry in folder.iterdir()), f"'{folder}'")
        for entry in sorted(folder.iterdir()):
            if entry.suffix in (".json", ".txt"):
                untrusted.regular(entry, _LARGEST).close()
        named = re.findall(r'"pythonClassName":\s*"([^"]*)"', (folder / "features.json").read_text(encoding="utf-8"))
        if foreign := [name for name in named if not name.startswith(_OWN)]:  # TFDS would import any class
            raise UserError(
                f"the {what} has a feature of a class outside of {_OWN[:-1]}, which is not read: {foreign[0]}"
            )
        import tensorflow_datasets as tfds  # most of a second: only if it is used

        return tfds.builder_from_directory(folder)
    except UserError:
        raise
    except Exception as error:  # of damaged JSON, TFDS raises nearly anything
        raise UserError(f"the {what} can't be opened ({first_line(error)}): copy it again") from error


def open_records(
    builder: Any, split_spec: str, features: Mapping[str, Any], what: str
) -> tuple[Sequence[Mapping[str, Any]], list[str]]:
    """Opens the records of a split.

    Returns:
        The records, whose pictures stay files; and each file's name, its size in bytes and its part of the split.

    Raises:
        UserError: if the split is missing or empty, or one of its files is missing.
    """
    import tensorflow_datasets as tfds

    if ARRAY_RECORD not in {form.value for form in builder.info.available_file_formats()}:
        raise UserError(
            f"the {what} is stored as {builder.info.file_format.value}, not {ARRAY_RECORD}: prepare it again with "
            f'download_and_prepare(file_format="{ARRAY_RECORD}")'
        )
    try:
        count = builder.info.splits[split_spec].num_examples
    except (ValueError, KeyError, AssertionError) as error:
        sizes = {name: split.num_examples for name, split in builder.info.splits.items()}
        word = re.split(r"\W", split_spec)[0]
        hint = ' (slices are written "train[:95%]")' if word in sizes else nearest(word, sizes)
        listed = ", ".join(f"{name} ({size})" for name, size in sizes.items())
        raise UserError(f"the {what} has no split {split_spec!r}{hint}; it has: {listed}") from error
    if not count:
        raise UserError(f"the {what} has no record in split {split_spec!r}")
    parts = builder.info.splits[split_spec].file_instructions
    if missing := [part for part in parts if not Path(part.filename).is_file()]:
        name = Path(missing[0].filename).name
        raise UserError(f"the {what} lacks {len(missing)} of its files, such as {name}: copy it again")
    decoders = {key: tfds.decode.SkipDecoding() for key, feature in features.items() if kind_of(feature) == "image"}
    records = builder.as_data_source(split_spec, decoders=decoders, file_format=ARRAY_RECORD)
    files = [Path(part.filename) for part in parts]
    named = zip(files, parts, strict=True)
    return records, [f"{file.name}\0{file.stat().st_size}\0{part.skip}\0{part.take}" for file, part in named]


def first_line(error: Exception) -> str:
    """The first line of an error's message."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
