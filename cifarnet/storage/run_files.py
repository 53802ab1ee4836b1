"""The text files of a run, as they may come from a stranger: JSON documents and logs, each a plain file under a ceiling."""

import json
from pathlib import Path
from typing import Any

from cifarnet.core.errors import Failed, Refused
from cifarnet.core.plain_file import read_bytes, read_text


def read_json(path: Path, fix: str, within: Path | None = None) -> Any:
    """The JSON document in `path`.

    Args:
        within: the run folder that the file belongs to: no link leads out of it.

    Raises:
        Refused: it cannot be read or is not JSON; `fix` says what to do.
    """
    try:
        return json.loads(read_text(path, within=within))
    except FileNotFoundError as error:
        raise Refused(str(path), "there is no such file", fix) from error
    except OSError as error:
        raise Refused(str(path), f"cannot be read ({error.strerror})", fix) from error
    except (ValueError, RecursionError) as error:
        raise Refused(str(path), f"is not JSON ({error})", fix) from error


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
