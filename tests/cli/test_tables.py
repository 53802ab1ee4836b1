"""Numbers as the tables print them."""

import pytest

from cifarnet.cli.tables import percent
from cifarnet.cli.verify_tables import share, span


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "–"), (0.8765, "87.65%"), (0.0, "0.00%"), (1.0, "100.00%"),
        (49_999 / 50_000, ">99.99%"), (0.99994, "99.99%"), (1 / 30_000, "<0.01%"), (0.00005, "0.01%"),
    ],
)  # fmt: skip
def test_not_all_is_not_printed_as_all(value, text):
    assert percent(value) == text


def test_ends_of_an_interval_and_small_shares():
    assert span((0.5, 1.0)) == "50.00 – 100.00" and span((1e-6, 0.999999)) == "<0.01 – >99.99" and span(None) == "–"
    assert share(1 / 30_000) == "0.00333%" and share(None) == "–"
