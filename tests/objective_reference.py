"""The losses that pure torch runs, in numpy float64, one logit at a time, from the papers' formulas; no name of cifarnet is used.

`at` (features, weights): where what the loss holds without a derivative is taken; None: where the value is.
"""

import math

import numpy as np


def cosines(z, w):
    return (z / np.linalg.norm(z, axis=-1, keepdims=True)) @ (w / np.linalg.norm(w, axis=-1, keepdims=True)).T


def softmax_loss(logits, y):
    """[N]; the log of the sum of the others' exponentials first, so that nothing cancels."""
    losses = []
    for row, t in zip(logits, y, strict=True):
        others = np.delete(row, t)
        excess = others.max() + math.log(np.exp(others - others.max()).sum()) - row[t]
        losses.append(max(excess, 0) + math.log1p(math.exp(-abs(excess))))
    return np.array(losses)


def sp(x):
    return max(x, 0.0) + math.log1p(math.exp(-abs(x)))


def arc(c, m):
    theta = math.acos(c)
    return math.cos(theta + m) if theta + m <= math.pi else c - m * math.sin(m)


def with_targets(c, y, psi):
    logits = c.copy()
    logits[np.arange(len(y)), y] = psi
    return logits


def ldam(o, z, w, y, memory, c0):
    n, c = memory["counts"].astype(float), cosines(z, w)
    delta = o["margin"] * (n.min() / n) ** 0.25
    losses = softmax_loss(o["scale"] * with_targets(c, y, [c[i, t] - delta[t] for i, t in enumerate(y)]), y)
    if not o["drw"] or memory["state"][0] < 0.8:
        return losses.mean()
    weights = (1 - o["beta"]) / (1 - o["beta"] ** n)
    weights = (weights / weights.sum() * len(n))[y]
    return (weights * losses).sum() / weights.sum()


def adacos_next(s, c0, y):
    inner = [sum(math.exp(s * row[j]) for j in range(len(row)) if j != t) for row, t in zip(c0, y, strict=True)]
    angles = sorted(math.acos(row[t]) for row, t in zip(c0, y, strict=True))
    return math.log(np.mean(inner)) / math.cos(min(math.pi / 4, angles[(len(angles) - 1) // 2]))


def adacos(o, z, w, y, memory, c0):
    return softmax_loss(adacos_next(float(memory["state"][0]), c0, y) * cosines(z, w), y).mean()


def adacos_fixed(o, z, w, y, memory, c0):
    return softmax_loss(math.sqrt(2) * math.log(len(w) - 1) * cosines(z, w), y).mean()


def mv(o, z, w, y, memory, c0, under):
    c = cosines(z, w)
    logits = c.copy()
    for i, t in enumerate(y):
        for j in range(len(w)):
            if j != t and c0[i, j] > under(c0[i, t], o["margin"]):
                logits[i, j] = (1 + o["t"]) * c[i, j] + o["t"]
        logits[i, t] = under(c[i, t], o["margin"]) if c[i, t] > 0 or not o["easy"] else c[i, t]
    return softmax_loss(o["scale"] * logits, y).mean()


def mv_arcface(*arguments):
    return mv(*arguments, lambda c, m: math.cos(math.acos(c) + m))


def mv_cosface(*arguments):
    return mv(*arguments, lambda c, m: c - m)


def elastic(o, z, w, y, memory, c0, under):
    c, margins = cosines(z, w), o["margin"] + o["sigma"] * memory["normal"]
    if o["plus"]:  # the largest target cosine gets the smallest
        ranks = np.argsort(np.argsort(-c0[np.arange(len(y)), y]))
        margins = np.sort(margins)[ranks]
    return softmax_loss(
        o["scale"] * with_targets(c, y, [under(c[i, t], margins[i]) for i, t in enumerate(y)]), y
    ).mean()


def elastic_arcface(*arguments):
    return elastic(*arguments, arc)


def elastic_cosface(*arguments):
    return elastic(*arguments, lambda c, m: c - m)


def subcenter_arcface(o, z, w, y, memory, c0):
    c = np.stack([cosines(z, w[:, k]) for k in range(w.shape[1])]).max(axis=0)
    return softmax_loss(o["scale"] * with_targets(c, y, [arc(c[i, t], o["margin"]) for i, t in enumerate(y)]), y).mean()


def sphereface_r(o, z, w, y, memory, c0):
    c, norm, m = cosines(z, w), np.linalg.norm(z, axis=1), o["margin"]
    tau = c0.copy()
    for i, t in enumerate(y):
        if o["variant"] == "v2":
            tau[i] = [c0[i, j] if j == t else math.cos(math.acos(c0[i, j]) / m) for j in range(len(w))]
        else:
            wide = m * math.acos(c0[i, t])
            k = math.floor(wide / math.pi)
            tau[i, t] = (-1) ** k * math.cos(wide) - 2 * k if o["variant"] == "v0" else math.cos(min(wide, math.pi))
    scale = o["scale"] if o["norm"] == "hard" else norm[:, None]
    loss = softmax_loss(scale * (c + (tau - c0)), y).mean()
    if o["norm"] == "soft":
        return loss * 50 / o["scale"] + 0.01 * np.abs(norm - o["scale"]).mean()
    return loss


def g(c, t):
    return 2 * ((c + 1) / 2) ** t - 1


def sphereface2(o, z, w, y, memory, c0):
    c, b, m = cosines(z, w), float(memory["bias"][0]), o["margin"]
    total = 0.0
    for i, t in enumerate(y):
        for j in range(len(w)):

            def tau(cosine, own=j == t):
                if o["variant"] == "C":
                    return g(cosine, o["t"]) - m if own else g(cosine, o["t"]) + m
                theta = math.acos(cosine)
                wide = (theta + m if o["variant"] == "A" else m * theta) if own else theta
                return g(math.cos(min(wide, math.pi)), o["t"])

            plain = o["variant"] == "C" and not o["detach"]
            f = o["scale"] * (tau(c[i, j]) if plain else c[i, j] + (tau(c0[i, j]) - c0[i, j])) + b
            total += o["balance"] * sp(-f) if j == t else (1 - o["balance"]) * sp(f)
    return total * o["loss_weight"] / o["scale"] / len(y)


def uniface(o, z, w, y, memory, c0):
    c, b, total = cosines(z, w), float(memory["bias"][0]), 0.0
    for i, t in enumerate(y):
        for j in range(len(w)):
            total += (
                sp(-(o["scale"] * (c[i, j] - o["margin"]) - b))
                if j == t
                else o["negative_weight"] * sp(o["scale"] * c[i, j] - b)
            )
    return total / len(y)


def kappaface(o, z, w, y, memory, c0):
    c = cosines(z, w)
    psi = [arc(c[i, t], o["margin"] * float(memory["psi"][t])) for i, t in enumerate(y)]
    return softmax_loss(o["scale"] * with_targets(c, y, psi), y).mean()


def kappa_factors(features, y, classes, temperature, gamma):
    """psi [C], of an epoch's features [M, D] and labels."""
    unit, size = features / np.linalg.norm(features, axis=1, keepdims=True), features.shape[1]
    n = np.array([(y == j).sum() for j in range(classes)])
    rho = np.array([np.linalg.norm(unit[y == j].sum(axis=0)) / n[j] for j in range(classes)])
    kappa = rho * (size - rho**2) / (1 - rho**2)
    standard = (kappa - kappa.mean()) / kappa.std(ddof=1)
    concentrated = 1 - 1 / (1 + np.exp(-temperature * standard))
    return gamma * concentrated + (1 - gamma) * (1 + np.cos(math.pi * n / (1.05 * n.max()))) / 2


def adjusted(z, w, b, y, counts, gamma, tau):
    """The loss of vs; of la with gamma = 0."""
    n = counts.astype(float)
    return softmax_loss((n / n.max()) ** gamma * (z @ w.T + b) + tau * np.log(n / n.sum()), y).mean()


FORMULAS = {
    "ldam": ldam, "adacos": adacos, "adacos-fixed": adacos_fixed, "mv-arcface": mv_arcface, "mv-cosface": mv_cosface,
    "elastic-arcface": elastic_arcface, "elastic-cosface": elastic_cosface, "subcenter-arcface": subcenter_arcface,
    "sphereface-r": sphereface_r, "sphereface2": sphereface2, "uniface": uniface, "kappaface": kappaface,
}  # fmt: skip


def reference(loss, options, z, w, y, memory, at=None):
    """The mean loss, float64, of z [N, D], w [C, D] ([C, K, D]), y [N]; memory: what the head keeps, as numpy arrays."""
    z0, w0 = at or (z, w)
    c0 = cosines(z0, w0) if w.ndim == 2 else None
    return float(FORMULAS[loss](options, z, w, y, memory, c0))
