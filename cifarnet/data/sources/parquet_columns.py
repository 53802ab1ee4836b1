"""Which columns of a parquet file hold the images and the labels, by type and name, and the class names written beside them."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cifarnet.core.class_names import composed
from cifarnet.core.errors import Refused, printable
from cifarnet.data.images.index import names
from cifarnet.data.sources.labels import LABELS, pick_column

IMAGES = (
    "image", "img", "images", "picture", "photo", "image_bytes", "img_bytes", "bytes", "jpg", "jpeg", "png", "content",
)  # fmt: skip


def find_columns(path: Path, schema: Any, options: Mapping[str, Any]) -> tuple[str, str]:
    """The column of images (bytes, or a struct with `bytes`) and that of labels (whole numbers or text).

    Raises:
        Refused: one cannot be told, or what the options name is none.
    """
    images = [field.name for field in schema if holds_bytes(field.type)]
    labels = [field.name for field in schema if holds_labels(field.type)]
    found = []
    for option, fit, usual, kind in (
        ("image_column", images, IMAGES, "bytes of images"),
        ("label_column", labels, LABELS, "labels, whole numbers or text"),
    ):
        if asked := options.get(option):
            if asked not in fit:
                why = f"has no column {printable(asked)} of {kind}"
                raise Refused(
                    printable(path), why, f"`{option}` is one of {names(fit)}" if fit else "choose another file"
                )
            found.append(asked)
            continue
        column = fit[0] if len(fit) == 1 else pick_column(fit, usual)
        if column is None:
            why = f"which column holds {kind} cannot be told: {names(fit)}" if fit else f"no column of it holds {kind}"
            raise Refused(printable(path), why, f"name it with `{option}`" if fit else f"it has {names(schema.names)}")
        found.append(column)
    return found[0], found[1]


def holds_bytes(kind: Any) -> bool:
    """Can a column of this type hold image files?"""
    import pyarrow.types as types

    if types.is_struct(kind):
        place = kind.get_field_index("bytes")
        return place >= 0 and holds_bytes(kind.field(place).type)
    return types.is_binary(kind) or types.is_large_binary(kind)


def holds_labels(kind: Any) -> bool:
    """Can a column of this type hold labels?"""
    import pyarrow.types as types

    value = kind.value_type if types.is_dictionary(kind) else kind
    return types.is_integer(value) or types.is_string(value) or types.is_large_string(value)


def class_names(schema: Any, label: str) -> list[str] | None:
    """The class names that the Hugging Face library wrote into the file, where it did."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        found = features[label]["names"]
    except (KeyError, ValueError, TypeError, RecursionError):
        return None
    good = isinstance(found, list) and len(found) > 1 and all(isinstance(name, str) and name for name in found)
    return list(map(composed, found)) if good and len(set(found)) == len(found) else None
