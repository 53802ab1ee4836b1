"""The compiled margin head against the float64 reference at any shape."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from margin_reference import ORIGINAL
from test_kernels import DEVICES, EXTENSION, KEPT, check, compiled, restored, sample

assert restored  # a fixture, used automatically here too


@pytest.mark.parametrize("device", DEVICES)
@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    n=st.integers(1, 257),
    d=st.integers(1, 1030),
    c=st.one_of(st.integers(2, 70), st.integers(71, 20_000)),
    loss=st.sampled_from(list(ORIGINAL)),
    kept=st.sampled_from([0, KEPT]),
    seed=st.integers(0, 1000),
)
def test_any_shape(n, d, c, loss, kept, seed, device):
    EXTENSION.keep_cosines(kept)
    c = min(c, max(2, 3_000_000 // (n + d)))  # the float64 reference's memory and time
    batch = sample(loss, n, d, c, device, seed=seed)
    if d == 1:  # every cosine is +-1, where the reference's derivative does not exist
        assert all(x.isfinite().all() for x in compiled(loss, *batch))
        return
    # In 2 or 3 dimensions cosines come close to 1, where sin is ill-conditioned.
    check(loss, batch, 1e-5 if d >= 4 else 1e-3)
