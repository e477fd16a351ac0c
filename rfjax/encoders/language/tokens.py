"""Texts to numbers of tokens, by the tokenizers that lie beside published text networks.

The libraries `tokenizers` and `sentencepiece` do it; both are imported when a first text comes.
"""

import functools
import importlib
import re
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int32

from rfjax import untrusted
from rfjax.errors import UserError, one_line

LARGEST = 2**26  # bytes of a tokenizer's file; T5's have 2 MB
CHARACTERS = 128  # of a text are read for each token that there is room for: no published token is longer
HALVES = re.compile("[\ud800-\udfff]")  # of a character beyond U+FFFF, which is no text
SPACES = re.compile(r"[ \t\r\n]+")
WHITE = re.compile("\x85")  # a space to Unicode, and not to sentencepiece
CLIP_WORDS = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
JSON, VOCABULARY, MERGES, PIECES = "tokenizer.json", "vocab.json", "merges.txt", "spiece.model"
MAPS = ("special_tokens_map.json", "tokenizer_config.json")  # which say the special tokens, the first one first
FIX = "take the one that came with the weights"


class Special(NamedTuple):
    """The special tokens of a kind of tokenizer, where its files say nothing else.

    Attributes:
        start: before a text; "" for none. end: behind it. pad: fills it up. files: of which a folder has one set.
        roles: the names of the three in MAPS.
    """

    start: str
    end: str
    pad: str
    files: tuple[tuple[str, ...], ...]
    roles: tuple[str, str, str]


KINDS = {
    "clip_l": Special("<|startoftext|>", "<|endoftext|>", "<|endoftext|>", ((JSON,), (VOCABULARY, MERGES)),
                      ("bos_token", "eos_token", "pad_token")),
    "clip_g": Special("<|startoftext|>", "<|endoftext|>", "!", ((JSON,), (VOCABULARY, MERGES)),
                      ("bos_token", "eos_token", "pad_token")),
    "t5": Special("", "</s>", "<pad>", ((JSON,), (PIECES,)), ("", "eos_token", "pad_token")),
    "bert": Special("[CLS]", "[SEP]", "[PAD]", ((JSON,),), ("cls_token", "sep_token", "pad_token")),
}  # fmt: skip


class Tokens(NamedTuple):
    """Texts as numbers.

    Attributes:
        ids: of the tokens with the special ones, filled up, (B, L).
        counts: how many of each text are not filling, (B,).
        cut: how many texts were cut.
    """

    ids: Int32[np.ndarray, "B L"]
    counts: Int32[np.ndarray, " B"]
    cut: int


class Cuts:
    """Counts texts that were cut, over all threads, by encoder."""

    def __init__(self) -> None:
        self._lock, self._texts, self._cut = threading.Lock(), 0, {}

    def add(self, texts: int, cut: Mapping[str, int]) -> None:
        """Adds what a batch had."""
        with self._lock:
            self._texts += texts
            for name, count in cut.items():
                self._cut[name] = self._cut.get(name, 0) + count

    @property
    def texts(self) -> int:
        """All that were read, each as often as it was."""
        return self._texts

    @property
    def cut(self) -> dict[str, int]:
        """encoder -> how many of them were too long for it."""
        with self._lock:
            return {name: count for name, count in self._cut.items() if count}

    def sentence(self) -> str:
        """What was cut, for the user; empty if nothing was."""
        parts = ", ".join(f"{count:,} for {name}" for name, count in self.cut.items())
        return f"of {self.texts:,} texts that were read, some were too long and are cut: {parts}" if parts else ""


@dataclass(frozen=True)
class Tokenizer:
    """The tokenizer in a folder.

    Attributes:
        path: the folder.
        kind: of KINDS.
        length: tokens of a text, with the special ones. Longer texts are cut; the end token stays.
    """

    path: str
    kind: str
    length: int

    def check(self) -> None:
        """Raises UserError if the folder or a file is missing; reads nothing."""
        folder, sets = Path(self.path), KINDS[self.kind].files
        if not any(all((folder / name).is_file() for name in names) for names in sets):
            needed = " or ".join(" and ".join(names) for names in sets)
            what = "has no" if folder.is_dir() else "is missing: it should hold"
            raise UserError(f"the tokenizer's folder {folder} {what} {needed}")

    def load(self, vocabulary: int) -> None:
        """Reads the files, so that a mistake is found early.

        Args:
            vocabulary: how many tokens the network knows.

        Raises:
            UserError: as `__call__`, or if there are tokens that the network does not know.
        """
        if (count := _opened(self.path, self.kind).count) > vocabulary:
            raise UserError(
                f"the tokenizer in {self.path} has {count} tokens, and its network knows {vocabulary}: take the one "
                "that came with the weights"
            )

    def __call__(self, texts: Sequence[str]) -> Tokens:
        """Tokenises texts.

        Raises:
            UserError: if a file is missing or broken, or the library is.
        """
        opened = _opened(self.path, self.kind)
        room = self.length - len(opened.start) - 1
        ids, counts, cut = np.full((len(texts), self.length), opened.pad, np.int32), [], 0
        for row, text in zip(ids, map(whole, texts), strict=True):
            long = SPACES.sub(" ", text) if len(text) > (most := CHARACTERS * self.length) else text
            found = opened.encode(long[:most])
            cut += len(found) > room or len(long) > most
            tokens = [*opened.start, *found[:room], opened.end]
            row[: len(tokens)] = tokens
            counts.append(len(tokens))
        return Tokens(ids, np.array(counts, np.int32), cut)


def whole(text: str) -> str:
    """The text with U+FFFD for halves of characters, which no library takes."""
    return HALVES.sub("\ufffd", text)


@dataclass(frozen=True)
class Opened:
    """A tokenizer that was read.

    Attributes:
        encode: a text -> its tokens, without special ones. start, end, pad: the special ones.
        count: the largest number of a token, plus one.
    """

    encode: Callable[[str], list[int]]
    start: tuple[int, ...]
    end: int
    pad: int
    count: int


@functools.cache
def _opened(path: str, kind: str) -> Opened:
    Tokenizer(path, kind, 0).check()
    folder, special = Path(path), KINDS[kind]
    files = next(names for names in special.files if all((folder / name).is_file() for name in names))
    try:
        if files == (PIECES,):
            return _pieces(folder / PIECES)
        read = _vocabulary(folder, special) if VOCABULARY in files else _json(folder / JSON)
        start, end, pad = (_said(folder, role, own) for role, own in zip(special.roles, special[:3], strict=True))
        # As in transformers: where a text has a special token's letters, that is the token, such as CLIP G's "!".
        known = [token for token in (start, end, pad) if read.token_to_id(token) is not None]
        read.add_special_tokens(known)
    except UserError:
        raise
    except BaseException as error:  # tokenizers' panics are no Exception
        if isinstance(error, KeyboardInterrupt | SystemExit):
            raise
        raise UserError(f"{folder / files[0]} is no tokenizer: {one_line(str(error))}") from error

    def number(token: str) -> int:
        found = read.token_to_id(token)
        if found is None:
            raise UserError(
                f"{folder / files[0]} has no token {one_line(token)!r}, which begins, ends or fills up texts"
            )
        return found

    encode = lambda text: read.encode(text, add_special_tokens=False).ids  # noqa: E731
    return Opened(
        encode, (number(start),) if start else (), number(end), number(pad), 1 + max(read.get_vocab().values())
    )


def _said(folder: Path, role: str, own: str) -> str:
    """The special token of a role, by the folder's maps or else the kind's own."""
    for name in MAPS if role else ():
        value = (untrusted.read_json(folder / name, limit=LARGEST, fix=FIX) or {}).get(role)
        value = value.get("content") if isinstance(value, dict) else value
        if isinstance(value, str) and value:
            return value
    return own


def _library(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise UserError(f"tokens of this text encoder need the package '{name}': pip install 'rfjax[text]'") from error


def _json(path: Path) -> Any:
    """A file of the library `tokenizers`, without its own cutting and filling up."""
    library = _library("tokenizers")
    read = library.Tokenizer.from_str((untrusted.read_bytes(path, limit=LARGEST, fix=FIX) or b"").decode("utf-8"))
    read.no_truncation()
    read.no_padding()
    return read


def _vocabulary(folder: Path, special: Special) -> Any:
    """CLIP's byte-pair encoding by vocab.json and merges.txt, as transformers builds it."""
    library = _library("tokenizers")
    models, normal, pre = (
        importlib.import_module(f"tokenizers.{x}") for x in ("models", "normalizers", "pre_tokenizers")
    )
    known = untrusted.read_json(folder / VOCABULARY, limit=LARGEST, fix=FIX) or {}
    text = (untrusted.read_bytes(folder / MERGES, limit=LARGEST, fix=FIX) or b"").decode(errors="replace")
    pairs = [tuple(line.split(" ")) for line in text.split("\n") if line.strip() and not line.startswith("#version")]
    end = _said(folder, special.roles[1], special.end)
    read = library.Tokenizer(
        models.BPE(vocab=known, merges=pairs, continuing_subword_prefix="", end_of_word_suffix="</w>", unk_token=end)
    )
    spaces = normal.Replace(library.Regex(r"\s+"), " ")
    read.normalizer = normal.Sequence([normal.NFC(), spaces, normal.Lowercase()])
    words = pre.Split(library.Regex(CLIP_WORDS), behavior="removed", invert=True)
    read.pre_tokenizer = pre.Sequence([words, pre.ByteLevel(add_prefix_space=False)])
    return read


def _pieces(path: Path) -> Opened:
    """T5's model of the library `sentencepiece`; around it, what T5TokenizerFast does to special tokens and spaces."""
    processor = _library("sentencepiece").SentencePieceProcessor()
    processor.LoadFromSerializedProto(untrusted.read_bytes(path, limit=LARGEST, fix=FIX) or b"")
    if processor.eos_id() < 0:
        raise UserError(f"{path} has no end token, which T5 needs: {FIX}")
    numbers = [each for each in (processor.eos_id(), processor.pad_id(), processor.unk_id()) if each >= 0]
    special = {processor.IdToPiece(each): each for each in numbers}
    split = re.compile(f"({'|'.join(map(re.escape, special))})")

    def encode(text: str) -> list[int]:
        found: list[int] = []
        for part in split.split(WHITE.sub(" ", text)):
            found += [special[part]] if part in special else processor.EncodeAsIds(part)
        return found

    return Opened(encode, (), processor.eos_id(), max(processor.pad_id(), 0), processor.GetPieceSize())
