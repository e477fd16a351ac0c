"""Which column of a Parquet file is the image, which the text, and which the label."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rfjax import config as configs
from rfjax import untrusted
from rfjax.data.features import CAPTION_KEYS
from rfjax.errors import UserError, nearest

if TYPE_CHECKING:
    import pyarrow

IMAGE_KEYS, LABEL_KEYS = ("image", "img", "jpg", "png"), ("label", "labels", "class")  # of several, the first


@dataclass(frozen=True)
class Columns:
    """Where an example lies in a row; "" for what there is not.

    Attributes:
        image: a struct of the picture's file (`bytes`) and its path, or the file itself.
        text, synthetic: a text, or a list of texts.
        label: the number of a class.
        names: of the classes, if the files know them.
    """

    image: str
    text: str
    synthetic: str
    label: str
    names: tuple[str, ...]

    @property
    def read(self) -> list[str]:
        """The columns that are read."""
        return [name for name in (self.image, self.text, self.synthetic, self.label) if name]


def kind_of(field: "pyarrow.Field") -> str:
    """What a column can serve as: "image", "text", "label" or ""."""
    import pyarrow

    kind = field.type
    binary = lambda one: pyarrow.types.is_binary(one) or pyarrow.types.is_large_binary(one)  # noqa: E731
    text = lambda one: pyarrow.types.is_string(one) or pyarrow.types.is_large_string(one)  # noqa: E731
    if pyarrow.types.is_struct(kind):
        place = kind.get_field_index("bytes")
        return "image" if place >= 0 and binary(kind.field(place).type) else ""
    if binary(kind):
        return "image"
    if pyarrow.types.is_list(kind) or pyarrow.types.is_large_list(kind):
        return "text" if text(kind.value_type) else ""
    if text(kind):
        return "text"
    return "label" if pyarrow.types.is_integer(kind) else ""


def find(schema: "pyarrow.Schema", config: configs.Data, what: str) -> Columns:
    """Decides which column is what.

    Args:
        config: its image_key, caption_key, synthetic_key and label_key; "" finds a column by its type and name.

    Raises:
        UserError: if a column is missing, of another type, or not clear.
    """
    kinds = {field.name: kind_of(field) for field in schema}
    listed = ", ".join(f"{field.name} ({kinds[field.name] or field.type})" for field in schema) or "no columns"
    hints = _hugging_face(schema)

    def named(setting: str, kind: str) -> str:
        key = getattr(config, setting)
        if key and key not in kinds:
            raise UserError(
                f"the {what} have no column '{key}', which config.data.{setting} names{nearest(key, kinds)}"
            )
        if key and kinds[key] != kind:
            raise UserError(f"column '{key}' of the {what} can't be the {setting}; they have: {listed}")
        return key

    image = named("image_key", "image")
    if not image:
        images = [name for name, kind in kinds.items() if kind == "image"]
        images = [name for name in images if hints.get(name, {}).get("_type") == "Image"] or images
        usual = [name for name in IMAGE_KEYS if name in images]
        if not images:
            raise UserError(f"the {what} have no column of images; they have: {listed}")
        if len(images) > 1 and not usual:
            raise UserError(
                f"the {what} have more than one column of images: set image_key to one of {', '.join(images)}"
            )
        image = (usual or images)[0]
    text, label, synthetic = named("caption_key", "text"), named("label_key", "label"), named("synthetic_key", "text")
    classes = {name for name, hint in hints.items() if hint.get("_type") == "ClassLabel" and kinds.get(name) == "label"}
    if not (text or label):
        texts = [name for name in CAPTION_KEYS if kinds.get(name) == "text" and name != synthetic]
        if len(texts) > 1:
            raise UserError(
                f"the {what} have more than one text: set config.data.caption_key to one of {', '.join(texts)}"
            )
        text = "".join(texts)
    if not (text or label):
        usual = [name for name in LABEL_KEYS if kinds.get(name) == "label"]
        if not usual and len(classes) > 1:
            raise UserError(
                f"the {what} have more than one label: set label_key to one of {', '.join(sorted(classes))}"
            )
        label = (usual or sorted(classes) or [""])[0]
    if not (text or label):
        raise UserError(f"the {what} have no clear caption or label: set config.data.caption_key; they have: {listed}")
    names = hints.get(label, {}).get("names") if label in classes else None
    return Columns(image, text, synthetic, label, tuple(map(str, names)) if isinstance(names, list) else ())


def _hugging_face(schema: "pyarrow.Schema") -> dict[str, dict[str, Any]]:
    """What `datasets` noted of each column, such as {"label": {"names": [...], "_type": "ClassLabel"}}."""
    noted: Any = (schema.metadata or {}).get(b"huggingface", b"{}")
    try:
        noted = untrusted.parse_json(noted, "huggingface")
    except untrusted.Unreadable:
        return {}
    for name in ("info", "features"):
        noted = noted.get(name, {}) if isinstance(noted, dict) else {}
    return {name: hint for name, hint in noted.items() if isinstance(hint, dict)} if isinstance(noted, dict) else {}
