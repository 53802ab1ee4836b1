"""After a training whose margin follows the feature's norm: is the norm the quality that the loss takes it for?

AdaFace stresses hard images where the norm is large, and easy ones where it is small (arXiv 2204.00964, section 3.2); MagFace gives
long features the wider margin (arXiv 2103.06627, section 3.1). Both take a long feature for a good image. Where the images that are
recognised have the shorter ones, AdaFace's h and MagFace's m(|z|) work backwards.
"""

import contextlib

import torch

from cifarnet.core.errors import CifarnetError
from cifarnet.data import Loader
from cifarnet.engine.evaluate import embed_batches
from cifarnet.engine.train_state import TrainState

ADVICE = {
    "adaface": "its h works backwards; try `h=0`, which leaves the norm out",
    "magface": "its margin, which grows with the norm, works backwards; try `loss=arcface`",
}
MOST = 2000  # training images that are looked at
CERTAIN = 2.0  # standard errors below 0: nearer to it, a correlation may be chance


def norm_warning(run: TrainState) -> str | None:
    """A line where norm and correctness of training images are negatively correlated, beyond chance; else None.

    The model that is kept looks at them as they are, without augmentation. Nothing of the run changes and nothing random is drawn.
    One rank alone can call it; where the classes lie on several ranks nothing is measured.
    """
    if run.config.loss not in ADVICE or run.model.apart:
        return None
    with contextlib.suppress(CifarnetError, OSError, RuntimeError):  # the run is finished, and whole without this
        correlation, count = norm_correctness(run)
        if correlation < -CERTAIN / count**0.5:
            return (
                f"{run.config.loss}: of {count:,} training images those that it recognises have the shorter features "
                f"(correlation of norm and correctness {correlation:.2f}), so {ADVICE[run.config.loss]}"
            )
    return None


@torch.inference_mode()
def norm_correctness(run: TrainState) -> tuple[float, int]:
    """Pearson's correlation between |z| and whether an image is taken for its own class, over so many training images.

    They lie evenly over the split. NaN where all are recognised or none, or a norm is not finite.
    """
    split = run.train.split
    count = min(len(split), MOST)
    chosen = torch.arange(count) * len(split) // count
    loader = Loader(split.subset(chosen), 500, run.device, mean=run.mean, std=run.std, shuffle=False)
    norms, hits = [], []
    for features, labels in embed_batches(run.result, loader.epoch(0), run.device, run.precision):
        norms.append(features.float().norm(dim=1).cpu())
        hits.append(run.result.head.measure(features, labels)[1].cpu())
    both = torch.stack([torch.cat(norms).double(), torch.cat(hits).double()])
    return float(torch.corrcoef(both)[0, 1]), count
