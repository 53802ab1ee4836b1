"""The scores of images as they are and made worse in steps, and whether the scores follow."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cifarnet.analysis.quality.degrade import DEGRADATIONS, degrade
from cifarnet.analysis.quality.scores import SCORES, correlations, known_names
from cifarnet.core.errors import Refused

ScoreImages = Callable[[Tensor], dict[str, np.ndarray]]  # uint8 [n, 3, H, W] -> each of SCORES, [n]

CHUNK = 500  # images that are degraded together; the noise depends on it
NONE = "none"
WEAK = 0.1  # a correlation nearer to 0 than this says that a score does not follow


@dataclass(frozen=True)
class Degraded:
    """One degradation: `values[score]` is float64 [L + 1, N], of N images as they are and at each of L strengths."""

    name: str
    values: dict[str, np.ndarray]

    @property
    def rho(self) -> dict[str, float | None]:
        """Spearman's rho of each score with the strength, 0 for images as they are, over all (L + 1) N images."""
        first = next(iter(self.values.values()))
        severity = np.repeat(np.arange(len(first)), first.shape[1])
        return correlations(severity, {name: value.ravel() for name, value in self.values.items()})

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values: the strengths, and of each score its mean and quartiles at each, and rho."""
        row, rho = DEGRADATIONS[self.name], self.rho
        scores = {
            name: {
                "rho": rho[name],
                "mean": value.mean(axis=1).tolist(),
                "quartiles": np.quantile(value, (0.25, 0.5, 0.75), axis=1).T.tolist(),
                "spread": float(value[0].std()),
            }
            for name, value in self.values.items()
        }
        return {"unit": row.unit, "strengths": [None, *row.strengths], "scores": scores}


def check_degradations(names: Sequence[str]) -> list[str]:
    """The names of degradations, each once; "none" alone gives no name. Raises Refused for an unknown one."""
    found = known_names("degrade", names, (*DEGRADATIONS, NONE))
    if NONE in found and len(found) > 1:
        raise Refused("degrade", "names none, and others", f"name either, from {', '.join(DEGRADATIONS)}")
    return [] if found == [NONE] else found


def measure_degraded(images: Tensor, names: Sequence[str], score: ScoreImages, seed: int = 17) -> list[Degraded]:
    """The scores of `images` (uint8 [N, 3, H, W], square, on the CPU) under each degradation.

    Args:
        score: passes images through the model.
        seed: of the noise; the same images get the same in each call.
    """
    found = []
    plain = scored([score(chunk) for chunk in images.split(CHUNK)]) if names else {}
    for name in names:
        levels = [plain]
        for strength in DEGRADATIONS[name].strengths:
            generator = torch.Generator().manual_seed(seed)
            levels.append(scored([score(degrade(chunk, name, strength, generator)) for chunk in images.split(CHUNK)]))
        found.append(Degraded(name, {one: np.stack([level[one] for level in levels]) for one in SCORES}))
    return found


def scored(parts: Sequence[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """The scores of several groups of images, one after the other."""
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
