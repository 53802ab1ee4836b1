"""docs/margins.md and its figures, made from the study's JSON alone."""

import shlex
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from margins_figure import draw
from margins_plan import (
    FAR,
    FPIR,
    GALLERIES,
    METHODS,
    VAL_FRACTION,
    Item,
    Measure,
    Regime,
    items_of,
)
from margins_run import cost_of, result_path
from margins_statistics import Difference, Results, differences, p_words, short_verdict, verdict
from study_run import core_minutes, read_json

sys.path.insert(0, str(Path(__file__).parents[2]))
from cifarnet.core.errors import plural
from cifarnet.core.percent import percent
from cifarnet.storage.atomic import write_file

HEAD = """# Where a margin pays

<!-- made by scripts/study/margins.py --page from the JSON of the runs: change that, not this page -->

A margin loss asks more of the training images than that they are classified right. This page measures where that helps:
each loss against cross-entropy, trained on the same images in the same order with the same seed.

{answers}

```bash
python scripts/study/margins.py --list                       # what is left, and what it costs
python scripts/study/margins.py --data-dir DIR --budget 60   # an hour of it; it goes on where it stopped
python scripts/study/margins.py --page                       # this page and its figures from the results
```

## How it was measured

{protocol}

- *Better by* is the mean over the {seeds} of this loss's score minus cross-entropy's, in percentage points; of the EER, of which less
  is better, the other way round. The interval is Student's, of 95%, of the paired differences, and is not corrected. *p* is that of the
  paired t test; *Holm's p* is corrected for all losses of the regime, each measure by itself: the whole page has fourteen of these.
- A margin *pays* where it is better and Holm's p is below 0.05, and *perhaps* where the interval alone lies above 0. With so few seeds only large
  effects are found: "no" is no proof that there is none. A table of which runs are missing is provisional.
- The intervals are of the seeds; the test images are the same 10,000 for all. Draws of unseen classes share classes and test images, so that their
  intervals may be too short; their constants were chosen on the first draw's six classes, of which other draws hold some out.
- In the figures a dot is a {unit}, a bar the interval, blue a loss with a margin, grey one without, the black line its mean; a bar that runs out of its panel is longer than that.
- The tries are made with the first seed (draw). They are compared by accuracy on held-out training images: of unseen classes that is not what is measured, and of a long tail the
  held-out images, about 1,240, have the tail too: a point there says little. Wrong labels stay wrong in them.
- The recipe's learning rates were chosen with cross-entropy, before this study; each loss has three tries of its own constants, none of the rate.
- The runs are short. What a margin does in a training of hundreds of epochs is not measured here.
- `ce-simplex` maps the features to C − 1 dimensions before its prototypes. With six classes its embeddings have 5, the others' 256 (of the small CNN 64).
"""
MISSING = "–"


def write_page(docs: Path, regimes: Sequence[Regime]) -> Path:
    """DOCS/margins.md, and a figure of each regime that has a difference to show."""
    out = docs / "results" / "margins"
    parts = [part(regime, out, docs) for regime in regimes]
    answers = ["| trained on | runs | does a margin pay? |", "|---|---|---|"]
    answers += [f"| [{one.title}](#{anchor(one.title)}) | {done(one, out)} | {answer(one, out)} |" for one in regimes]
    head = HEAD.format(
        answers="\n".join(answers), protocol=protocol(regimes), seeds="seeds (draws)", unit="seed (draw)"
    )
    path = docs / "margins.md"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_file(path, "\n".join([head, *parts, costs(regimes, out)]).encode())
    return path


def results_of(regime: Regime, out: Path) -> Results:
    """The JSON of the runs that are there, by method and number of the seed."""
    found: dict[str, dict[int, Any]] = {}
    for item in items_of(regime):
        path = result_path(out, item)
        if item.seed is not None and path.exists():
            found.setdefault(item.method, {})[item.seed] = read_json(path)
    return found


def unfinished(regime: Regime, out: Path) -> list[Item]:
    """What of a regime has no JSON yet."""
    return [item for item in items_of(regime) if not result_path(out, item).exists()]


def done(regime: Regime, out: Path) -> str:
    """How many runs there are of how many."""
    runs = [item for item in items_of(regime) if item.seed is not None]
    return f"{sum(result_path(out, item).exists() for item in runs)} of {len(runs)}"


def answer(regime: Regime, out: Path) -> str:
    """The verdict on a regime in a few words, or that it is not finished."""
    return "not finished" if unfinished(regime, out) else short_verdict(regime, results_of(regime, out))


def anchor(title: str) -> str:
    """The link to a heading."""
    return title.lower().replace(" ", "-").replace(",", "")


def within(title: str) -> str:
    """A title within a sentence."""
    return title[0].lower() + title[1:]


def protocol(regimes: Sequence[Regime]) -> str:
    """The plan as a table."""
    tries = "; ".join(f"{name}: {tries_words(method.tries)}" for name, method in METHODS.items() if method.tries)
    networks = {regime.network.recipe: regime.network for regime in regimes}.values()
    rows = [
        ("networks, optimizers", "; ".join(f"`--recipe {one.recipe}`: {one.words}" for one in networks)),
        ("a loss's constants", f"three tries, half as long, on {1 - VAL_FRACTION:.0%} of the training images; the best on the others"),
        ("tries: (s, m), of ce label smoothing", f"{tries}; `ce-simplex` takes those of `ce`, `la` has none (τ = 1)"),
        ("TAR, EER, DIR", f"all pairs of their test images; TAR at FAR {FAR:g}; DIR at FPIR {FPIR:g} is the mean over {GALLERIES} "
         "draws of two classes that are enrolled with five images each (of four classes there are six such choices)"),
    ]  # fmt: skip
    rows += [
        (within(one.title), f"{one.about}; {one.images:,} images, {one.epochs} epochs, {one.seeds} {one.unit}s")
        for one in regimes
    ]
    return "\n".join(["| | |", "|---|---|", *(f"| {name} | {text} |" for name, text in rows)])


def tries_words(tries: Sequence[dict[str, Any]]) -> str:
    """(auto, 0.05), (auto, auto), …: the values of each try."""
    return ", ".join("(" + ", ".join(str(value) for value in one.values()) + ")" for one in tries)


def part(regime: Regime, out: Path, docs: Path) -> str:
    """The section of a regime: the verdict or what is missing, the figure, a table a measure, the constants."""
    results, left = results_of(regime, out), unfinished(regime, out)
    lines = [f"## {regime.title}", "", f"{regime.about[0].upper()}{regime.about[1:]}.", ""]
    if left:
        command = ["python", "scripts/study/margins.py", "--data-dir", "DIR", "--regime", regime.name]
        minutes = sum(cost_of(item, out) for item in left)
        lines += [
            f"**Not finished**: {done(regime, out)} runs. About {minutes:,.0f} minutes of a core finish it: `{shlex.join(command)}`."
        ]
    else:
        lines += [verdict(regime, results)]
    if not results:
        return "\n".join([*lines, ""])
    found = {measure: differences(regime, measure, results) for measure in regime.measures}
    if any(len(one.values) > 1 for rows in found.values() for one in rows):  # one dot is no picture
        path = draw(regime, found, docs / "margins" / f"{regime.name}.png")
        lines += ["", f"![{regime.title}: difference to cross-entropy]({path.relative_to(docs).as_posix()})"]
    for measure, rows in found.items():
        lines += ["", table(regime, measure, rows, results)]
    return "\n".join([*lines, "", constants(regime, out), ""])


def table(regime: Regime, measure: Measure, rows: Sequence[Difference], results: Results) -> str:
    """A measure of each loss: mean and deviation, and how it differs from cross-entropy's."""
    lines = [f"| loss | {measure.words}, % | {regime.unit}s | better by | p | Holm's p |", "|---|---|---|---|---|---|"]
    by_method = {one.method: one for one in rows}
    for method in regime.methods:
        values = [one["measures"][measure.name] for one in results.get(method, {}).values()]
        spread = f" ± {percent(statistics.stdev(values), unit='')}" if len(values) > 1 else ""
        score = percent(statistics.mean(values), unit="") + spread if values else "not run"
        one = by_method.get(method)
        cells = [f"`{method}`", score, str(len(values)), difference(one) if one else MISSING]
        cells += [p_words(one.p), p_words(one.holm)] if one else [MISSING, MISSING]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def difference(one: Difference) -> str:
    """The mean difference with its interval; without one, the mean and of how many seeds it is; of none a dash."""
    if one.interval is not None:
        text = f"{one.interval.mean:+.2f} ({one.interval.low:+.2f} to {one.interval.high:+.2f})"
        return f"**{text}**" if one.better or one.worse else text
    return f"{statistics.mean(one.values.values()):+.2f}, n = {len(one.values)}" if one.values else MISSING


def constants(regime: Regime, out: Path) -> str:
    """The tries of each loss and which was taken."""
    lines = ["| loss | tries: held-out accuracy, % | taken |", "|---|---|---|"]
    for item in items_of(regime):
        path = result_path(out, item)
        if item.seed is None and path.exists():
            found = read_json(path)
            tries = ", ".join(f"({words(one['constants'])}) {score(one['accuracy'])}" for one in found["tries"])
            lines.append(f"| `{item.method}` | {tries} | {words(found['chosen'])} |")
    return "\n".join(lines)


def words(values: dict[str, Any]) -> str:
    """s 30, m 0.2; label smoothing 0.1."""
    short = {"scale": "s", "margin": "m", "label_smoothing": "label smoothing"}
    return ", ".join(
        f"{short.get(name, name)} {value if isinstance(value, str) else f'{value:g}'}" for name, value in values.items()
    )


def score(value: float | None) -> str:
    """A held-out accuracy in percent."""
    return "diverged" if value is None else percent(value, unit="")


def costs(regimes: Sequence[Regime], out: Path) -> str:
    """What the runs took and on what, and whose pixels they saw."""
    lines = ["## What it took", ""]
    lines += [
        "| regime | JSON | seconds a run | minutes of a core in all | cores | processor | precision | data |",
        "|" + "---|" * 8,
    ]
    for regime in regimes:
        paths = [result_path(out, item) for item in items_of(regime)]
        found = [read_json(path) for path in paths if path.exists()]
        if not found:
            lines.append(f"| {regime.title} | 0 of {len(paths)} |" + f" {MISSING} |" * 6)
            continue
        runs = [one["seconds"] for one in found if "measures" in one] or [0.0]
        facts = [
            " / ".join(sorted({str(one[key]) for one in found})) for key in ("cores", "processor", "precision", "data")
        ]
        cells = [regime.title, f"{len(found)} of {len(paths)}", f"{statistics.mean(runs):,.0f}"]
        lines.append(f"| {' | '.join([*cells, f'{sum(map(core_minutes, found)):,.0f}', *facts])} |")
    digests = sorted({read_json(path)["source_digest"] for path in (out / "results").glob("*.json")})
    lines += [
        "",
        f"Seconds are of training alone. Each JSON has its own, with configuration and digest. Data digest: {', '.join(digests) or MISSING}.",
    ]
    missing = [
        f"{within(regime.title)} ({plural(len(left), 'JSON file')})"
        for regime in regimes
        if (left := unfinished(regime, out))
    ]
    if missing:
        lines += [
            "",
            f"Not finished: {', '.join(missing)}. `python scripts/study/margins.py --data-dir DIR` finishes all.",
        ]
    return "\n".join([*lines, ""])
