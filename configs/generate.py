"""Pictures from one model: a run of a study, or a checkpoint of another project.

    python -m rfjax.main --config=configs/scaling.py           first: the models
    python -m rfjax.main --config=configs/generate.py            16 captions of the validation data, by the largest rung
    ... --config.generate.source=FOLDER                          another run's folder: WORKDIR/runs/NAME
    ... --config.generate.prompts="('a red circle', 'two blue squares')" --config.generate.seed=1
    ... --config.sampling.sampler=heun --config.generate.steps=10 --config.generate.guidance=5

Models of other projects are read as they are (`config.generate.layout` if the files don't tell whose they are). A SiT
or DiT takes class labels, by number:

    ... --config.generate.source=SiT-XL-2-256.pt --config.generate.prompts="('207', '360')" --config.generate.guidance=4

A pipeline of Stable Diffusion 3 brings its text encoders and its autoencoder (pip install -e '.[text]'); `offload`
keeps one network on the devices at a time. A run takes the encoders that its config names; config.text.path and
config.autoencoder.path of this job take the place of either. Encodings from elsewhere may stand for prompts: an .npz
file with `context` (n, L, E), `pooled` (n, P) and, if you like, `captions` (n), in config.generate.encodings.

    ... --config.generate.source=stable-diffusion-3-medium-diffusers --config.generate.prompts="('a red bicycle',)"
        --config.sampling.shift=3 --config.sampling.schedule=sd3-ref --config.generate.guidance=5
        --config.generate.steps=28 --config.generate.offload=True

Expect three files in work/samples, named after the model and the settings: a captioned grid (.png), the pictures as
they were drawn (.npz) and all the settings (.json). The same command gives the same bits. Latents without an
autoencoder are shown by their first three principal components as colours. Seconds for the models of the scaling study.
"""

import ml_collections

from rfjax import config as configs


def get_config() -> ml_collections.ConfigDict:
    """Euler's method, 25 steps, guidance 3."""
    c = configs.default()
    c.job = "generate"
    c.workdir = "work/samples"
    c.generate.update(source="work/scaling/runs/d7-seed0", count=16, steps=25, guidance=3.0)
    return c
