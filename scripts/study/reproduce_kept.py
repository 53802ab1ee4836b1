"""A reproduction in one JSON file, its plan with its results, which the next machine is given and goes on from."""

import json
from pathlib import Path

from cifarnet.core.errors import Refused
from cifarnet.storage.atomic import write_file


def unpack(kept: Path, out: Path) -> None:
    """Writes the plan and the results that are in `kept`, if it exists, and not yet under `out`.

    Raises:
        Refused: the file is none that `pack` wrote.
    """
    if not kept.exists():
        return
    try:
        found = json.loads(kept.read_text())
        files = {f"results/{name}.json": result for name, result in found["results"].items()}
        files["plan.json"] = found["plan"]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise Refused(
            str(kept), f"this is no plan with its results ({error!r})", "remove it, or name another"
        ) from error
    for name, content in files.items():
        if not (out / name).exists():
            write_file(out / name, (json.dumps(content, indent=2) + "\n").encode())


def pack(out: Path, kept: Path) -> None:
    """Writes the plan, as far as there is one, and all results that are under `out` to `kept`."""
    plan = out / "plan.json"
    results = {path.stem: json.loads(path.read_text()) for path in sorted((out / "results").glob("*.json"))}
    found = {"plan": json.loads(plan.read_text()) if plan.exists() else {}, "results": results}
    write_file(kept, (json.dumps(found, indent=1) + "\n").encode())
