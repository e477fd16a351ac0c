r"""A data set's latents, text encodings and features, stored once in place of computing them in every epoch (App. E).

    python -m rfjax.main --config=configs/encode.py --config.data.name=webdataset --config.data.path=cc12m \
        --config.autoencoder.path=stable-diffusion-3-medium-diffusers \
        --config.text.path=stable-diffusion-3-medium-diffusers
    ... --config.encode.images=moments --config.encode.flips=True    mean and deviation, of mirrored pictures too
    ... --config.encode.text=False                                   pictures alone
    ... --config.encode.features=vision@dinov2-base                  patch tokens for alignment (REPA)

Any source of pictures will do: `folder`, `webdataset`, `parquet`, `imagenet`, `coco`, `tfds`, `shapes`. The
encoders are those of `config.autoencoder` and `config.text`. Train on what it wrote:

    ... --config.data.name=latents --config.data.path=work/encoded --config.data.image_size=32 \
        --config.data.channels=16 --config.text.encoder=stored --config.text.layout=sd3 --config.text.length=154 \
        --config.text.width=4096 --config.text.pooled_width=2048

Expect work/encoded with train/ and validation/ (the source `latents`), encoding.json, which says with which weights,
and report/index.html, which sets storage and cost beside the paper's Table 7. Jobs with the same command share the
shards; a job that was killed goes on with the first shard that is missing. Broken examples are left out and counted.
"""

import ml_collections

from rfjax import config as configs


def get_config() -> ml_collections.ConfigDict:
    """SD3's encoders on pictures of 256 x 256."""
    c = configs.default()
    c.job = "encode"
    c.workdir = "work/encoded"
    c.data.update(name="folder", image_size=256, channels=3)
    c.text.update(encoder="sd3", length=154, width=0, pooled_width=0)
    c.study.update(name="encode", report="encode")
    return c
