"""Small folders as diffusers and transformers write them, with random weights; made without torch.

`write_text(folder)` gives the text encoders and tokenizers of a tiny Stable Diffusion 3, `write_pipeline` all of it.
"""

import atexit
import functools
import io
import json
import math
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from autoencoder_cases import write_vae
from parity_cases import uniform

from rfjax.encoders.language import bert, clip, t5
from rfjax.interop import sd3
from rfjax.tensors.layout import manifest
from rfjax.tensors.safetensors import write_safetensors
from rfjax.training.spec import make_run_spec

TEXTS = ("a photo of a cat", "a red circle above a blue square", "the quick brown fox jumps over the lazy dog",
         "an astronaut rides a horse on the moon", "two small green triangles and one large yellow disc")  # fmt: skip
MERGES = ("t h", "th e</w>", "c a", "ca t</w>", "r e", "re d</w>", "o f</w>", "p h", "ph o", "s q", "sq u", "a n</w>")
START, END = "<|startoftext|>", "<|endoftext|>"
PIECES = 96  # of T5's toy vocabulary
SIZES = {  # of the networks: config.json without the vocabulary's size
    "text_encoder": {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2,
                     "projection_dim": 16, "hidden_act": "quick_gelu"},
    "text_encoder_2": {"hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 2, "num_attention_heads": 3,
                       "projection_dim": 20, "hidden_act": "gelu"},
    "text_encoder_3": {"d_model": 48, "d_kv": 8, "d_ff": 40, "num_layers": 3, "num_heads": 4},
}  # fmt: skip
CLIP = {"architectures": ["CLIPTextModelWithProjection"], "model_type": "clip_text_model", "layer_norm_eps": 1e-5,
        "max_position_embeddings": 77, "eos_token_id": 2, "bos_token_id": 0, "pad_token_id": 1}  # fmt: skip
T5 = {"architectures": ["T5EncoderModel"], "model_type": "t5", "feed_forward_proj": "gated-gelu",
      "layer_norm_epsilon": 1e-6, "eos_token_id": 1, "pad_token_id": 0}  # fmt: skip
WIDTH, POOLED = 48, 36  # of the tokens and of the pooled vector of these encoders


def weight(name: str, shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    """A weight that is nowhere as it was initialised, at which a network is well conditioned."""
    raw = uniform(name, shape, seed)
    if name.endswith("weight") and "norm" in name.lower():
        raw = 1 + 0.3 * raw
    elif len(shape) > 1 and "embed" not in name and "shared" not in name:
        raw = raw / math.sqrt(shape[1])
    else:
        raw = 0.3 * raw
    return raw.astype(np.float32)


def write_network(
    folder: Path, config: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]], seed: int = 0
) -> Path:
    """config.json and model.safetensors; a square text_projection of CLIP L is the identity."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: weight(name, tuple(shape), seed) for name, shape in shapes.items()}
    if folder.name == "text_encoder" and clip.PROJECTION in tensors:
        tensors[clip.PROJECTION] = np.eye(*shapes[clip.PROJECTION], dtype=np.float32)
    write_safetensors(folder / "model.safetensors", tensors.items(), tensors)
    write_json(folder / "config.json", config)
    return folder


def write_json(path: Path, value: Any) -> None:
    """A file of JSON."""
    path.write_text(json.dumps(value), encoding="utf-8")


def letters() -> list[str]:
    """The characters that stand for the 256 bytes in byte-pair encodings, in CLIP's order."""
    shown = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in shown]
    return [chr(byte) for byte in shown] + [chr(256 + i) for i in range(len(others))]


def clip_vocabulary(merges: tuple[str, ...] = MERGES) -> dict[str, int]:
    """Token -> number: bytes, bytes that end a word, merges, and the two special ones."""
    tokens = letters() + [f"{letter}</w>" for letter in letters()]
    tokens += ["".join(merge.split()) for merge in merges] + [START, END]
    return {token: i for i, token in enumerate(tokens)}


def write_clip_tokenizer(folder: Path, pad: str = END, merges: tuple[str, ...] = MERGES) -> Path:
    """vocab.json, merges.txt and the maps of special tokens."""
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "vocab.json", clip_vocabulary(merges))
    (folder / "merges.txt").write_text("\n".join(("#version: 0.2", *merges, "")), encoding="utf-8")
    special = {"bos_token": START, "eos_token": END, "unk_token": END, "pad_token": pad}
    write_json(folder / "special_tokens_map.json", special)
    write_json(folder / "tokenizer_config.json", special | {"model_max_length": 77, "tokenizer_class": "CLIPTokenizer"})
    return folder


@functools.cache
def pieces() -> bytes:
    """A model of sentencepiece with T5's special tokens, trained on a few texts."""
    import sentencepiece

    made = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXTS * 20), model_writer=made, vocab_size=PIECES, model_type="unigram",
        pad_id=0, eos_id=1, unk_id=2, bos_id=-1, hard_vocab_limit=False, minloglevel=2, num_threads=1,
    )  # fmt: skip
    return made.getvalue()


def write_t5_tokenizer(folder: Path) -> Path:
    """spiece.model and its config."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "spiece.model").write_bytes(pieces())
    special = {"eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}
    write_json(folder / "special_tokens_map.json", special)
    write_json(folder / "tokenizer_config.json", special | {"extra_ids": 0, "tokenizer_class": "T5Tokenizer"})
    return folder


def clip_network(folder: Path, sizes: Mapping[str, Any], prefix: str = "text_model.", seed: int = 0) -> Path:
    """A text tower of CLIP with its projection."""
    config = {**CLIP, "vocab_size": len(clip_vocabulary()), **sizes}
    arch = clip.read_clip(config, str(folder))
    return write_network(folder, config, manifest(clip.clip_layout(arch, prefix, True)), seed)


def t5_network(folder: Path, sizes: Mapping[str, Any], seed: int = 0) -> Path:
    """An encoder of T5 v1.1."""
    config = {**T5, "vocab_size": PIECES + 4, **sizes}
    arch = t5.read_t5(config, str(folder))
    return write_network(folder, config, manifest(t5.t5_layout(arch, ())), seed)


def write_text(folder: Path, seed: int = 0) -> Path:
    """text_encoder, _2, _3, tokenizer, _2 and _3 of a tiny Stable Diffusion 3: tokens of WIDTH, pooled of POOLED."""
    clip_network(folder / "text_encoder", SIZES["text_encoder"], seed=seed)
    clip_network(folder / "text_encoder_2", SIZES["text_encoder_2"], seed=seed + 1)
    t5_network(folder / "text_encoder_3", SIZES["text_encoder_3"], seed=seed + 2)
    write_clip_tokenizer(folder / "tokenizer")
    write_clip_tokenizer(folder / "tokenizer_2", pad="!")
    write_t5_tokenizer(folder / "tokenizer_3")
    return folder


def write_transformer(folder: Path, side: int = 8, channels: int = 4) -> Path:
    """A network of SD3 that reads these encoders' text, for latents of side x side x channels."""
    sizes = {"depth": 2, "width": 32, "heads": 2, "patch": 2, "stored_positions": 8}
    config = sd3.make_config(side, channels, (WIDTH, POOLED), sizes)
    spec = make_run_spec(config)
    shapes = manifest(sd3.layout(spec.model, spec.inputs, sd3.DIFFUSERS))
    tensors = {name: weight(name, tuple(shape)) for name, shape in shapes.items()}
    folder.mkdir(parents=True, exist_ok=True)
    write_safetensors(folder, tensors.items(), tensors)
    write_json(folder / "config.json", sd3.to_folder(spec.model, spec.inputs))
    return folder


def write_pipeline(folder: Path, seed: int = 0) -> Path:
    """A tiny Stable Diffusion 3: pictures of 16 x 16, latents of 8 x 8 x 4. The seed is of its text encoders."""
    write_text(folder, seed)
    write_vae(folder / "vae")
    write_transformer(folder / "transformer")
    return folder


@functools.cache
def cached_text() -> Path:
    """`write_text` into a folder of this process, which stays until it ends."""
    folder = tempfile.mkdtemp(prefix="rfjax-pipeline-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return write_text(Path(folder))


WORDS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "red", "blue", "circle", "square", "above", "##s", "the")

TEMPLATE = [{"SpecialToken": {"id": "[CLS]", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}},
            {"SpecialToken": {"id": "[SEP]", "type_id": 0}}]  # fmt: skip
SPECIAL = {word: {"id": word, "ids": [WORDS.index(word)], "tokens": [word]} for word in ("[CLS]", "[SEP]")}


def write_sentence(folder: Path, seed: int = 0) -> Path:
    """A tiny BERT with its tokenizer, as sentence-transformers lays it out: tokens of 32."""
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = {"model_type": "bert", "hidden_act": "gelu", "max_position_embeddings": 64, "type_vocab_size": 2,
              "layer_norm_eps": 1e-12, "vocab_size": len(WORDS), **sizes}  # fmt: skip
    write_network(folder, config, manifest(bert.bert_layout(bert.read_bert(config, str(folder)), "")), seed)
    write_json(
        folder / "tokenizer.json",
        {
            "version": "1.0",
            "added_tokens": [],
            "truncation": {"max_length": 4, "strategy": "LongestFirst", "stride": 0, "direction": "Right"},
            "padding": None,
            "normalizer": {"type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True,
                           "strip_accents": None, "lowercase": True},
            "pre_tokenizer": {"type": "BertPreTokenizer"},
            "post_processor": {"type": "TemplateProcessing", "single": TEMPLATE, "pair": TEMPLATE,
                               "special_tokens": SPECIAL},
            "decoder": None,
            "model": {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
                      "max_input_chars_per_word": 100, "vocab": {word: i for i, word in enumerate(WORDS)}},
        },
    )  # fmt: skip
    return folder
