"""Angles, choices and projections against NumPy and scikit-learn."""

import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA

from cifarnet.analysis.embedding import angles_to, choose_balanced, measure_angles, on_sphere, project, split_last_layer
from cifarnet.analysis.features import Embeddings
from cifarnet.core.config import TrainConfig
from cifarnet.core.errors import Refused
from cifarnet.models.classifier import build_model


@pytest.fixture
def cloud():
    generator = torch.Generator().manual_seed(1)
    return torch.randn(60, 5, generator=generator), torch.randn(4, 5, generator=generator), torch.arange(60) % 4


def test_angles_against_numpy(cloud):
    features, prototypes, labels = cloud
    z, w = features.double().numpy(), prototypes.double().numpy()
    expected = np.empty((60, 4))
    for i in range(60):
        for j in range(4):
            cosine = np.dot(z[i], w[j]) / np.linalg.norm(z[i]) / np.linalg.norm(w[j])
            expected[i, j] = np.degrees(np.arccos(cosine))
    np.testing.assert_allclose(angles_to(features, prototypes).numpy(), expected, rtol=1e-12)
    found = measure_angles(features, labels, prototypes)
    np.testing.assert_allclose(found.own, [expected[i, i % 4] for i in range(60)], rtol=1e-12)
    others = [min(expected[i, j] for j in range(4) if j != i % 4) for i in range(60)]
    np.testing.assert_allclose(found.nearest, others, rtol=1e-12)
    np.testing.assert_allclose(found.norms, np.linalg.norm(z, axis=1), rtol=1e-12)
    pairs = [
        np.dot(w[i], w[j]) / np.linalg.norm(w[i]) / np.linalg.norm(w[j]) for i in range(4) for j in range(i + 1, 4)
    ]
    np.testing.assert_allclose(sorted(found.cosines), sorted(pairs), rtol=1e-12)


def test_angles_at_the_ends():
    same = angles_to(torch.tensor([[3.0, 4.0]]), torch.tensor([[6.0, 8.0], [-3.0, -4.0]]))
    torch.testing.assert_close(same, torch.tensor([[0.0, 180.0]], dtype=torch.float64), atol=2e-6, rtol=0)


def test_balanced_choice():
    labels = torch.tensor([0] * 100 + [1] * 100 + [2] * 3)
    chosen = choose_balanced(labels, 23, seed=5)
    assert len(set(chosen.tolist())) == 23
    assert torch.bincount(labels[chosen]).tolist() == [10, 10, 3]
    assert torch.equal(chosen, choose_balanced(labels, 23, seed=5))
    assert not torch.equal(chosen, choose_balanced(labels, 23, seed=6))
    assert torch.equal(choose_balanced(labels, 999, 0), torch.arange(203))


def test_balanced_choice_as_in_the_report():
    labels = torch.arange(10).repeat(1000)
    assert torch.bincount(labels[choose_balanced(labels, 500, 17)]).tolist() == [50] * 10


def test_pca_against_scikit_learn(cloud):
    expected = PCA(2, svd_solver="full").fit_transform(cloud[0].double().numpy())
    np.testing.assert_allclose(project(cloud[0], "pca", metric="euclidean"), expected, atol=1e-9)


def test_cosine_pca_knows_no_lengths(cloud):
    plain = project(cloud[0], "pca", metric="cosine")
    stretched = project(cloud[0] * torch.linspace(0.1, 9, 60)[:, None], "pca", metric="cosine")
    np.testing.assert_allclose(plain, stretched, atol=1e-6)


def test_tsne_keeps_clusters_apart():
    generator = torch.Generator().manual_seed(0)
    centres = 20 * torch.eye(3)
    points = (centres[:, None] + torch.randn(3, 15, 3, generator=generator)).flatten(0, 1)
    plane = project(points, "tsne", metric="euclidean", neighbors=6)
    groups = plane.reshape(3, 15, 2)
    middles = groups.mean(axis=1)
    spread = np.linalg.norm(groups - middles[:, None], axis=2).mean()
    apart = min(np.linalg.norm(middles[i] - middles[j]) for i, j in ((0, 1), (0, 2), (1, 2)))
    assert apart > 2 * spread


def test_torch_keeps_its_threads():
    """In a process of its own: Numba starts its threads once in each. One loop of Numba's stands for all of UMAP's."""
    program = """
import sys, types
import numba, torch
from cifarnet.analysis.embedding import project

@numba.njit(parallel=True)
def total(count):
    found = 0
    for number in numba.prange(count):
        found += number
    return found

class Loop:
    def __init__(self, **options):
        pass
    def fit_transform(self, points):
        total(len(points))
        print(torch.get_num_threads())
        return points[:, :2]

sys.modules["umap"] = types.SimpleNamespace(UMAP=Loop)
torch.set_num_threads(1)
assert torch.get_num_threads() == 1  # torch sets it up when it is first asked
project(torch.randn(20, 3), "umap", metric="cosine")
print(torch.get_num_threads())
"""
    environment = {**os.environ, "NUMBA_NUM_THREADS": "3"}  # as many where there is one core
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment)
    assert (done.stdout.split(), done.returncode) == (["3", "1"], 0), done.stderr


def test_too_few_points_are_refused(cloud):
    with pytest.raises(Refused, match="neighbors: 6 neighbours need 7 images or more, and there are 6"):
        project(cloud[0][:6], "umap", metric="cosine", neighbors=6)
    with pytest.raises(Refused, match="choose from umap, tsne, pca"):
        project(cloud[0], "lda", metric="cosine")


@pytest.mark.parametrize("size", [2, 3])
def test_split_of_the_last_layer_is_the_best_of_its_rank(size):
    generator = torch.Generator().manual_seed(0)
    weight, features = torch.randn(10, 32, generator=generator), torch.randn(7, 32, generator=generator)
    sphere = split_last_layer(features, weight, size)
    u, s, vt = np.linalg.svd(weight.double().numpy(), full_matrices=False)
    best = (u[:, :size] * s[:size]) @ vt[:size]
    product = sphere.features.double().numpy() @ sphere.prototypes.double().numpy().T
    np.testing.assert_allclose(product, features.double().numpy() @ best.T, atol=1e-4)
    assert sphere.lost == pytest.approx(
        np.linalg.norm(weight.numpy() - best) ** 2 / np.linalg.norm(weight.numpy()) ** 2
    )
    assert sphere.lost == pytest.approx((s[size:] ** 2).sum() / (s**2).sum())


def test_nothing_is_lost_where_the_rank_is_there():
    weight = torch.randn(10, 3) @ torch.randn(3, 32)
    assert split_last_layer(torch.randn(5, 32), weight, 3).lost == pytest.approx(0, abs=1e-9)


def test_sphere_needs_few_dimensions():
    model = build_model(TrainConfig(arch="baseline"), 10)
    images = Embeddings(torch.randn(20, 64), torch.randn(20, 10), torch.arange(20) % 10)
    with pytest.raises(Refused, match="64 dimensions; add `project`, or train with `embed_dim=3`"):
        on_sphere(model, images)
    sphere, note = on_sphere(model, images, dims=3)
    assert sphere.features.shape == (20, 3) and sphere.prototypes.shape == (10, 3)
    assert f"{100 * sphere.lost:.1f}%" in note
