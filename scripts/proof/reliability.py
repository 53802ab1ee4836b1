"""Writes docs/reliability.md: each promise, the tests that provoke its fault, and the figures of the long runs.

    python scripts/proof/reliability.py

The figures come from docs/results/{kill_storm,fuzz,long_run}.json, which the scripts of these names write; the number of
cases of a test from pytest's collection. A test that is named here and is not there is an error.
"""

import json
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from promises import BEYOND, HEAD, PROMISES, TAIL

ROOT = Path(__file__).parents[2]
SCRIPTS = {
    "kill_storm": "scripts/proof/kill_storm.py",
    "fuzz": "scripts/proof/fuzz.py",
    "long_run": "scripts/study/long_run.py",
}
RESULTS, TARGET = ROOT / "docs" / "results", ROOT / "docs" / "reliability.md"


def count_cases() -> Counter[str]:
    """Cases of each test, "room/file::test" -> number, as pytest collects them."""
    files = sorted({name.split("::")[0] for _, names in [*PROMISES, *BEYOND] for name in names.split()})
    line = [sys.executable, "-m", "pytest", "--collect-only", "-q", *(f"tests/{name}.py" for name in files)]
    text = subprocess.run(line, cwd=ROOT, capture_output=True, text=True).stdout
    return Counter(
        f"{found[1]}::{found[2]}" for found in re.finditer(r"^tests/([\w/]+)\.py::(\w+)", text, re.MULTILINE)
    )


def rows(promises: list[tuple[str, str]], cases: Counter[str], first: int | None) -> list[str]:
    """Lines of a table: number, promise, tests, cases."""
    lines = []
    for index, (promise, names) in enumerate(promises):
        tests = names.split()
        if missing := [name for name in tests if not cases[name]]:
            sys.exit(f"error: {', '.join(missing)}: there is no such test; mend scripts/proof/promises.py")
        linked = ", ".join(f"[{name.split('::')[1]}](../tests/{name.split('::')[0]}.py)" for name in tests)
        number = f"{first + index} | " if first is not None else ""
        lines.append(f"| {number}{promise} | {linked} | {sum(cases[name] for name in tests)} |")
    return lines


def read(name: str) -> Any:
    """A result, or a refusal that says how to make it."""
    path = RESULTS / f"{name}.json"
    if not path.exists():
        sys.exit(f"error: {path}: there is no such file; make it with: python {SCRIPTS[name]} --json {path}")
    return json.loads(path.read_text())


def figures() -> list[str]:
    """Lines of the table of long runs."""
    storm, fuzz, run = read("kill_storm"), read("fuzz"), read("long_run")
    lines = []
    for name, what in (("SIGKILL", "`kill -9`"), ("SIGTERM", "SIGTERM")):
        mine = [row for row in storm if row["signal"] == name]
        losses, runs = ", ".join(row["loss"] for row in mine), sum(row["runs"] for row in mine)
        lines.append(f"| {what} survived ({losses}) | {sum(row['kills'] for row in mine)} |")
        if writes := sum(row["in_a_write"] for row in mine):
            lines.append(f"| of them within the write of a checkpoint | {writes} |")
        lines.append(f"| of them within an evaluation | {sum(row['in_an_evaluation'] for row in mine)} |")
        lines.append(f"| runs resumed to their end after {what} | {runs} |")
        lines.append(f"| differences to uninterrupted runs | {sum(len(row['differences']) for row in mine)} |")
    targets: Counter[str] = Counter()
    for row in fuzz:
        targets.update(row["targets"])
    kinds = ", ".join(sorted(targets)).replace("_", " ")
    each = min(targets.values())
    lines.append(f"| damaged files read, {each:,} or more of each kind ({kinds}) | {sum(targets.values()):,} |")
    lines.append(f"| crashes, hangs or tracebacks at them | {sum(len(row['findings']) for row in fuzz)} |")
    lines.append(f"| {run['epochs']} epochs in one process: memory after ten | {run['memory_mb']:.0f} MB |")
    lines.append(f"| its change from then on | {100 * run['lowest']:+.2f}% to {100 * run['highest']:+.2f}% |")
    lines.append(f"| open files after 11 epochs, at the end | {run['files_first']}, {run['files_last']} |")
    return lines


def main() -> None:
    """Writes the page."""
    cases = count_cases()
    numbered, beyond = rows(PROMISES, cases, 1), rows(BEYOND, cases, None)
    named = {name for _, names in [*PROMISES, *BEYOND] for name in names.split()}
    text = HEAD.format(rows=len(PROMISES), tests=len(named), cases=sum(cases[name] for name in named))
    text += "\n| measured | figure |\n|---|---|\n" + "\n".join(figures()) + "\n"
    text += "\n## Faults\n\n| | promise | provoked by | cases |\n|---|---|---|---|\n" + "\n".join(numbered) + "\n"
    text += (
        "\n## Beyond single faults\n\n| promise | provoked by | cases |\n|---|---|---|\n"
        + "\n".join(beyond)
        + "\n"
        + TAIL
    )
    TARGET.write_text(text)
    print(TARGET)


if __name__ == "__main__":
    main()
