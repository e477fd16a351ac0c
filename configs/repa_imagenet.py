"""REPA's own runs: SiT on ImageNet at 256 x 256, vanilla and aligned with DINOv2-B (REPA, Table 3).

    python -m rfjax.main --config=configs/repa_imagenet.py --config.data.path=DATA      SiT-XL/2; also :l2 and :b2
    ... --config.only=weight=0.5                                 REPA alone; --config.only=weight=0 is vanilla
    ... --config.job=plan --config.plan.devices=8 --config.plan.chip=h100     memory, FLOPs and time, before any of it

DATA is what REPA's preprocessing writes (dataset_tools.py convert and encode):

    vae-sd/dataset.json                          {"labels": [["00000/img-mean-std-00000000.npy", 6], ...]}
    vae-sd/00000/img-mean-std-00000000.npy       float32 (8, 32, 32): mean and deviation of SD's autoencoder (ft-mse)
    images/00000/img00000000.png                 256 x 256, for the encoder; vanilla runs do not read them

1.28 million files of 32 KiB are 42 GB of moments; the pictures take about 150 GB more. The encoder is a local folder of
facebook/dinov2-base (config.json and model.safetensors) in `dinov2-base`, or
--config.alignment.encoders="('vision@FOLDER',)". 400,000 steps of batch 256 are 80 epochs. The released code makes
about 5.4 steps a second on 8 H100: 165 device-hours a run. The plan says what another machine needs.

Draw 50,000 pictures with configs/archive.py and its preset repa-sde-250. The paper's FID without guidance:

    after 400,000 steps     SiT-B/2 33.0, with REPA 24.4; L/2 18.8 and 9.7; XL/2 17.2 and 7.9
    XL/2 with REPA          52.3 after 50,000 steps, 19.4 after 100,000, 11.1 after 200,000; 5.9 after 4 million

This config was lowered and planned at full size, and not yet trained.
"""

import ml_collections

from rfjax import config as configs
from rfjax.errors import UserError, nearest

SIZES = {  # depth, width, heads, aligned block
    "xl2": (28, 1152, 16, 8),
    "l2": (24, 1024, 16, 8),
    "b2": (12, 768, 12, 4),
}


def get_config(variant: str = "") -> ml_collections.ConfigDict:
    """SiT of one size, vanilla and aligned."""
    size = variant or "xl2"
    if size not in SIZES:
        raise UserError(f"configs/repa_imagenet.py has no variant '{variant}'{nearest(variant, SIZES)}")
    depth, width, heads, block = SIZES[size]
    c = configs.default()
    c.workdir = f"work/repa_imagenet_{size}"
    c.study.update(name=f"SiT-{size[:-1].upper()}/2 on ImageNet, with and without REPA", report="repa")
    c.data.update(name="moments", path="data/imagenet", image_size=32, channels=4, cache_mb=0.0)  # no flips, as REPA
    c.text.update(encoder="labels", pooled_width=1000, drop=0.1)
    c.flow.formulation = "repa/linear"
    c.model.update(backbone="sit", depth=depth, width=width, heads=heads, patch=2, time="t", precision="bfloat16")
    c.model.stored_positions = 16  # so that the weights can be exported to the release's layout
    c.optimizer.update(learning_rate=1e-4, warmup=0, decay="none", b2=0.999, weight_decay=0.0, clip=1.0)
    c.optimizer.update(ema_decay=0.9999, ema_every=1, ema_warmup=False)
    c.training.update(batch=256, steps=400_000, log_every=100, validate_every=50_000, checkpoint_every=10_000)
    c.alignment.update(block=block, encoders=("vision@dinov2-base",))
    c.representations.update(examples=10_000, batch=256, probe_examples=50_000)
    c.validation.update(examples=10_000, batch=256)
    c.sampling.count = 0  # pictures are drawn by configs/archive.py
    c.mesh.update(data=-1, fsdp=1)
    c.cluster.join = "always"
    configs.axes(c, {"alignment.weight": (0.0, 0.5)})
    return c
