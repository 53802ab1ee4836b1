"""Where features and prototypes lie: angles, projections to two dimensions, and the last layer split in two."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from cifarnet.analysis.features import Embeddings
from cifarnet.core.callers_random import callers_random
from cifarnet.core.errors import Refused, plural
from cifarnet.core.known import unknown
from cifarnet.core.percent import percent
from cifarnet.core.torch_settings import own_modes
from cifarnet.models.classifier import Classifier

METHODS = {"umap": "UMAP", "tsne": "t-SNE", "pca": "PCA"}  # and their names in titles
METRICS = ("cosine", "euclidean")


def angles_to(features: Tensor, prototypes: Tensor) -> Tensor:
    """Angles in degrees [N, C] between features [N, E] and prototypes [C, E], of any length.

    In float64, so that the arc cosine is good to 1e-6 degrees even at 0 and 180.
    """
    u, v = F.normalize(features.double(), dim=1), F.normalize(prototypes.double(), dim=1)
    return torch.rad2deg((u @ v.T).clamp(-1, 1).acos())


@dataclass(frozen=True)
class AngleStatistics:
    """Where a margin puts features and prototypes. Degrees, except `norms` and `cosines`.

    own: angle of each feature to its class's prototype [N]; nearest: to the nearest other prototype [N]; cosines:
    between each two prototypes [C (C - 1) / 2]; norms: lengths of the features [N]; labels [N].
    """

    own: np.ndarray
    nearest: np.ndarray
    cosines: np.ndarray
    norms: np.ndarray
    labels: np.ndarray


def measure_angles(features: Tensor, labels: Tensor, prototypes: Tensor) -> AngleStatistics:
    """The angles of features [N, E] with labels [N] to prototypes [C, E]."""
    angles = angles_to(features, prototypes)
    own = angles.gather(1, labels[:, None])[:, 0]
    nearest = angles.scatter(1, labels[:, None], float("inf")).amin(dim=1)
    unit = F.normalize(prototypes.double(), dim=1)
    row, column = torch.triu_indices(len(unit), len(unit), offset=1)
    cosines = (unit @ unit.T)[row, column]
    norms = features.double().norm(dim=1)
    return AngleStatistics(own.numpy(), nearest.numpy(), cosines.numpy(), norms.numpy(), labels.numpy())


def choose_balanced(labels: Tensor, count: int, seed: int) -> Tensor:
    """Indices of `count` images, as many of each class as there can be (as the report: 500, 50 a class), seeded.

    Classes that run out leave their places to the others; fewer images than `count` give all of them.
    """
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(labels), generator=generator)
    shuffled = labels[order]
    rank = torch.empty(len(labels), dtype=torch.int64)  # how many of its class stand before it
    for label in shuffled.unique().tolist():
        members = (shuffled == label).nonzero()[:, 0]
        rank[members] = torch.arange(len(members))
    return order[rank.argsort(stable=True)[:count]].sort().values


@own_modes()
def project(features: Tensor, method: str, *, metric: str, neighbors: int = 6, seed: int = 17) -> np.ndarray:
    """Features [N, E] in the plane, float64 [N, 2], by UMAP, t-SNE or PCA, seeded.

    Args:
        metric: cosine or euclidean; for PCA, cosine means that features are brought to length 1 first.
        neighbors: n_neighbors of UMAP, perplexity of t-SNE.

    Raises:
        Refused: an unknown method, or fewer points than `neighbors` + 1 (or than two), equal ones counted once: a
            projection would draw clusters out of equal points.
    """
    if method not in METHODS:
        raise unknown("method", method, METHODS)
    needed = 2 if method == "pca" else neighbors + 1
    if len(features) < needed:
        there = f"and there {'is' if len(features) == 1 else 'are'} {len(features)}"
        if method == "pca":
            raise Refused("visualize umap", f"a map needs {needed} images or more, {there}", "take more images")
        why = f"{neighbors} neighbours need {needed} images or more, {there}"
        raise Refused("neighbors", why, "take more images, or fewer `neighbors`")
    points = features.double().numpy()
    unit = F.normalize(features.double(), dim=1).numpy()
    different = count_different(unit if metric == "cosine" else points, needed)
    if different < needed:
        raise Refused(
            "visualize umap",
            f"the features of {plural(len(points), 'image')} are {plural(different, 'point')} in all, {METHODS[method]} of "
            f"them needs {needed} or more",
            "see `visualize angles`: the model may have collapsed",
        )
    if method == "pca":
        return principal_components(unit if metric == "cosine" else points)
    return tsne(points, metric, neighbors, seed) if method == "tsne" else umap(points, metric, neighbors, seed)


def tsne(points: np.ndarray, metric: str, neighbors: int, seed: int) -> np.ndarray:
    """t-SNE's plane of points [N, E], float64 [N, 2]; on one thread, since so few points make others wait for each other."""
    with callers_random():
        from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits

    start: Any = "pca" if points.shape[1] >= 2 else "random"
    with threadpool_limits(1):
        plane = TSNE(perplexity=neighbors, metric=metric, init=start, random_state=seed).fit_transform(points)
    return plane.astype(np.float64)


def umap(points: np.ndarray, metric: str, neighbors: int, seed: int) -> np.ndarray:
    """UMAP's plane of points [N, E], float64 [N, 2]; NumPy's generator and torch's threads are afterwards as they were."""
    import warnings

    threads, state = torch.get_num_threads(), np.random.get_state()
    try:
        with callers_random():
            from umap import UMAP

        np.random.seed(seed)  # umap lays out separate clusters with NumPy's global generator, whatever its own seed
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that a seed means one thread
            reducer = UMAP(n_neighbors=neighbors, metric=metric, random_state=seed, n_jobs=1)
            return np.asarray(reducer.fit_transform(points), dtype=np.float64)
    finally:
        np.random.set_state(state)
        torch.set_num_threads(threads)  # Numba starts one a core, and makes that OpenMP's number: torch's too


def count_different(points: np.ndarray, enough: int) -> int:
    """How many of points [N, E] are different, further apart than 1e-5 of the longest; at most `enough`, and 50.

    The next point is always the one furthest from all those before.
    """
    longest, found = float(np.linalg.norm(points, axis=1).max(initial=0)), 0
    away, place = np.full(len(points), np.inf), 0
    while found < min(enough, 50, len(points)) and away[place] > 1e-5 * longest:
        found += 1
        away = np.minimum(away, np.linalg.norm(points - points[place], axis=1))
        place = int(away.argmax())
    return found if found < min(enough, 50) else enough


def principal_components(points: np.ndarray) -> np.ndarray:
    """The first two principal components [N, 2] (zeros where there is only one)."""
    with callers_random():
        from sklearn.decomposition import PCA

    size = min(2, *points.shape)
    plane = PCA(size, svd_solver="full").fit_transform(points)
    return np.pad(plane, ((0, 0), (0, 2 - size)))


@dataclass(frozen=True)
class Sphere:
    """Features [N, d] and prototypes [C, d], d = 2 or 3; lost: the part of the weights' energy cut off."""

    features: Tensor
    prototypes: Tensor
    lost: float = 0.0


def split_last_layer(features: Tensor, weight: Tensor, size: int) -> Sphere:
    """The best W2 [C, d] W1 [d, E] ~ W [C, E] in least squares (Eckart-Young: the d largest singular values).

    Features become W1 z and prototypes the rows of W2, with W1's rows orthonormal, so that W1 z is z's orthogonal
    shadow on the d directions that W uses most, and W2 W1 z is the best prediction of W z. `lost` is
    |W - W2 W1|^2 / |W|^2.
    """
    u, s, v = torch.linalg.svd(weight.double(), full_matrices=False)
    if size > len(s):
        raise Refused("project", f"the weights have rank {len(s)} at most", f"use `dims={len(s)}`")
    lost = float((s[size:] ** 2).sum() / (s**2).sum().clamp_min(1e-300))
    return Sphere((features.double() @ v[:size].T).float(), (u[:, :size] * s[:size]).float(), lost)


def on_sphere(model: Classifier, images: Embeddings, dims: int = 0) -> tuple[Sphere, str]:
    """Features and prototypes in 2 or 3 dimensions, and a note on what a projection loses.

    Args:
        dims: 0 takes features that have 2 or 3 dimensions already; 2 or 3 splits the last layer (W2 W1 ~ W).

    Raises:
        Refused: dims is 0 and the features have more dimensions.
    """
    head = model.head
    prototypes = head.prototypes().cpu()
    size = images.features.shape[1]
    if dims == 0:
        if size not in (2, 3):
            fix = "add `project`, or train with `embed_dim=3`"
            raise Refused("visualize sphere", f"the features have {plural(size, 'dimension')}", fix)
        return Sphere(images.features, prototypes), ""
    weight, bias = (part.cpu() for part in head.decision())
    sphere = split_last_layer(images.features, weight, dims)
    logits = sphere.features @ sphere.prototypes.T + bias
    before = (images.predictions == images.labels).double().mean().item()
    after = (logits.argmax(dim=1) == images.labels).double().mean().item()
    return sphere, (
        f"projection to {dims} dimensions: leaves out {percent(sphere.lost, 1)} of |W|^2; "
        f"accuracy on these images {percent(before)} -> {percent(after)}"
    )
