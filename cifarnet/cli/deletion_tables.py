"""The deletion scores of heat maps -> a table."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cifarnet.cli.table import Column, Table
from cifarnet.core.percent import percent


def deletion_table(documents: Sequence[dict[str, Any]], layer: str) -> Table:
    """A row a map and class of each image: the area under its curve, and the means of random ones."""
    from cifarnet.analysis.cam import CAMS

    title = f"deletion by maps of {layer}: area under the class's probability, the lower the better"
    columns = [Column("image", 4, number=False), Column("map", number=False), Column("class", number=False)]
    columns += [Column("probability", 2), Column("area"), Column("random pixels"), Column("random maps", 1)]
    rows = []
    for document in documents:
        for found in document["deletion"]:
            numbers = (found["area"], found["random_area"], found["random_map_area"])
            line = [Path(document["image"]).name, CAMS[found["map"]], found["class"]]
            rows.append([*line, percent(found["probability"]), *(f"{number:.3f}" for number in numbers)])
    return Table(columns, rows, (title, "dim"))
