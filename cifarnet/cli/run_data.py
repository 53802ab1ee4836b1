"""`cifarnet data --run RUN`: a run's configuration and the data as it lies here -> what that run trains on."""

from pathlib import Path
from typing import Any

from cifarnet.cli.common import messages, print_json, results
from cifarnet.cli.table import Facts
from cifarnet.core.errors import plural, printable
from cifarnet.data.shape_options import shaping_words

SHOWN = 12  # classes whose images are counted one by one


def show_run(run: Path, data_dir: str | None, json_output: bool) -> None:
    """Prints the images and classes that the run trains on, and how its options make them of the whole set.

    Raises:
        Refused: no such run, or its data is not here.
    """
    from cifarnet.cli.progress import load_shown
    from cifarnet.data.known_folders import remember_folder
    from cifarnet.data.registry import load_options
    from cifarnet.data.shaping import describe_shape
    from cifarnet.engine.open_split import folder_of
    from cifarnet.models.checkpoint import load_model
    from cifarnet.storage.find_checkpoint import default_checkpoint

    path = default_checkpoint(run)
    config = load_model(path)[1].config
    place = folder_of(config, config.dataset, data_dir)
    whole = load_shown(messages(), config.dataset, str(place) if place is not None else None, **load_options(config))
    if data_dir is not None:
        remember_folder(data_dir)
    found = {"checkpoint": str(path), "dataset": config.dataset, **describe_shape(whole, config)}
    if json_output:
        print_json(found)
    else:
        results().print(Facts([(name, text) for name, text in rows_of(found, shaping_words(config)) if text]))


def rows_of(found: dict[str, Any], options: str) -> list[tuple[str, str]]:
    """What there is to say, a name and a text each; an empty text where it does not apply."""
    per_class = found["images_per_class"]
    counts = ", ".join(f"{printable(name)} {count:,}" for name, count in zip(found["classes"], per_class, strict=True))
    if len(per_class) > SHOWN:
        counts = f"{min(per_class):,} to {max(per_class):,}"
    digest, source = found["data_digest"], found["source_digest"]
    return [
        ("run", found["checkpoint"]),
        ("data set", found["dataset"]),
        ("options", options),
        ("training images", f"{found['train_images']:,}"),
        ("of each class", counts),
        ("wrong labels", f"{found['wrong_labels']:,}" if found["wrong_labels"] else ""),
        ("held-out classes", ", ".join(map(printable, found["held_out_classes"]))),
        ("validation images", f"{found['validation_images']:,}" if found["validation_images"] else ""),
        ("test images", f"{found['test_images']:,} of {plural(len(found['classes']), 'class')}"),
        ("digest", digest + (f" of {source}" if source != digest else "")),
    ]
