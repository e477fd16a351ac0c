"""What a network's hidden states know, block by block and along training: REPA's Figs. 2 and 3.

    python -m rfjax.main --config=configs/scaling.py --config.training.checkpoint_every=72
        --config.training.keep_checkpoints=4                     first: the models, four checkpoints of each
    python -m rfjax.main --config=configs/representations.py     then: every checkpoint that was kept, in minutes
    ... --config.study.source=FOLDER                             another study, or one run (WORKDIR/runs/NAME)
    ... --config.representations.encoders="('vision@FOLDER',)"   a pretrained encoder's features
    ... --config.study.source=SiT-XL-2-256.pt --config.data.name=latents --config.data.path=FOLDER ...
                                                                 another project's checkpoint, on data that you name

Two measures of every block's hidden image tokens, averaged over the patches, at three noise levels and without text:
CKNNA, the agreement of their nearest neighbours with those of a frozen encoder's features of the clean picture, and the
accuracy of a linear classifier of the data set's labels (for `shapes`: the first object's shape and colour).

The paper takes 10,000 pictures of ImageNet's validation split, k = 10 and DINOv2-g, and finds that SiT-XL/2 after 7
million steps agrees most near block 20 of 28. Its probe is `--config.representations.probe=repa`; the default, a
logistic regression's optimum, suits small sets. A study whose `training.measurements` names `representations@STEPS`
needs no second job: `--config.study.report=representations` shows its lines.
"""

import ml_collections

from rfjax import config as configs


def get_config() -> ml_collections.ConfigDict:
    """The models of the scaling study against exact features of their data set."""
    c = configs.default()
    c.job = "representations"
    c.workdir = "work/representations"
    c.study.update(name="What hidden states know", report="representations", source="work/scaling")
    c.sampling.seeds = 1  # of several seeds of one model, the first
    c.representations.update(encoders=("shapes",), examples=1024, probe_examples=4096, batch=128)
    return c
