"""FID and its kin of models, archives or folders of pictures, each number with its error and its protocol.

    python -m rfjax.main --config=configs/evaluate.py                                all models of the first command
    ... --config.evaluate.source=work/repa/runs/NAME --config.evaluate.checkpoints=all       a run, each checkpoint
    ... --config.evaluate.source=samples.npz --config.evaluate.reference=VIRTUAL_imagenet256_labeled.npz \
        --config.evaluate.inception=weights-inception-2015-12-05-6726825d.pth \
        --config.sampling.metrics="('fid','sfid','inception_score','precision_recall')"      an archive, as ADM does
    ... --config.evaluate.source=MINE --config.evaluate.reference=THEIRS                     two folders of pictures

Variants: `:sit` draws 50,000 pictures of a SiT or REPA checkpoint as their papers do; `:adm` checks this evaluator on
ADM's own samples, whose numbers are known; `:autoencoder` measures reconstructions (PSNR, SSIM, LPIPS, rFID).

The default needs no file of weights: the data set's own score, and a Fréchet distance of EfficientNet-Lite0, a network
for ImageNet that a package ships (docs/evaluation.md has how to install it, and which files the others need). Expect
work/evaluate/report/index.html, and in work/evaluate/sets/NAME/metrics.json every number. A job that was killed goes on
with the same command; several jobs share the sets.
"""

import ml_collections

from rfjax import config as configs
from rfjax.errors import UserError, nearest

# ADM's samples admnet_guided_upsampled_imagenet256.npz by its own evaluator.
KNOWN = ("fid=3.9426", "sfid=6.1404", "inception_score=215.84", "precision=0.8265", "recall=0.5309")
ADM = ("fid", "sfid", "inception_score", "precision_recall")


def models() -> ml_collections.ConfigDict:
    """All models of the first command's study."""
    c = configs.default()
    c.job = "evaluate"
    c.study.update(name="Evaluation", report="evaluate")
    c.evaluate.source = "work/scaling"
    c.sampling.update(metrics=("own", "fd_efficientnet"), settings=("25@3.0",), weights="ema", shown=32, seeds=1)
    c.generate.update(count=256, batch=64)
    return c


def sit() -> ml_collections.ConfigDict:
    """A checkpoint of SiT or REPA, by the protocol of their papers: 50,000 pictures, ADM's evaluator."""
    c = models()
    c.evaluate.update(source="SiT-XL-2-256.pt", reference="VIRTUAL_imagenet256_labeled.npz")
    c.evaluate.inception = "classify_image_graph_def.pb"
    c.sampling.update(metrics=ADM, settings=("repa-sde-250@1.0",))
    c.generate.count = 50_000
    return c


def adm() -> ml_collections.ConfigDict:
    """ADM's own samples, whose numbers are known: the report says how far this evaluator is off."""
    c = sit()
    c.evaluate.update(source="admnet_guided_upsampled_imagenet256.npz", expected=KNOWN)
    return c


def autoencoder() -> ml_collections.ConfigDict:
    """Reconstructions of ImageNet's validation pictures beside the pictures."""
    c = models()
    c.evaluate.source = "autoencoder"
    c.sampling.metrics = ("fd_efficientnet",)
    c.autoencoder.update(path="sd3/vae", posterior="mode")
    c.data.update(name="imagenet", path="imagenet", image_size=256, resize="adm")
    c.generate.count = 50_000
    return c


VARIANTS = {"": models, "sit": sit, "adm": adm, "autoencoder": autoencoder}


def get_config(variant: str = "") -> ml_collections.ConfigDict:
    """The config of a variant, in a work folder of its own."""
    if variant not in VARIANTS:
        raise UserError(f"configs/evaluate.py has no variant '{variant}'{nearest(variant, filter(None, VARIANTS))}")
    c = VARIANTS[variant]()
    c.workdir = "work/evaluate" + (f"_{variant}" if variant else "")
    return c
