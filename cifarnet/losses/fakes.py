"""The shapes and types of what the compiled margin losses return, for torch.compile (one-vs-all's: one_vs_all.py)."""

import math
from typing import Any

import torch


def register_fakes(extension: Any) -> None:
    """Output shapes for torch.compile; the cosines come back for backward unless there are too many of them."""

    @torch.library.register_fake("cifarnet::margin_loss")
    def loss(features, weight, labels, state, call, training, margins=None, weights=None):  # type: ignore[no-untyped-def]
        samples, classes = features.shape[0], math.prod(weight.shape[:-1])  # numel() would fix C in a graph of any C
        kept = samples if samples * classes <= extension.kept_cosines() else 0
        new = features.new_empty
        return (
            new((), dtype=torch.float32),
            torch.empty_like(state),
            new((samples, extension.statistics()), dtype=torch.float32),
            new((kept, classes), dtype=torch.float32),
        )

    @torch.library.register_fake("cifarnet::nearest_centres")
    def nearest(features, weight, labels):  # type: ignore[no-untyped-def]
        return torch.empty_like(labels)

    @torch.library.register_fake("cifarnet::normal_draws")
    def draws(state, ahead, count, mean, std):  # type: ignore[no-untyped-def]
        return state.new_empty(count)

    @torch.library.register_fake("cifarnet::margin_loss_backward")
    def backward(grad, features, weight, labels, statistics, cosines, want_features, want_weight):  # type: ignore[no-untyped-def]
        return (
            features.new_empty(features.shape if want_features else 0),
            weight.new_empty(weight.shape if want_weight else 0),
        )
