"""`cifarnet doctor`: this machine -> what a bug report needs first."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cifarnet.cli.common import print_json, results
from cifarnet.cli.options import spoken
from cifarnet.core.errors import plural

if TYPE_CHECKING:
    from cifarnet.cli.terminal import Terminal


def doctor(
    data_dir: Annotated[Path | None, typer.Option(help="Also look for CIFAR here.", show_default=False)] = None,
    json_output: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Say what is installed, which devices and backend are used and why, where the data is, and what is in the way.

    Examples:
        cifarnet doctor
        cifarnet doctor --json --data-dir data
    """
    from cifarnet.cli.environment import examine

    found = examine(data_dir)
    if json_output:
        print_json(found)
        return
    show(results(), found)


def show(console: "Terminal", found: dict[str, Any]) -> None:
    """Prints what was found, section by section."""
    from cifarnet.cli.table import Facts

    for title, lines in sections(found):
        console.say(title)
        console.print(Facts([(name, spoken(text)) for name, text in lines], indent=2, width=14, style=""))


def sections(found: dict[str, Any]) -> list[tuple[str, list[tuple[str, str]]]]:
    """Titles with their lines, (name, text) each."""
    devices, backend, data = found["devices"], found["backend"], found["data"]
    listed = [(row["name"], f"{row['description']}, bf16 {'yes' if row['bf16'] else 'no'}") for row in devices["found"]]
    built = ", ".join(f"{name} {value or 'none'}" for name, value in backend["build"].items()) or "not built"
    free = [("free disk", f"{size / 2**30:.1f} GB for {path}") for path, size in found["disk"].items()]
    runs = found["runs"]
    versions = found["versions"] | {"cifarnet": f"{found['versions']['cifarnet']} in {found['package']}"}
    latest = f", the newest {runs['latest']}" if runs["latest"] else ""
    return [
        ("versions", list(versions.items())),
        (
            "devices",
            [*listed, ("auto", f"{devices['device']}, {devices['precision']}, {plural(devices['cores'], 'core')}")],
        ),
        ("margin head", [("auto", f"{backend['auto']}: {backend['why']}"), ("built for", built)]),
        ("data", [*(("folder", f"{path}: {state}") for path, state in data["folders"].items()), *data["sets"].items()]),
        ("storage", [*free, ("runs", f"{runs['count']} in {runs['folder']}{latest}")]),
        ("problems", [("", text) for text in found["problems"]] or [("", "none found")]),
    ]
