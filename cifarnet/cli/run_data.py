"""`cifarnet data --run RUN`: a run's configuration and the data as it lies here -> what that run trains on."""

from pathlib import Path

from cifarnet.cli.common import messages, print_json, results
from cifarnet.cli.data_tables import print_shape
from cifarnet.data.shape_options import shaping_words


def show_run(run: Path, data_dir: str | None, json_output: bool) -> None:
    """Prints the images and classes that the run trains on, and how its options make them of the whole set.

    Raises:
        Refused: no such run, or its data is not here.
    """
    from cifarnet.cli.progress import load_shown
    from cifarnet.data.known_folders import remember_folder
    from cifarnet.data.registry import load_options
    from cifarnet.data.shaping import describe_shape, in_class_order
    from cifarnet.engine.open_split import folder_of
    from cifarnet.models.checkpoint import load_model
    from cifarnet.storage.find_checkpoint import default_checkpoint

    path = default_checkpoint(run)
    info = load_model(path)[1]
    config = info.config
    place = folder_of(config, config.dataset, data_dir)
    whole = load_shown(messages(), config.dataset, str(place) if place is not None else None, **load_options(config))
    if data_dir is not None:
        remember_folder(data_dir)
    found = {
        "checkpoint": str(path),
        "dataset": config.dataset,
        **describe_shape(in_class_order(whole, info.classes), config),
    }
    if json_output:
        print_json(found)
    else:
        print_shape(results(), found, shaping_words(config))
