"""The text files of a run, as they may come from a stranger: JSON documents and logs, each a plain file under a ceiling."""

import json
from pathlib import Path
from typing import Any

from cifarnet.core.errors import Failed, Refused, printable
from cifarnet.core.plain_file import read_bytes, read_text

ABOUT = "run"  # the key in config.json of what is no option: recipe, command, start, data


def read_json(path: Path, fix: str, within: Path | None = None) -> Any:
    """The JSON document in `path`.

    Args:
        within: the run folder that the file belongs to: no link leads out of it.

    Raises:
        Refused: it cannot be read or is not JSON, and `fix` says what to do; or a key stands there twice.
    """

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        """The table of these keys and values: of a key that stands there twice json would drop the first."""
        found = dict(pairs)
        if len(found) < len(pairs):
            twice = next(name for place, (name, _) in enumerate(pairs) if name in dict(pairs[:place]))
            raise Refused(str(path), f"has '{printable(twice)}' twice", "leave one of them out")
        return found

    try:
        return json.loads(read_text(path, within=within), object_pairs_hook=once)
    except FileNotFoundError as error:
        raise Refused(str(path), "there is no such file", fix) from error
    except OSError as error:
        raise Refused(str(path), f"cannot be read ({error.strerror})", fix) from error
    except (ValueError, RecursionError) as error:
        raise Refused(str(path), f"is not JSON ({error})", fix) from error


def split_config(document: Any) -> tuple[Any, dict[str, str]]:
    """The options of a config.json, and what stands beside them about the run."""
    if not isinstance(document, dict):
        return document, {}
    options = {name: value for name, value in document.items() if name != ABOUT}
    about = document.get(ABOUT, {})
    if not isinstance(about, dict):
        about = {}
    return options, {str(name): value for name, value in about.items() if isinstance(value, str)}


def read_metrics(path: Path) -> tuple[list[dict[str, Any]], list[str]]:
    """The records of a metrics.jsonl, and a warning for each line that is not one (a crash can cut the last short).

    Raises:
        Failed: the file cannot be read.
    """
    records, warnings = [], []
    try:
        lines = read_bytes(path, within=path.parent).decode("utf-8-sig", "replace").splitlines()
    except OSError as error:
        raise Failed(str(path), f"cannot be read ({error.strerror})", "name a run folder") from error
    for number, line in enumerate(lines, start=1):
        try:
            record = json.loads(line)
            if not isinstance(record, dict):
                raise ValueError
            records.append(record)
        except (ValueError, RecursionError):
            warnings.append(f"{path}: line {number} is not a record and is skipped")
    return records, warnings
