"""Sources of captioned images, text conditioning, and the pipeline that makes batches of them."""

from rfjax import config as configs
from rfjax.data.pipeline import Batch as Batch
from rfjax.data.pipeline import Order as Order
from rfjax.data.pipeline import batches as batches
from rfjax.data.pipeline import batches_ready as batches_ready
from rfjax.data.pipeline import load as load
from rfjax.data.text import Labels, Stored, WordVectors
from rfjax.data.text import TextEncoder as TextEncoder
from rfjax.data.types import Source as Source
from rfjax.data.types import Split
from rfjax.errors import UserError


def _shapes(config: configs.Data, split: Split) -> Source:
    from rfjax.data.shapes import Shapes

    return Shapes(split, config.image_size)


def _digits(config: configs.Data, split: Split) -> Source:
    from rfjax.data import digits

    return digits.load(split=split, image_size=config.image_size, channels=config.channels)


def _tfds(config: configs.Data, split: Split) -> Source:
    from rfjax.data import tfds

    return tfds.load(
        dataset=config.dataset,
        data_dir=config.data_dir,
        split_spec={"train": config.train_split, "validation": config.validation_split, "test": "test"}[split],
        image_size=config.image_size,
        channels=config.channels,
        caption_key=config.caption_key,
        image_key=config.image_key,
        label_key=config.label_key,
        caption_template=config.caption_template,
        resize=config.resize,
        cache_mb=config.cache_mb,
        max_bad=config.max_bad,
        outside=config.outside,
    )


def _folder(config: configs.Data, split: Split) -> Source:
    from rfjax.data import folder

    return folder.load(
        path=config.path,
        split=split,
        image_size=config.image_size,
        channels=config.channels,
        captions_file=config.captions_file,
        resize=config.resize,
        validation_percent=config.validation_percent,
        cache_mb=config.cache_mb,
        max_bad=config.max_bad,
        outside=config.outside,
    )


def _latents(config: configs.Data, split: Split) -> Source:
    from rfjax.data import latents

    return latents.load(
        path=config.path,
        split=split,
        image_size=config.image_size,
        channels=config.channels,
        layout=config.layout,
        validation_percent=config.validation_percent,
        outside=config.outside,
    )


def _none(config: configs.Data, split: Split) -> Source:
    raise UserError("this network came without data (config.data.name = 'none'): name a data set")


# Each imports its module when it is asked for: TensorFlow Datasets and scikit-learn take a second or more.
SOURCES = {
    "shapes": _shapes,
    "digits": _digits,
    "tfds": _tfds,
    "folder": _folder,
    "latents": _latents,
    "none": _none,
}


def open_source(config: configs.Data, split: Split) -> Source:
    """Opens the data set that the config names.

    Raises:
        UserError: if it is missing or can't be used, with what to do.
    """
    return SOURCES[config.name](config, split)


def make_encoder(config: configs.Text) -> TextEncoder:
    """The frozen text encoder that the config names."""
    if config.encoder == "labels":
        return Labels(config.pooled_width)
    if config.encoder == "stored":
        return Stored(config.length, config.width, config.pooled_width, config.layout)
    return WordVectors(config.length * config.vocabularies, config.width, config.pooled_width, config.vocabularies)
