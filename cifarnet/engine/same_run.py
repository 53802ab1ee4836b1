"""The configuration that a run was begun with, and whether it may go on under another."""

import json
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from cifarnet.core.config import TrainConfig
from cifarnet.core.errors import Refused
from cifarnet.core.later_version import refuse_later_options
from cifarnet.models.checkpoint import FORMAT
from cifarnet.storage.sharded_file import existing, metadata_of


def load_config(path: Path) -> TrainConfig:
    """The configuration that a training state was saved with."""
    path = existing(path) or path
    metadata = metadata_of(path, FORMAT, "state")
    try:
        values = json.loads(metadata.get("config", ""))
        refuse_later_options(values, str(path), saved_versions(metadata).get("cifarnet"))
        return TrainConfig.from_dict(values, f"{path} (config)")
    except (ValueError, RecursionError) as error:
        raise Refused(str(path), "its configuration is not JSON", "start the run again") from error


def saved_versions(metadata: Mapping[str, str]) -> dict[str, Any]:
    """The versions that a training state was saved with (`current_versions`); {} where they cannot be read."""
    try:
        return dict(json.loads(metadata.get("versions", "{}")))
    except (ValueError, TypeError, RecursionError):
        return {}


def check_same_run(saved: TrainConfig, asked: TrainConfig) -> None:
    """Refuses a resume under another configuration: only fields marked `resume` may change, such as more epochs or the device."""
    fixed = {item.name for item in fields(TrainConfig) if not item.metadata["resume"]} - {"loss_options"}
    was, now = ({name: getattr(config, name) for name in fixed} | config.loss_options for config in (saved, asked))
    differ = sorted(name for name in was.keys() | now.keys() if was.get(name) != now.get(name))
    changed = [_difference(name, was.get(name), now.get(name)) for name in differ]
    if changed:
        raise Refused(
            "resume", f"the run was started otherwise: {', '.join(changed)}", "drop these options, or start a new run"
        )
    if asked.epochs < saved.epochs:
        raise Refused(
            "epochs", f"the run was started for {saved.epochs}, {asked.epochs} is fewer", "ask for as many or more"
        )


def _difference(name: str, was: Any, now: Any) -> str:
    flag = isinstance(was, bool) or isinstance(now, bool)  # named in both states: --normalize -> --no-normalize
    return f"`{name}={bool(was)}` -> `{name}={bool(now)}`" if flag else f"`{name}` {was} -> {now}"
