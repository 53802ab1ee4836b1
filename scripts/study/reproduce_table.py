"""The table of the report's cells, from the JSON of their runs: a row a cell, mean and deviation over its seeds."""

import json
import statistics
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))
from cifarnet.analysis.report.published import cell_of
from cifarnet.analysis.significance import student_interval
from cifarnet.core.config import TrainConfig
from cifarnet.core.percent import percent
from cifarnet.storage.atomic import write_file

Results = list[dict[str, Any]]
MISSING = "–"
PAIRED = " Against ce: the mean difference over the n seeds that both have, with its 95% interval where n is 3 or more."

HEADS = ("table", "cell", "published", "ours", "difference", "against ce", "report's protocol as long", "epochs")
HEADS += ("seconds", "seeds", "precision", "device", "processor", "data", "digest")
FOLDED = ("seeds", "precision", "device", "processor", "data", "digest")  # above the table where the same in every row
OPTIONAL = ("report's protocol as long", "processor", "digest")  # left out where no row has them


def write_table(out: Path) -> Path:
    """OUT/tables.md from the JSON files under OUT/results."""
    found: dict[str, Results] = {}
    for path in sorted((out / "results").glob("*.json")):
        result = json.loads(path.read_text())
        found.setdefault(result["cell"], []).append(result)
    path = out / "tables.md"
    write_file(path, (table_of(found) + "\n").encode())
    return path


def table_of(found: dict[str, Results]) -> str:
    """The table in Markdown, under a line of what all of its rows share."""
    order = sorted(found.items(), key=lambda item: (item[1][0]["table"], item[0]))
    rows = [dict(zip(HEADS, row_of(name, results, found), strict=True)) for name, results in order]
    empty = [head for head in OPTIONAL if all(row[head] == MISSING for row in rows)]
    same = [head for head in FOLDED if head not in empty and len({row[head] for row in rows}) == 1]
    heads = [head for head in HEADS if head not in same and head not in empty]
    facts = "".join(f" {head.capitalize()}: {rows[0][head]}." for head in same)
    paired = PAIRED if any(row["against ce"] != MISSING for row in rows) else ""
    lines = [
        f"Test accuracy, %. Seconds are those of training one run. –: not published, or not run.{paired}{facts}",
        "",
    ]
    lines += [f"| {' | '.join(heads)} |", "|" + "---|" * len(heads)]
    return "\n".join(lines + [f"| {' | '.join(row[head] for head in heads)} |" for row in rows])


def row_of(name: str, results: Results, found: dict[str, Results]) -> list[str]:
    """A cell's row: what was published, ours, and ours against cross-entropy and against the report's protocol."""
    first, values = results[0], [100 * result["accuracy"] for result in results]
    mean = mean_of(results)
    spread = f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else ""
    published = cell_of(TrainConfig.from_dict(first["config"], name))
    plain = found.get(first["plain"]) if first["plain"] != name else None
    reference = found.get(first["reference"]) if first["reference"] != name else None
    return [
        first["table"],
        name,
        f"{100 * published.accuracy:.2f} ({published.epochs} epochs)" if published else MISSING,
        f"{percent(mean / 100, unit='')}{spread}{one_view(results)}",
        f"{mean - 100 * published.accuracy:+.2f}" if published else MISSING,
        against(results, plain) if plain else MISSING,
        f"{mean_of(reference):.2f}" if reference else MISSING,
        words(results, "epochs"),
        f"{statistics.mean(result['seconds'] for result in results):,.0f}",
        str(len(values)),
        *(words(results, key) for key in ("precision", "device", "processor", "data", "source_digest")),
    ]


def mean_of(results: Results) -> float:
    """Mean accuracy in percent."""
    return 100 * statistics.mean(result["accuracy"] for result in results)


def one_view(results: Results) -> str:
    """Mean accuracy in percent of one view of each image, in words; "" where that is what the others are of."""
    values = [100 * result["accuracy_one_view"] for result in results if "accuracy_one_view" in result]
    return f" ({statistics.mean(values):.2f} without --tta)" if values else ""


def words(results: Results, key: str) -> str:
    """What the results have under `key`, each value once."""
    values = sorted({result[key] for result in results if result.get(key)})
    return " / ".join(map(str, values)) or MISSING


def against(results: Results, plain: Results) -> str:
    """The mean difference to the plain cell over the n seeds that both have; of three and more with its 95% interval.

    Where they have no seed in common it is the difference of their means, which is said: seeds do not cancel in it.
    """
    mine, theirs = ({result["seed"]: 100 * result["accuracy"] for result in one} for one in (results, plain))
    apart = [mine[seed] - theirs[seed] for seed in sorted(mine.keys() & theirs.keys())]
    if not apart:
        return f"{mean_of(results) - mean_of(plain):+.2f}, of means: no seed in common"
    interval = student_interval(apart) if len(apart) > 2 else None
    ends = f" ({interval.low:+.2f} to {interval.high:+.2f})" if interval and interval.defined else ""
    return f"{statistics.mean(apart):+.2f}{ends}, n = {len(apart)}"
