"""Which feature of a TensorFlow Datasets data set is the image, which the text, and which the label."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from rfjax.errors import UserError

if TYPE_CHECKING:
    from tensorflow_datasets.core.features import FeatureConnector

CAPTION_KEYS = ("caption", "captions", "text", "texts", "prompt", "description")  # known without caption_key
# Features of floats that become fields as they are.
LATENT, CONTEXT, POOLED, FEATURES = "latent", "context", "pooled", "features"


@dataclass(frozen=True)
class Features:
    """Where an example lies in a record.

    Attributes:
        image: name of the feature with the picture or latent.
        latent: whether it is a latent.
        text: name of the feature with the text; "" without one.
        text_part: of a list of records such as COCO's {"id", "text"}, the one with the words.
        label: name of the feature with the label; "" without one.
        captions: of each label.
        stored: which of context, pooled and features there are.
    """

    image: str
    latent: bool
    text: str
    text_part: str
    label: str
    captions: tuple[str, ...]
    stored: tuple[str, ...]


def kind_of(feature: "FeatureConnector") -> str:
    """What a feature can serve as: "image", "latent", "label", "text" or ""."""
    from tensorflow_datasets.core import features as kinds

    if isinstance(feature, kinds.Image):
        return "image"
    if isinstance(feature, kinds.ClassLabel):
        return "label"
    if _text_part(feature) is not None:
        return "text"
    if isinstance(feature, kinds.Tensor) and len(feature.shape) == 3 and np.dtype(feature.np_dtype).kind == "f":
        return "latent"
    return ""


def _text_part(feature: "FeatureConnector") -> str | None:
    """ "" for a text or a list of texts, "text" for a list of {"id", "text"}, None without one clear text."""
    from tensorflow_datasets.core import features as kinds

    if isinstance(feature, kinds.Sequence):
        feature = feature.feature
    if isinstance(feature, kinds.FeaturesDict):
        parts = [key for key, part in feature.items() if _text_part(part) == ""]
        named = [key for key in parts if key in CAPTION_KEYS] or parts
        return named[0] if len(named) == 1 else None
    text = isinstance(feature, kinds.Tensor) and feature.shape == () and np.dtype(feature.np_dtype).kind == "O"
    return "" if text else None


def find_features(
    features: Mapping[str, "FeatureConnector"], *, image: str, text: str, label: str, template: str, what: str
) -> Features:
    """Decides which feature is what; "": by its kind. Refuses, with a UserError, an ambiguous or missing one."""
    features = dict(sorted(features.items()))  # their order in TFDS changes from process to process
    kinds = {key: kind_of(feature) for key, feature in features.items()}
    listed = ", ".join(f"{key} ({kinds[key] or type(feature).__name__})" for key, feature in features.items())

    def check(setting: str, key: str, allowed: tuple[str, ...]) -> str:
        if key not in kinds:
            raise UserError(f"the {what} has no feature {key!r}, which config.data.{setting} names; it has: {listed}")
        if kinds[key] not in allowed:
            raise UserError(f"feature {key!r} of the {what} can't be the {setting}; it has: {listed}")
        return key

    def choose(setting: str, kind: str, among: list[str], usual: str) -> str:
        if len(among) > 1 and usual not in among:
            raise UserError(f"the {what} has more than one {kind}: set {setting} to one of {', '.join(among)}")
        return usual if usual in among else "".join(among)

    if image:
        check("image_key", image, ("image", "latent"))
    elif kinds.get(LATENT) == "latent":
        image = LATENT
    else:
        image = choose("image_key", "image", [key for key, kind in kinds.items() if kind == "image"], "image")
    if not image:
        raise UserError(f"the {what} has no image; it has: {listed}")
    if kinds[image] == "image" and np.dtype(features[image].np_dtype).kind == "f":
        raise UserError(f"feature {image!r} of the {what} holds a picture of floats, whose range is not known")
    if text:
        check("caption_key", text, ("text",))
    elif not label:
        texts = [key for key in CAPTION_KEYS if kinds.get(key) == "text"]
        text = choose("caption_key", "text", texts, usual="")
    if label:
        check("label_key", label, ("label",))
    elif not text:
        label = choose("label_key", "label", [key for key, kind in kinds.items() if kind == "label"], "label")
    ranks = {CONTEXT: 2, POOLED: 1, FEATURES: 3}
    stored = tuple(key for key, rank in ranks.items() if _is_float(features.get(key), rank))
    if not (text or label or set(stored) - {FEATURES}):
        raise UserError(f"the {what} has no clear caption or label: set config.data.caption_key; it has: {listed}")
    names = features[label].names if label and not text else ()
    captions = tuple(template.replace("{}", name.lower().replace("_", " ")) for name in names)
    part = (_text_part(features[text]) if text else "") or ""
    return Features(image, kinds[image] == "latent", text, part, "" if text else label, captions, stored)


def _is_float(feature: "FeatureConnector | None", rank: int) -> bool:
    shape = getattr(feature, "shape", None)
    return isinstance(shape, tuple) and len(shape) == rank and np.dtype(feature.np_dtype).kind == "f"
