"""The numbers behind the explorer: for each image what a run makes of it, as arrays."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from cifarnet.analysis.embedding import Sphere, angles_to, on_sphere, project, split_last_layer
from cifarnet.analysis.features import Embeddings
from cifarnet.core.callers_random import callers_random
from cifarnet.core.errors import Refused
from cifarnet.losses import LOSSES
from cifarnet.models.calibration import probabilities
from cifarnet.models.classifier import Classifier
from cifarnet.models.model_info import ModelInfo

FEWEST = 20  # images: fewer make no map
NEIGHBORS = 15  # of the maps; n_neighbors of UMAP, perplexity of t-SNE
NEAREST = 5  # images that the page names beside one


@dataclass(frozen=True)
class Seen:
    """N images as a run sees them. Angles in degrees.

    Args:
        name, title: of the run, and of its model, loss and data.
        maps: by method, float [N, 2]; missing: why there is none by a method.
        directions: unit vectors of the features in three dimensions [N, 3]; prototypes: those of the classes [C, 3].
        lost: the part of the last layer's energy that the three dimensions leave out.
        predictions: int [N]; probabilities: of these [N].
        own, other: angles to the label's prototype and to the nearest of another class [N]; rival: that class, int [N].
        norms: lengths of the features [N]; neighbors: positions of the nearest images, nearest first, int [N, 5].
    """

    name: str
    title: str
    maps: dict[str, np.ndarray]
    missing: dict[str, str]
    directions: np.ndarray
    prototypes: np.ndarray
    lost: float
    predictions: np.ndarray
    probabilities: np.ndarray
    own: np.ndarray
    other: np.ndarray
    rival: np.ndarray
    norms: np.ndarray
    neighbors: np.ndarray


def gather(
    model: Classifier,
    info: ModelInfo,
    found: Embeddings,
    *,
    name: str,
    title: str,
    methods: Sequence[str],
    seed: int,
) -> Seen:
    """The images in `found` as a model sees them.

    Maps and neighbours compare angles where the model's loss does, else distances. Probabilities are those that `predict` gives.

    Args:
        model, info: as `load_model` returns them.
        name, title: as in `Seen`.
        methods: of `METHODS` in embedding.py.
        seed: of the maps.

    Raises:
        Refused: fewer than `FEWEST` images.
    """
    count = len(found.labels)
    if count < FEWEST:
        raise Refused("IMAGES", f"{count} are too few for a map", f"take {FEWEST} or more")
    metric = "cosine" if LOSSES[info.config.loss].angular else "euclidean"
    near = min(NEIGHBORS, count - 1)
    sphere = in_space(model, found)
    prototypes = model.head.prototypes().cpu()
    angles = angles_to(found.features, prototypes)
    own = angles.gather(1, found.labels[:, None])[:, 0]
    other, rival = angles.scatter(1, found.labels[:, None], float("inf")).min(dim=1)
    maps, missing = maps_of(found.features, methods, metric, near, seed)
    return Seen(
        name,
        title,
        maps,
        missing,
        unit3(sphere.features),
        unit3(sphere.prototypes),
        sphere.lost,
        found.predictions.numpy(),
        probabilities(found.logits, info.calibration).amax(dim=1).numpy(),
        own.numpy(),
        other.numpy(),
        rival.numpy(),
        found.features.double().norm(dim=1).numpy(),
        nearest_images(found.features, metric),
    )


def maps_of(
    features: Tensor, methods: Sequence[str], metric: str, neighbors: int, seed: int
) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """The maps of features [N, E] by method, and why there is none by the others: the features may have collapsed."""
    maps, missing = {}, {}
    for method in methods:
        try:
            maps[method] = project(features, method, metric=metric, neighbors=neighbors, seed=seed)
        except Refused as error:
            missing[method] = error.why
        except (ArithmeticError, ValueError, TypeError, RuntimeError) as error:  # of the library that makes it
            missing[method] = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
    return maps, missing


def in_space(model: Classifier, found: Embeddings) -> Sphere:
    """Features and prototypes in two or three dimensions: as they are, or by the last layer split in two."""
    if found.features.shape[1] in (2, 3):
        return on_sphere(model, found)[0]
    weight = model.head.decision()[0].cpu()
    return split_last_layer(found.features, weight, min(3, *weight.shape))


def unit3(points: Tensor) -> np.ndarray:
    """Directions [N, 3] of points [N, 1 to 3], zeros for dimensions that are not there."""
    return F.pad(F.normalize(points.double(), dim=1), (0, 3 - points.shape[1])).numpy()


def nearest_images(features: Tensor, metric: str) -> np.ndarray:
    """For each of the features [N, E] the positions of the `NEAREST` others, nearest first, int [N, 5]."""
    with callers_random():
        from sklearn.neighbors import NearestNeighbors

    points = features.double().numpy()
    finder = NearestNeighbors(n_neighbors=min(NEAREST, len(points) - 1), metric=metric, algorithm="brute")
    return np.asarray(finder.fit(points).kneighbors(return_distance=False))


def check_same_images(names: Sequence[str], labels: Sequence[Tensor], pictures: Sequence[np.ndarray]) -> None:
    """Raises Refused where the second of two runs was shown other images or labels than the first."""
    for name, theirs, shown in zip(names[1:], labels[1:], pictures[1:], strict=True):
        alike = torch.equal(labels[0], theirs)
        if not alike or (shown.shape == pictures[0].shape and not np.array_equal(shown, pictures[0])):
            raise Refused(
                f"{names[0]} and {name}",
                "see different images in this split",
                "name two runs on the same data, or make a page of each",
            )
