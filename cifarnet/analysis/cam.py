"""Class activation maps: where in an image the evidence for a class lies. Grad-CAM and LayerCAM."""

import torch
import torch.nn.functional as F
from torch import Tensor

from cifarnet.analysis.features import find_layer, record
from cifarnet.core.torch_settings import own_modes
from cifarnet.engine.metrics import check_finite
from cifarnet.models.classifier import Classifier

CAMS = {"grad-cam": "Grad-CAM", "layer-cam": "LayerCAM"}  # and their names in titles


@own_modes()
@torch.inference_mode(False)  # gradients are needed, whatever the caller's mode
def class_map(model: Classifier, image: Tensor, target: int, layer: str, method: str = "grad-cam") -> Tensor:
    """Where in the image the evidence for class `target` lies: a weighted sum of a layer's maps, negative values cut off.

    What is explained is the class's logit without margin, the one that the class is predicted by. With its gradient g
    at the maps A:

    - grad-cam (arXiv 1610.02391, eq. 1 and 2): ReLU(sum_k mean(g_k) A_k), a weight a map.
    - layer-cam (Jiang et al. 2021, doi 10.1109/TIP.2021.3089943, eq. 4 to 6): ReLU(sum_k ReLU(g_k) A_k), a weight a pixel.

    Args:
        image: normalised, [3, H, W].
        target: index of the class.
        layer: a name as in `record`.
        method: of `CAMS`.

    Returns:
        the map [h, w] of the layer's size, not scaled, on the CPU.

    Raises:
        Refused: as `find_layer`.
        Failed: the logits or their gradients are not finite (see `check_finite`).
    """
    # The image asks for gradients, so that the maps have them also where the weights are frozen; of one that was made in
    # inference mode only a copy can.
    maps, embedded = record(model.eval(), image[None].clone().detach().requires_grad_())
    activation = find_layer(layer, maps).values
    logits = model.head.logits(embedded)
    check_finite(logits)
    (gradient,) = torch.autograd.grad(logits[0, target], activation)
    weights = gradient.mean(dim=(2, 3), keepdim=True) if method == "grad-cam" else F.relu(gradient)
    heat = F.relu((weights * activation).sum(dim=1)).detach()
    check_finite(heat, "gradients")
    return heat[0].float().cpu()


def upsample(heat: Tensor, size: int) -> Tensor:
    """A map [h, w] as [size, size], bilinear, scaled to a maximum of 1 (a map of zeros stays)."""
    large = F.interpolate(heat[None, None], (size, size), mode="bilinear", align_corners=False)[0, 0]
    return large / large.max().clamp_min(1e-12)
