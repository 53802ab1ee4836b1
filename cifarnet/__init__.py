"""Image classifiers with margin losses: train, use and measure them. See docs/api.md; torch is imported on first use."""

import importlib

TYPE_CHECKING = False  # as type checkers know it; to import typing takes time in which Ctrl-C would give a traceback

__version__ = "0.2.0.dev0"

if TYPE_CHECKING:
    from cifarnet.analysis.complexity import measure as complexity
    from cifarnet.analysis.identification.measure import identification
    from cifarnet.analysis.model import Model, load
    from cifarnet.analysis.verification.measure import verification
    from cifarnet.core.config import TrainConfig
    from cifarnet.core.errors import CifarnetError, Failed, Refused
    from cifarnet.engine.evaluate import evaluate
    from cifarnet.engine.fit import fit
    from cifarnet.engine.predict import Prediction
    from cifarnet.losses.heads import MarginHead

__all__ = [
    "CifarnetError",
    "Failed",
    "MarginHead",
    "Model",
    "Prediction",
    "Refused",
    "TrainConfig",
    "__version__",
    "complexity",
    "evaluate",
    "fit",
    "identification",
    "load",
    "verification",
]

_HOME = {
    "CifarnetError": "cifarnet.core.errors",
    "Failed": "cifarnet.core.errors",
    "MarginHead": "cifarnet.losses.heads",
    "Model": "cifarnet.analysis.model",
    "Prediction": "cifarnet.engine.predict",
    "Refused": "cifarnet.core.errors",
    "TrainConfig": "cifarnet.core.config",
    "complexity": "cifarnet.analysis.complexity:measure",
    "evaluate": "cifarnet.engine.evaluate",
    "fit": "cifarnet.engine.fit",
    "identification": "cifarnet.analysis.identification.measure",
    "load": "cifarnet.analysis.model",
    "verification": "cifarnet.analysis.verification.measure",
}


# The rooms that docs/api.md names things of: found without an import of their own. Of `engine` and `core` the files are imported by name.
_ROOMS = ("analysis", "data", "losses")


def __getattr__(name: str) -> object:
    if name in _ROOMS:
        return importlib.import_module(f"cifarnet.{name}")
    if name not in _HOME:
        raise AttributeError(f"module 'cifarnet' has no attribute {name!r}; it has {', '.join(__all__)}")
    module, _, there = _HOME[name].partition(":")
    globals()[name] = found = getattr(importlib.import_module(module), there or name)
    return found


def __dir__() -> list[str]:
    return sorted(__all__)
