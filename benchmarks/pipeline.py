"""A prompt to a picture with a pipeline of Stable Diffusion 3 Medium's size, of random weights: memory and seconds.

    python -m benchmarks.pipeline FOLDER                  writes the folder (16.5 GB) if it is not there, then draws
    python -m benchmarks.pipeline FOLDER side=256 steps=1 precision=bfloat16 parts=clip_l,clip_g,t5

The folder has the sizes, the names and the float16 of SD3 Medium's in diffusers' layout. Its tokenizers are toys, since
no package has the real ones. One network is on the device at a time (config.generate.offload). The peak is that of the
process's resident memory, which the operating system reports at its end.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from rfjax.encoders.autoencoder.description import describe
from rfjax.encoders.autoencoder.names import DIFFUSERS, HALVES
from rfjax.encoders.autoencoder.names import layout as vae_layout
from rfjax.encoders.language import clip, t5
from rfjax.interop import sd3
from rfjax.tensors.layout import manifest
from rfjax.tensors.safetensors import write_safetensors
from rfjax.training.spec import make_run_spec

START, END = "<|startoftext|>", "<|endoftext|>"
CLIP = {"model_type": "clip_text_model", "vocab_size": 49408, "max_position_embeddings": 77, "layer_norm_eps": 1e-5,
        "eos_token_id": 2, "bos_token_id": 0, "pad_token_id": 1}  # fmt: skip
L = {**CLIP, "hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12,
     "projection_dim": 768, "hidden_act": "quick_gelu"}  # fmt: skip
G = {**CLIP, "hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 32, "num_attention_heads": 20,
     "projection_dim": 1280, "hidden_act": "gelu"}  # fmt: skip
T5 = {"model_type": "t5", "d_model": 4096, "d_kv": 64, "d_ff": 10240, "num_layers": 24, "num_heads": 64,
      "vocab_size": 32128, "feed_forward_proj": "gated-gelu", "layer_norm_epsilon": 1e-6}  # fmt: skip
VAE = {"_class_name": "AutoencoderKL", "block_out_channels": [128, 256, 512, 512], "layers_per_block": 2,
       "down_block_types": ["DownEncoderBlock2D"] * 4, "up_block_types": ["UpDecoderBlock2D"] * 4,
       "latent_channels": 16, "scaling_factor": 1.5305, "shift_factor": 0.0609, "use_quant_conv": False,
       "use_post_quant_conv": False}  # fmt: skip
MEDIUM = {"depth": 24, "width": 1536, "heads": 24, "patch": 2, "stored_positions": 192}
NOISE = 2**22  # numbers that all weights repeat


def write(folder: Path, config: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]], name: str) -> None:
    """A network's folder: config.json, and weights in float16 whose layers keep the size of what goes through."""
    folder.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(0).standard_normal(NOISE, np.float32)

    def values(key: str, shape: tuple[int, ...]) -> np.ndarray:
        if "norm" in key and key.endswith("weight"):
            return np.ones(shape, np.float16)
        if len(shape) < 2:
            return np.zeros(shape, np.float16)
        scale = 0.02 if "embed" in key or key.startswith("shared") else float(np.prod(shape[1:])) ** -0.5
        return np.resize((scale * noise).astype(np.float16), shape)

    specs = {key: np.broadcast_to(np.float16(0), shape) for key, shape in shapes.items()}
    write_safetensors(
        folder / name if name else folder, ((key, values(key, shape)) for key, shape in shapes.items()), specs
    )
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")


def write_tokenizers(folder: Path) -> None:
    """Toy tokenizers of CLIP and T5: bytes alone, and pieces learnt from one sentence."""
    import sentencepiece

    shown = [*range(33, 127), *range(161, 173), *range(174, 256)]
    letters = [chr(byte) for byte in shown] + [chr(256 + i) for i in range(256 - len(shown))]
    tokens = letters + [f"{letter}</w>" for letter in letters] + [START, END]
    for name, pad in (("tokenizer", END), ("tokenizer_2", "!")):
        (folder / name).mkdir(parents=True, exist_ok=True)
        (folder / name / "vocab.json").write_text(json.dumps({token: i for i, token in enumerate(tokens)}), "utf-8")
        (folder / name / "merges.txt").write_text("#version: 0.2\n", "utf-8")
        special = {"bos_token": START, "eos_token": END, "unk_token": END, "pad_token": pad}
        (folder / name / "special_tokens_map.json").write_text(json.dumps(special), "utf-8")
    (folder / "tokenizer_3").mkdir(parents=True, exist_ok=True)
    with (folder / "tokenizer_3" / "spiece.model").open("wb") as file:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(["a photo of an astronaut who rides a horse on the moon"] * 20), model_writer=file,
            vocab_size=64, pad_id=0, eos_id=1, unk_id=2, bos_id=-1, hard_vocab_limit=False, minloglevel=2,
        )  # fmt: skip


def make(folder: Path) -> None:
    """The whole pipeline, or what of it is missing."""
    towers = {"text_encoder": L, "text_encoder_2": G}
    for name, config in towers.items():
        if not (folder / name / "config.json").is_file():
            shapes = manifest(clip.clip_layout(clip.read_clip(config, name), "text_model.", True))
            write(folder / name, config, shapes, "model.safetensors")
    if not (folder / "text_encoder_3" / "config.json").is_file():
        write(folder / "text_encoder_3", T5, manifest(t5.t5_layout(t5.read_t5(T5, "t5"), ())), "model.safetensors")
    if not (folder / "vae" / "config.json").is_file():
        arch = describe(VAE, "vae").arch
        shapes = {name: shape for half in HALVES for name, shape in manifest(vae_layout(arch, half, DIFFUSERS)).items()}
        write(folder / "vae", VAE, shapes, "")
    if not (folder / "transformer" / "config.json").is_file():
        spec = make_run_spec(sd3.make_config(128, 16, (4096, 2048), MEDIUM))
        shapes = manifest(sd3.layout(spec.model, spec.inputs, sd3.DIFFUSERS))
        write(folder / "transformer", sd3.to_folder(spec.model, spec.inputs), shapes, "")
    write_tokenizers(folder)


def draw(folder: Path, side: int, steps: int, precision: str, parts: str) -> None:
    """One picture in a process of its own, and what it took."""
    with tempfile.TemporaryDirectory() as work:
        command = [
            sys.executable, "-m", "rfjax.main", "--config=configs/generate.py", f"--config.workdir={work}",
            f"--config.generate.source={folder}", "--config.generate.prompts=('a photo of an astronaut',)",
            f"--config.generate.height={side}", f"--config.generate.width={side}", f"--config.generate.steps={steps}",
            "--config.generate.guidance=5", "--config.sampling.shift=3", "--config.generate.offload=True",
            f"--config.text.precision={precision}", f"--config.autoencoder.precision={precision}",
            f"--config.text.parts={tuple(parts.split(','))!r}",
        ]  # fmt: skip
        child = subprocess.Popen(command)
        _, status, usage = os.wait4(child.pid, 0)
        if status:
            sys.exit(f"the command failed with status {status}")
        record = json.loads(next(Path(work).glob("*.json")).read_text("utf-8"))
    for part in record["parts"]:
        print(
            f"{part['part']:>12}: {part['bytes'] / 2**30:6.2f} GiB, read {part['read_seconds']:6.1f} s, "
            f"ran {part['run_seconds']:6.1f} s"
        )
    print(f"{side} x {side}, {steps} steps, {precision}: {record['seconds']:.0f} s in all")
    print(f"peak of the process: {usage.ru_maxrss / 2**20:.2f} GiB")


if __name__ == "__main__":
    if len(sys.argv) < 2 or "=" in sys.argv[1] or sys.argv[1].startswith("-"):
        sys.exit(__doc__)
    given = dict(argument.split("=", 1) for argument in sys.argv[2:])
    target = Path(sys.argv[1])
    make(target)
    draw(
        target,
        int(given.get("side", 256)),
        int(given.get("steps", 1)),
        given.get("precision", "bfloat16"),
        given.get("parts", "clip_l,clip_g,t5"),
    )
