"""The section `encode`: what the job `encode` stores of a data set, once, in place of encoding it in every epoch."""

import dataclasses

from rfjax.config.rules import key


@dataclasses.dataclass(frozen=True)
class Encode:
    """The job `encode`. The sections `data`, `autoencoder` and `text` name the data set and its encoders."""

    images: str = key(
        "latents",
        "Chooses what is stored of each picture: `latents` as the network sees them, scaled and shifted, `moments` "
        "their mean and standard deviation, from which training draws afresh, or the `pixels` themselves.",
        choices=("latents", "moments", "pixels"),
    )
    flips: bool = key(
        False,
        "Also stores the latents or moments of each mirrored picture, which config.data.flip then takes. It doubles "
        "their size. Leave it off where captions mention left and right.",
    )
    text: bool = key(
        True,
        "Also stores the encodings of each caption, by config.text.encoder. The captions themselves are always stored.",
    )
    features: str = key(
        "",
        "Names a vision encoder whose patch tokens are stored too, for alignment, as config.alignment.encoders names "
        "it: `vision@FOLDER`, for example. Empty stores none.",
    )
    precision: str = key(
        "float16",
        "Sets the type of the stored numbers. The paper stores text in half precision.",
        choices=("float16", "float32"),
    )
    splits: tuple[str, ...] = key(
        ("train", "validation"),
        "Lists the splits of the data set that are encoded.",
        choices=("train", "validation", "test"),
    )
    count: int = key(
        0,
        "Sets how many examples of each split are encoded, the first ones. 0 encodes all; `shapes` has millions.",
        low=0,
        high=10**12,
    )
    shard: int = key(
        4096,
        "Sets the number of examples in a shard. A job that was killed begins its shard anew, and jobs share the work "
        "by shards.",
        low=1,
        high=10**7,
    )
    batch: int = key(
        64,
        "Sets the number of examples encoded at once over all devices. A larger value needs more memory.",
        low=1,
        high=65_536,
    )
