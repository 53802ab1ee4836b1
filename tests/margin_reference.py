"""The margin losses in float64, written from the papers' formulas with angles, for the kernels' tests.

Independent of the package: no name of cifarnet is used here. Gradients come from autograd in float64.
"""

import math

import torch

ORIGINAL = {
    "cosface": {"scale": 64.0, "margin": 0.35},
    "arcface": {"scale": 64.0, "margin": 0.5},
    "sphereface": {"scale": 64.0, "margin": 4},
    "curricularface": {"scale": 64.0, "margin": 0.5},
    "adaface": {"scale": 64.0, "margin": 0.4, "h": 0.333, "t_alpha": 0.01},
    "magface": {"scale": 64.0, "margin": 0.5},
}
STATE = {"sphereface": [7.0], "curricularface": [0.3], "adaface": [18.0, 6.0]}


def reference(
    loss, features, weight, labels, state, training, *, scale, margin, h=0.333, t_alpha=0.01, easy=False, noise=None
):
    """(loss, new state), float64 and differentiable, of features [N, D], weight [C, D], labels [N], state vector.

    noise [N, C]: added to the cosines, without a derivative.
    """
    z, w, state = features.double(), weight.double(), state.double().clone()
    norm = z.norm(dim=1)
    cosine = (z / norm[:, None]) @ (w / w.norm(dim=1, keepdim=True)).T
    if noise is not None:
        cosine = (cosine + noise).clamp(-1, 1)
    rows = torch.arange(len(z), device=z.device)
    theta = cosine[rows, labels].acos()
    s = torch.full_like(norm, scale)
    others, extra = cosine, 0.0

    if training:
        bounded = norm.detach().clamp(1e-3, 100)
        if loss == "sphereface":
            state += 1
        if loss == "curricularface":
            state = 0.01 * theta.detach().cos().mean() + 0.99 * state
        if loss == "adaface":
            std = bounded.std() if len(z) > 1 else state[1]
            state = t_alpha * torch.stack([bounded.mean(), std]) + (1 - t_alpha) * state

    if loss == "cosface":
        psi = theta.cos() - margin
    elif loss == "sphereface":
        k = (margin * theta / math.pi).floor().detach()
        blend = max(5.0, 1000.0 / (1 + 0.12 * float(state[0])))
        psi = (blend * theta.cos() + (-1) ** k * (margin * theta).cos() - 2 * k) / (1 + blend)
        s = norm
    elif loss == "adaface":
        quality = (h * (norm.detach().clamp(1e-3, 100) - state[0]) / (state[1] + 1e-3)).clamp(-1, 1)
        psi = (theta - margin * quality).clamp(1e-3, math.pi - 1e-3).cos() - (margin + margin * quality)
    elif loss == "magface":
        a = norm.clamp(10, 110)
        m = 0.45 + (0.8 - 0.45) * (a - 10) / 100
        psi = torch.where(theta < math.pi / 2, (theta + m).cos(), theta.cos())
        extra = 35 * (a / 110**2 + 1 / a).mean()
    else:
        within = theta < math.pi / 2 if easy else theta + margin < math.pi
        beyond = theta.cos() if easy else theta.cos() - margin * math.sin(margin)
        psi = torch.where(within, (theta + margin).cos(), beyond)
        if loss == "curricularface":
            hard = cosine > (theta + margin).cos().detach()[:, None]
            others = torch.where(hard, cosine * (state[0] + cosine), cosine)

    # Cross-entropy as log(1 + e^x), x = log sum of the others - the target's: 1 - p of a learnt sample keeps its digits.
    logits = (s[:, None] * others).index_put((rows, labels), torch.full_like(norm, -math.inf))
    excess = logits.logsumexp(dim=1) - s * psi
    return torch.nn.functional.softplus(excess, threshold=700).mean() + extra, state
