"""Muon against the singular value decomposition in float64, and against torch's SGD for what is not a filter."""

import pytest
import torch

from cifarnet.engine.muon import Muon, iterate, orthogonalise, turn


@pytest.mark.parametrize(("rows", "columns"), [(64, 216), (300, 40), (50, 50), (1, 9)])
def test_the_step_has_the_gradients_singular_vectors_and_equal_singular_values(rows, columns):
    generator = torch.Generator().manual_seed(rows)
    matrix = torch.randn(rows, columns, generator=generator) * torch.logspace(0, -1, columns)
    u, s, v = torch.linalg.svd(matrix.double(), full_matrices=False)
    rotated = u.T @ orthogonalise(matrix[None])[0].double() @ v.T  # diagonal where the singular vectors are the same
    values = rotated.diagonal()
    lifted = s > 0.003 * matrix.norm()  # what is fainter is not lifted all the way in five iterations
    assert lifted.sum() > 0.9 * len(s) and values[lifted].min() > 0.6 and values.max() < 1.25
    assert (rotated - values.diag()).abs().max() < 1e-4


@pytest.mark.parametrize("faintest", [1, 3, 6])
def test_the_gram_matrix_gives_what_the_matrix_itself_would(faintest):
    generator = torch.Generator().manual_seed(faintest)
    u, _, v = torch.linalg.svd(torch.randn(96, 864, generator=generator, dtype=torch.float64), full_matrices=False)
    values = torch.logspace(0, -faintest, 96, dtype=torch.float64)
    matrix = (u * values) @ v
    expected = iterate((matrix / matrix.norm())[None])  # float64
    torch.testing.assert_close(orthogonalise(matrix.float()[None]).double(), expected, rtol=0, atol=1e-4)


def test_scale_does_not_matter_and_nothing_stays_nothing():
    matrix = torch.randn(8, 27, generator=torch.Generator().manual_seed(0))
    several = torch.stack([matrix, 1e-12 * matrix, torch.zeros(8, 27)])
    plain, faint, nothing = orthogonalise(several)
    torch.testing.assert_close(plain, orthogonalise(matrix[None])[0])
    torch.testing.assert_close(faint, plain, rtol=1e-4, atol=1e-5)
    assert not nothing.any()


@pytest.mark.parametrize("power", range(-40, 39, 3))
def test_a_matrix_of_any_size_is_turned_alike(power):
    """From where the squares vanish, as at the end of a fit, to where they overflow."""
    matrix = torch.randn(16, 27, generator=torch.Generator().manual_seed(1))
    turned = orthogonalise((matrix.double() * 10.0**power).float()[None])
    expected = orthogonalise(matrix[None])
    torch.testing.assert_close(turned, expected, rtol=0, atol=1e-4 if power > -38 else 0.2)  # its digits are gone


def test_filters_in_one_optimizer_step_as_each_would_alone():
    generator = torch.Generator().manual_seed(2)
    shapes = [(12, 5, 3, 3), (7, 12, 1, 1), (12, 5, 3, 3), (20, 1, 3, 3)]
    start = [torch.randn(shape, generator=generator) for shape in shapes]
    start[2] = start[2].contiguous(memory_format=torch.channels_last)
    together, alone = ([parameter.clone().requires_grad_() for parameter in start] for _ in range(2))
    optimizers = [Muon(together, [], 0.1, 0.6, 0.0), *(Muon([parameter], [], 0.1, 0.6, 0.0) for parameter in alone)]
    for _ in range(3):
        for ours, theirs in zip(together, alone, strict=True):
            ours.grad = torch.randn(ours.shape, generator=generator)
            theirs.grad = ours.grad.clone()
        for optimizer in optimizers:
            optimizer.step()
    for ours, theirs, before in zip(together, alone, start, strict=True):
        torch.testing.assert_close(ours, theirs)
        assert (ours - before).abs().max() > 0.01 and ours.stride() == before.stride()


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_a_batch_of_filters_turns_as_each_would_alone(layout):  # which the optimizer does on a GPU only
    generator = torch.Generator().manual_seed(3)
    banks, directions = ([torch.randn(12, 5, 3, 3, generator=generator) for _ in range(3)] for _ in range(2))
    together = [bank.clone().contiguous(memory_format=layout) for bank in banks]
    turn(together, directions, 0.1)
    for ours, bank, direction in zip(together, banks, directions, strict=True):
        alone = bank.clone()
        turn([alone], [direction], 0.1)
        torch.testing.assert_close(ours, alone)
        assert (ours - 12**0.5 * bank / bank.norm()).norm() > 0.2


@pytest.mark.parametrize("rest_lr", [1.0, 4.0])
def test_filters_keep_their_norm_and_step_by_the_rate_and_the_rest_is_torchs_sgd(rest_lr):
    generator = torch.Generator().manual_seed(1)
    filters, matrix = (torch.randn(shape, generator=generator).requires_grad_() for shape in ((16, 8, 3, 3), (5, 7)))
    twin = matrix.detach().clone().requires_grad_()
    ours = Muon([filters], [matrix], lr=0.1, momentum=0.6, weight_decay=0.01, rest_lr=rest_lr)
    theirs = torch.optim.SGD([twin], lr=0.1 * rest_lr, momentum=0.6, weight_decay=0.01, nesterov=True)
    velocity = torch.zeros(16, 72, dtype=torch.float64)
    for _ in range(4):
        before = filters.detach().double().flatten(1)
        for parameter in (filters, matrix):
            parameter.grad = torch.randn(parameter.shape, generator=generator)
        twin.grad = matrix.grad.clone()
        gradient = filters.grad.double().flatten(1)
        ours.step()
        theirs.step()
        torch.testing.assert_close(matrix, twin)
        velocity = 0.6 * velocity + gradient
        step = (4 * before / before.norm() - filters.detach().double().flatten(1)) / 0.1
        u, _, v = torch.linalg.svd(gradient + 0.6 * velocity, full_matrices=False)
        rotated = u.T @ step @ v.T
        assert rotated.diagonal().min() > 0.6 and rotated.diagonal().max() < 1.25
        assert (rotated - rotated.diagonal().diag()).abs().max() < 1e-3
