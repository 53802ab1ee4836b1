"""The tables of `cifarnet data`: the data sets, one of them, and what a run makes of one."""

from typing import TYPE_CHECKING, Any

from cifarnet.cli.table import Column, Facts, Table
from cifarnet.core.errors import plural, printable

if TYPE_CHECKING:
    from cifarnet.cli.terminal import Terminal
    from cifarnet.data.facts import DataFacts

SHOWN = 12  # classes whose images are counted one by one


def print_all(console: "Terminal", listed: "list[DataFacts]") -> None:
    """A row a data set, and below why the others are not there."""
    columns = [Column("data set", number=False), Column("status", number=False), Column("train", 1), Column("test", 2)]
    columns += [Column("classes", 4), Column("digest", 3, number=False), Column("layout", 5, number=False)]
    columns += [Column("place", 6, number=False)]
    rows = []
    for facts in listed:
        counts = ["–" if count is None else f"{count:,}" for count in (facts.train, facts.test, facts.classes)]
        texts = [text or "–" for text in (facts.digest, facts.layout, facts.path)]
        rows.append([facts.name, facts.status or "–", *counts, *texts])
    console.print(Table(columns, rows))
    if missing := [(facts.name, facts.problem) for facts in listed if facts.problem]:
        console.print()
        console.print(Facts(missing))


def print_one(console: "Terminal", facts: "DataFacts") -> None:
    """All that there is to say of one data set."""
    left_out = ", ".join(f"{count:,}: {why}" for why, count in facts.left_out.items())
    rows = [("data set", facts.name), ("layout", facts.layout), ("place", facts.path), ("status", facts.status)]
    rows += [
        ("training images", f"{facts.train:,}"),
        ("test images", f"{facts.test:,}"),
        ("classes", f"{facts.classes:,}"),
    ]
    rows += [("digest", facts.digest), ("left out", left_out)]
    console.print(Facts([(name, text) for name, text in rows if text]))


def print_shape(console: "Terminal", found: dict[str, Any], options: str) -> None:
    """Prints the data that a run trains on, as `describe_shape` tells it; `options`: those that make it of the whole set, in words."""
    per_class = found["images_per_class"]
    counts = ", ".join(f"{printable(name)} {count:,}" for name, count in zip(found["classes"], per_class, strict=True))
    if len(per_class) > SHOWN:
        counts = f"{min(per_class):,} to {max(per_class):,}"
    digest, source = found["data_digest"], found["source_digest"]
    wrong = f"{found['wrong_labels']:,}" if found["wrong_labels"] else ""
    if wrong and found["validation_images"]:
        wrong += f" of the {found['train_images'] + found['validation_images']:,} training and validation images"
    rows = [
        ("run", found["checkpoint"]),
        ("data set", found["dataset"]),
        ("options", options),
        ("training images", f"{found['train_images']:,}"),
        ("of each class", counts),
        ("wrong labels", wrong),
        ("held-out classes", ", ".join(map(printable, found["held_out_classes"]))),
        ("validation images", f"{found['validation_images']:,}" if found["validation_images"] else ""),
        ("test images", f"{found['test_images']:,} of {plural(len(found['classes']), 'class')}"),
        ("digest", digest + (f" of {source}" if source != digest else "")),
    ]
    console.print(Facts([(name, text) for name, text in rows if text]))
