"""Small text networks with random weights: what tests/parity/test_language.py compares with transformers and
tests/encoders/test_language.py repeats from its recordings. Weights are functions of names and shapes. No torch."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from pipelines import write_network

from rfjax.compiling import quick_options
from rfjax.encoders.language import Tower, open_tower, read

TOLERANCE = 1e-5  # relative to the largest number
RECORDED = Path(__file__).parent / "parity" / "recorded_language"
BATCH = 2
States = dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Case:
    """A small network and the tokens that it reads.

    Attributes:
        model: the class in transformers. kind: of our towers. settings: of its config. length: of the tokens.
        part: the model's attribute that encodes text. file: what its saved folder lacks or holds besides.
    """

    name: str
    model: str
    kind: str
    settings: Mapping[str, Any]
    length: int = 16
    part: str = ""

    def __str__(self) -> str:
        return self.name

    @property
    def ids(self) -> np.ndarray:
        """Tokens, (B, L): the largest number, where a CLIP of old files ends, comes twice."""
        ids = np.random.default_rng(3).integers(3, 99, (BATCH, self.length))
        ids[0, self.length // 2 :: 3], ids[1, -1] = 99, 99
        return ids.astype(np.int32)

    @property
    def mask(self) -> np.ndarray:
        """Which tokens BERT sees."""
        return np.arange(self.length) < np.array([[self.length], [self.length // 2]])


CLIP = {"vocab_size": 100, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 3, "num_attention_heads": 2,
        "max_position_embeddings": 16, "projection_dim": 24, "eos_token_id": 2, "bos_token_id": 0}  # fmt: skip
BARE = {key: value for key, value in CLIP.items() if key != "projection_dim"}  # of a whole CLIP, which says it itself
T5 = {"vocab_size": 100, "d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 3, "num_heads": 6,
      "feed_forward_proj": "gated-gelu"}  # fmt: skip
BERT = {"vocab_size": 100, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 3, "num_attention_heads": 2,
        "max_position_embeddings": 16}  # fmt: skip
PICTURES = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1,
            "image_size": 8, "patch_size": 4}  # fmt: skip
CASES = [
    Case("clip-l", "CLIPTextModelWithProjection", "clip", CLIP | {"hidden_act": "quick_gelu"}),
    Case("clip-g", "CLIPTextModelWithProjection", "clip", CLIP | {"hidden_act": "gelu", "eos_token_id": 99}),
    Case("clip-alone", "CLIPTextModel", "clip", CLIP | {"eos_token_id": 7}),
    Case("clip-whole", "CLIPModel", "clip", {"text_config": BARE, "vision_config": PICTURES, "projection_dim": 24}),
    Case("t5", "T5EncoderModel", "t5", T5, length=140),
    Case("t5-whole", "T5ForConditionalGeneration", "t5", T5 | {"relative_attention_max_distance": 20}, 40, "encoder"),
    Case("bert", "BertModel", "bert", BERT),
    Case("bert-masked", "BertForMaskedLM", "bert", BERT | {"hidden_act": "gelu_new"}, part="bert"),
]


def write(folder: Path, shapes: Mapping[str, tuple[int, ...]], config: Mapping[str, Any]) -> Path:
    """The folder of a network."""
    whole = {name: shape for name, shape in shapes.items() if not name.endswith("position_ids")}
    return write_network(folder, config, whole)


def ours(case: Case, path: Path) -> States:
    """What our network makes of the case's tokens."""
    tower = open_tower(path, case.kind)
    return run(tower, case.ids, *((case.mask,) if case.kind == "bert" else ()))


def run(tower: Tower, *inputs: np.ndarray) -> States:
    """The states of tokens, by name."""
    made = jax.jit(tower, compiler_options=quick_options())(read(tower), *inputs)
    return {name: np.asarray(x) for name, x in (made._asdict() if tower.kind == "clip" else {"states": made}).items()}


def difference(found: States, expected: States) -> float:
    """The largest difference of any state, relative to the largest number of its kind."""
    away = []
    for name, wanted in expected.items():
        assert found[name].shape == wanted.shape, (name, found[name].shape, wanted.shape)
        assert np.isfinite(found[name]).all()
        away.append(float(np.abs(found[name] - wanted).max() / np.abs(wanted).max()))
    return max(away)


def record(name: str, states: States, **texts: Any) -> None:
    """Writes a case's states, and other things as JSON."""
    RECORDED.mkdir(exist_ok=True)
    np.savez_compressed(RECORDED / f"{name}.npz", **states, **{f"{k}.json": json.dumps(v) for k, v in texts.items()})


def recorded(name: str) -> tuple[States, dict[str, Any]]:
    """(states, other things) of a case, as transformers had them."""
    with np.load(RECORDED / f"{name}.npz") as found:
        texts = {key[:-5]: json.loads(str(found[key])) for key in found.files if key.endswith(".json")}
        return {key: found[key] for key in found.files if not key.endswith(".json")}, texts


PROMPTS = ("a photo of a cat", "", "The quick brown FOX; jumps\tover 12 lazy dogs' tails " * 12)
TOKENS = 97  # of the tiny pipeline's text
