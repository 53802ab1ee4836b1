"""Files that a later cifarnet wrote, with options that this one does not know."""

from dataclasses import fields
from typing import Any

from cifarnet import __version__
from cifarnet.core.config import TrainConfig
from cifarnet.core.errors import Refused, printable
from cifarnet.core.option_values import with_loss_options


def refuse_later_options(values: Any, source: str, version: Any = None) -> None:
    """Refuses a configuration that cifarnet wrote with an option that is not known: none has ever been taken away.

    Args:
        values: as a file holds it; what else is wrong with it `TrainConfig.from_dict` says.
        version: of the cifarnet that wrote it, where the file says that.

    Raises:
        Refused: with both versions. A list of what is known, as for a file that a user writes, would not help.
    """
    known = {item.name for item in fields(TrainConfig)}
    later = [name for name in with_loss_options(values) if name not in known] if isinstance(values, dict) else []
    if later:
        writer = f"cifarnet {printable(version)}" if isinstance(version, str) else "a later cifarnet"
        option = f"the option '{printable(str(later[0]))}', which this version, {__version__}, does not know"
        raise Refused(source, f"was written by {writer} with {option}", "update cifarnet")
