"""Small CLIPs and a small DINOv2 with random weights: tests/parity/test_clip_embedding.py compares them with
transformers, and tests/encoders/embedding/test_clip.py repeats what it records. Weights are functions of names and
shapes."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pipelines
import vision_cases
from pipelines import write_json

from rfjax.encoders.language.clip import clip_layout, read_clip
from rfjax.encoders.vision.families import describe
from rfjax.encoders.vision.parts import parts
from rfjax.tensors.layout import manifest
from rfjax.tensors.pt import write_pt
from rfjax.tensors.safetensors import write_safetensors

RECORDED = Path(__file__).parent / "parity" / "recorded_clip"
TOLERANCE = 1e-5  # relative to the largest number of a vector
PROJECTED, WIDTH, LENGTH = 20, 32, 16
TEXT = {"hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 2, "num_attention_heads": 2,
        "max_position_embeddings": LENGTH, "vocab_size": len(pipelines.clip_vocabulary()), "eos_token_id": 2,
        "bos_token_id": 0, "pad_token_id": 1}  # fmt: skip
VISION = {"hidden_size": WIDTH, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4,
          "image_size": 28, "patch_size": 7}  # fmt: skip
OWN_CONFIG = {"model_cfg": {"embed_dim": PROJECTED, "vision_cfg": {"head_width": 8, "layers": 3},
                            "text_cfg": {"heads": 2}}}  # fmt: skip
DINO = {"model_type": "dinov2", "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "mlp_ratio": 2,
        "image_size": 280, "patch_size": 56, "layer_norm_eps": 1e-6}  # fmt: skip
TEXTS = ("a photo of a cat", "", "The quick brown FOX jumps over the red cat " * 9, "the " * 7 + "c", "cat\tred")
# fc1 is large, so that the two kinds of GELU differ by more than a tolerance.
LARGE = 3.0


@dataclasses.dataclass(frozen=True)
class Case:
    """A CLIP of one activation."""

    name: str
    act: str

    def __str__(self) -> str:
        return self.name

    @property
    def config(self) -> dict[str, Any]:
        """config.json."""
        act = {"hidden_act": self.act}
        return {"model_type": "clip", "architectures": ["CLIPModel"], "projection_dim": PROJECTED,
                "text_config": TEXT | act, "vision_config": VISION | act}  # fmt: skip


QUICK, PLAIN = Case("quick", "quick_gelu"), Case("plain", "gelu")


def images(height: int = 40, width: int = 60, count: int = 2) -> np.ndarray:
    """Pictures with something at every scale."""
    return np.concatenate([vision_cases.Case("", "", {}, image=(height, width)).images] * (count // 2))


def tensors(config: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """All of a CLIP, under Hugging Face's names."""
    shapes = dict(manifest(clip_layout(read_clip(config, ""), "text_model.", True)))
    what = describe(config, "")
    what = dataclasses.replace(what, arch=dataclasses.replace(what.arch, final_norm=True))
    shapes |= {f"vision_model.{part.name}": part.shape for part in parts(what)}
    shapes["visual_projection.weight"] = (config["projection_dim"], what.arch.width)
    found = {name: pipelines.weight(name, tuple(shape)) for name, shape in shapes.items()}
    found |= {name: LARGE * value for name, value in found.items() if name.endswith("fc1.weight")}
    return found | {"logit_scale": np.array(3.0, np.float32)}


def write(folder: Path, state: Mapping[str, np.ndarray], config: Mapping[str, Any]) -> Path:
    """The folder of a CLIP, with its tokenizer."""
    folder.mkdir(parents=True, exist_ok=True)
    write_safetensors(folder / "model.safetensors", state.items(), state)
    write_json(folder / "config.json", config)
    return pipelines.write_clip_tokenizer(folder)


def open_clip(state: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The same weights as open_clip stores them."""
    found = {
        "visual.conv1.weight": state["vision_model.embeddings.patch_embedding.weight"],
        "visual.class_embedding": state["vision_model.embeddings.class_embedding"],
        "visual.positional_embedding": state["vision_model.embeddings.position_embedding.weight"],
        "visual.proj": state["visual_projection.weight"].T.copy(),
        "text_projection": state["text_projection.weight"].T.copy(),
        "token_embedding.weight": state["text_model.embeddings.token_embedding.weight"],
        "positional_embedding": state["text_model.embeddings.position_embedding.weight"],
        "logit_scale": state["logit_scale"],
    }
    ends = ("weight", "bias")
    for new, old in (("visual.ln_pre", "vision_model.pre_layrnorm"), ("visual.ln_post", "vision_model.post_layernorm"),
                     ("ln_final", "text_model.final_layer_norm")):  # fmt: skip
        found |= {f"{new}.{end}": state[f"{old}.{end}"] for end in ends}
    for new, old, depth in (("visual.", "vision_model", 3), ("", "text_model", 2)):
        for i in range(depth):
            a, b = f"{new}transformer.resblocks.{i}", f"{old}.encoder.layers.{i}"
            for end in ends:
                qkv = [state[f"{b}.self_attn.{role}_proj.{end}"] for role in "qkv"]
                found[f"{a}.attn.in_proj_{end}"] = np.concatenate(qkv)
                for one, other in (("attn.out_proj", "self_attn.out_proj"), ("ln_1", "layer_norm1"),
                                   ("ln_2", "layer_norm2"), ("mlp.c_fc", "mlp.fc1"),
                                   ("mlp.c_proj", "mlp.fc2")):  # fmt: skip
                    found[f"{a}.{one}.{end}"] = state[f"{b}.{other}.{end}"]
    return found


def write_open_clip(folder: Path, state: Mapping[str, np.ndarray], name: str = "HPS_v2.1_compressed.pt") -> Path:
    """A file of open_clip with its tokenizer and the config that says the heads."""
    pipelines.write_clip_tokenizer(folder)
    write_json(folder / "open_clip_config.json", OWN_CONFIG)
    write_pt(folder / name, state.items(), state)
    return folder / name


def write_dino(folder: Path) -> Path:
    """The folder of a small DINOv2."""
    folder.mkdir(parents=True, exist_ok=True)
    state = vision_cases.weights({part.name: part.shape for part in parts(describe(DINO, ""))})
    return vision_cases.write(folder, state, DINO)


def difference(found: Any, expected: Any) -> float:
    """The largest difference, relative to the largest number."""
    return vision_cases.difference(np.asarray(found), np.asarray(expected))


def record(name: str, **arrays: np.ndarray) -> None:
    """Writes what transformers makes of a case."""
    RECORDED.mkdir(exist_ok=True)
    np.savez_compressed(RECORDED / f"{name}.npz", **arrays)


def recorded(name: str) -> dict[str, np.ndarray]:
    """What transformers made of a case."""
    with np.load(RECORDED / f"{name}.npz") as found:
        return {key: found[key] for key in found.files}


def changed(path: Path, **values: Any) -> None:
    """Changes a JSON file; None takes a key away."""
    known = json.loads(path.read_text(encoding="utf-8")) | values
    write_json(path, {key: value for key, value in known.items() if value is not None})
