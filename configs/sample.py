"""Pictures from one model: a run of a study, or a checkpoint of another project.

    python -m rfjax.main --config=configs/scaling.py           first: the models
    python -m rfjax.main --config=configs/sample.py            16 captions of the validation data, by the largest rung
    ... --config.sample.source=FOLDER                          another run's folder: WORKDIR/runs/NAME
    ... --config.sample.prompts="('a red circle', 'two blue squares')" --config.sample.seed=1
    ... --config.samples.sampler=heun --config.sample.steps=10 --config.sample.guidance=5

Models of other projects are read as they are (`config.sample.layout` if the files don't tell whose they are). A SiT or
DiT takes class labels, by number:

    ... --config.sample.source=SiT-XL-2-256.pt --config.sample.prompts="('207', '360')" --config.sample.guidance=4

Stable Diffusion 3's text encoders are not part of rfjax: encode the prompts with them and save `context` (n, L, E),
`pooled` (n, P) and, if you like, `captions` (n) by numpy.savez:

    ... --config.sample.source=stable-diffusion-3-medium-diffusers --config.sample.encodings=prompts.npz
        --config.samples.shift=3 --config.sample.guidance=5 --config.sample.steps=28

Expect three files in work/samples, named after the model and the settings: a captioned grid (.png), the pictures as
they were drawn (.npz) and all the settings (.json). The same command gives the same bits. Latents have no decoder here:
the grid shows their first three principal components as colours. Seconds for the models of the scaling study.
"""

import ml_collections

from rfjax import config as configs


def get_config() -> ml_collections.ConfigDict:
    """Euler's method, 25 steps, guidance 3."""
    c = configs.default()
    c.job = "sample"
    c.workdir = "work/samples"
    c.sample.update(source="work/scaling/runs/d6", count=16, steps=25, guidance=3.0)
    return c
