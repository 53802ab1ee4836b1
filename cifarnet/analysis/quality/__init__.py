"""Quality: what an image's norm, cosine or entropy says of how well it is recognised; of anyone's arrays. See docs/quality.md."""

from cifarnet.analysis.quality.discard import DiscardCurve, best_area, discard_curve, share_of_best
from cifarnet.analysis.quality.scores import SCORES, correlations, quality_scores
from cifarnet.analysis.quality.utility import Utility, error_versus_discard

__all__ = [
    "SCORES",
    "DiscardCurve",
    "Utility",
    "best_area",
    "correlations",
    "discard_curve",
    "error_versus_discard",
    "quality_scores",
    "share_of_best",
]
