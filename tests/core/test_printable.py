"""What is shown and what is escaped: joiners within words and emoji are shown, and hide nothing elsewhere."""

import json

import pytest
import torch

from cifarnet.core.class_names import with_joiners, without_joiners
from cifarnet.core.errors import is_printable, printable
from cifarnet.data import Split
from cifarnet.data.identity import identity_of
from cifarnet.models.model_info import parse_info

# A family, a couple with a heart (U+FE0F before the joiner), "I want" in Persian, "ksha" in halves in Devanagari, Sinhala "shri".
JOINED = [
    "👨\u200d👩\u200d👧",
    "👩\u200d❤\ufe0f\u200d👨",
    "می\u200cخواهم",
    "क्\u200dष",
    "ශ්\u200dරී",
]
HIDING = {
    "\u200d猫": "\\u200d猫",
    "猫\u200c": "猫\\u200c",
    "a\u200db": "a\\u200db",
    "猫\u200da": "猫\\u200da",
    "猫\u200d\u200d犬": "猫\\u200d\\u200d犬",
    "猫\u200d\u202e犬": "猫\\u200d\\u202e犬",
    "猫\u3164\u200d犬": "猫\\u3164\\u200d犬",
    "猫\u200b犬": "猫\\u200b犬",
    "猫\u200f犬": "猫\\u200f犬",
}


@pytest.mark.parametrize("text", JOINED)
def test_joiners_within_a_word_are_shown(text):
    assert printable(text) == text and is_printable(text) and printable(f"a {text}, b") == f"a {text}, b"


@pytest.mark.parametrize(("text", "shown"), HIDING.items())
def test_joiners_that_hide_are_escaped(text, shown):
    assert printable(text) == shown == printable(shown) and not is_printable(text.replace("\u3164", "\u200b"))


def test_runs_of_versions_that_escaped_joiners_are_of_the_same_data():
    """Their checkpoints hold the names escaped: they are read as they are now, and digests stay what they were."""
    split = Split(torch.zeros(2, 3, 4, 4, dtype=torch.uint8), torch.arange(2))
    old = [name.encode("unicode_escape").decode() if name.isascii() else without_joiners(name) for name in JOINED]
    assert all("\u200c" not in name and "\u200d" not in name for name in old) and "می\\u200cخواهم" in old
    assert [with_joiners(name) for name in old] == JOINED and with_joiners("a\\u200db") == "a\\u200db"
    assert identity_of(JOINED, split, split) == identity_of(old, split, split)
    text = {"config": {}, "classes": old, "mean": [0.5] * 3, "std": [0.5] * 3, "epoch": 1}
    text |= {"metrics": {}, "backend": "", "versions": {}}
    assert parse_info(json.dumps(text), "path").classes == tuple(JOINED)
    assert parse_info(json.dumps(text | {"classes": JOINED}), "path").classes == tuple(JOINED)
