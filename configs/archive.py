"""50,000 pictures of one model in one .npz file, as the evaluators of FID and its kin read them (ADM's format).

    python -m rfjax.main --config=configs/archive.py --config.generate.source=FOLDER      a run: WORKDIR/runs/NAME
    ... --config.generate.source=SiT-XL-2-256.pt                                          another project's checkpoint
    ... --config.generate.preset=repa-ode-50 --config.generate.guidance=1.8 --config.sampling.guidance_high=0.7
    ... --config.archive.labels=balanced --config.archive.rounding=repa --config.generate.count=10000
    ... --config.archive.labels=captions                                                   for a model of text

The sampler is REPA's: Euler-Maruyama's method in 250 steps without guidance (`repa-sde-250`); `sit-sde-250` is SiT's.
All processes of a cluster draw each batch together. A job that was killed goes on with the same command and ends in the
same bytes. Expect work/archive/samples.npz with `arr_0`, uint8 (N, H, W, C), and `arr_1`, the labels, and
work/archive/archive.json with all settings. Where the model has no autoencoder, `arr_0` holds float32 latents, to be
decoded before the evaluation. The disk needs twice the size of the archive: 20 GB for 50,000 pictures of 256 x 256.
"""

import ml_collections

from rfjax import config as configs


def get_config() -> ml_collections.ConfigDict:
    """REPA's sampler, 50,000 pictures of random classes."""
    c = configs.default()
    c.job = "archive"
    c.workdir = "work/archive"
    c.generate.update(source="work/scaling/runs/d7-seed0", count=50_000, batch=64, preset="repa-sde-250", guidance=1.0)
    return c
