"""Sources of captioned pictures and other named arrays, and the pipeline that makes batches of them.

A source's module has `open_source(config, split)`, which reads the keys of config.data that it needs.
"""

from rfjax import config as configs
from rfjax import lookup
from rfjax.data.pipeline import SYNTHETIC as SYNTHETIC
from rfjax.data.pipeline import Batch as Batch
from rfjax.data.pipeline import Order as Order
from rfjax.data.pipeline import Prepare as Prepare
from rfjax.data.pipeline import batches as batches
from rfjax.data.pipeline import batches_ready as batches_ready
from rfjax.data.pipeline import check_synthetic as check_synthetic
from rfjax.data.pipeline import draw_captions as draw_captions
from rfjax.data.pipeline import load as load
from rfjax.data.pipeline import reading as reading
from rfjax.data.pipeline import threads as threads
from rfjax.data.types import Captions as Captions
from rfjax.data.types import Examples as Examples
from rfjax.data.types import Field as Field
from rfjax.data.types import Source as Source
from rfjax.data.types import Split
from rfjax.data.types import caption_of as caption_of
from rfjax.data.types import take as take
from rfjax.data.types import take_all as take_all
from rfjax.errors import UserError

# A source's module is imported when it is opened: TensorFlow Datasets and scikit-learn take a second or more.
SOURCES = {
    "shapes": "rfjax.data.shapes:open_source",
    "digits": "rfjax.data.digits:open_source",
    "tfds": "rfjax.data.tfds:open_source",
    "folder": "rfjax.data.folder:open_source",
    "webdataset": "rfjax.data.webdataset:open_source",
    "parquet": "rfjax.data.parquet:open_source",
    "imagenet": "rfjax.data.imagenet:open_source",
    "coco": "rfjax.data.coco:open_source",
    "latents": "rfjax.data.latents:open_source",
    "moments": "rfjax.data.moments:open_source",
    "none": "rfjax.data:absent",
}


def open_source(config: configs.Data, split: Split) -> Source:
    """Opens one split of the source that the config names.

    Args:
        config: its `name` is one of SOURCES, or `MODULE:NAME` of a function such as this.
        split: "train", "validation" or "test".

    Raises:
        UserError: if the source is missing or can't be used, with what to do.
    """
    source = lookup.find(config.name, SOURCES, "data.name")(config, split)
    if not isinstance(source, Source):
        raise UserError(f"config.data.name = '{config.name}' opens no source: it needs fields, a length, and examples")
    for name, field in source.fields.items():
        if name in ("caption", "index", "slot", SYNTHETIC):
            raise UserError(f"config.data.name = '{config.name}': no field may have the name '{name}'")
        if field.flips and len(field.shape) < 2:
            raise UserError(f"config.data.name = '{config.name}': '{name}' flips, and has no axes (..., W, C)")
    return source


def absent(config: configs.Data, split: Split) -> Source:
    """Refuses, with a UserError, to open the data of a network that came without them."""
    raise UserError("this network came without data (config.data.name = 'none'): name a data set")
