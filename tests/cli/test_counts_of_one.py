"""One thing is one thing: nothing reads "1 images" or "1 of them are"."""

import numpy as np
import pytest
import torch
from PIL import Image

import cifarnet
from cifarnet.analysis.plots.featuremaps import number_shown
from cifarnet.analysis.verification.pair_files import read_pairs
from cifarnet.core.errors import Refused, plural
from cifarnet.data import Split, load, make_dataset
from cifarnet.data.found import patched
from cifarnet.data.identity import differences, identity_of
from cifarnet.data.sources.layouts import Seen
from cifarnet.data.sources.webdataset import number_classes
from cifarnet.engine.metrics import check_finite
from cifarnet.engine.same_data import unlike


def test_words_that_take_more_than_an_s():
    words = ((2, "search"), (1, "mated search"), (2, "class"), (2, "identity"), (2, "epoch"))
    assert [plural(*one) for one in words] == ["2 searches", "1 mated search", "2 classes", "2 identities", "2 epochs"]


def test_one_pair_of_each_kind(cli, tmp_path):
    for number, name in enumerate(("a", "b", "c")):
        Image.new("RGB", (32, 32), (40 * number, 99, 200 - 40 * number)).save(tmp_path / f"{name}.png")
    look = ("verify", "--pairs", tmp_path / "pairs.csv", "--run", "packaged", "--bootstrap", "0")
    (tmp_path / "pairs.csv").write_text("a,b,same\na.png,b.png,1\na.png,c.png,0\n")
    assert "3 images of 2 identities, 1 genuine and 1 impostor pair\n" in cli(*look)[1]
    (tmp_path / "pairs.csv").write_text("a,b,same\na.png,b.png,1\na.png,c.png,0\nb.png,c.png,0\n")
    assert "3 images of 2 identities, 1 genuine and 2 impostor pairs\n" in cli(*look)[1]


def test_data_of_one_image():
    one = Split(torch.zeros(1, 3, 32, 32, dtype=torch.uint8), torch.zeros(1, dtype=torch.int64))
    two = Split(torch.zeros(2, 3, 32, 32, dtype=torch.uint8), torch.zeros(2, dtype=torch.int64))
    assert (repr(one), repr(two)) == ("Split(1 image, 3 x 32 x 32)", "Split(2 images, 3 x 32 x 32)")
    assert repr(make_dataset("mine", ("cat",), one, two)) == "Dataset(mine, 1 class, 1 train, 2 test)"
    small, large = identity_of(("cat",), one, two), identity_of(("cat", "dog"), two, one)
    told = ["there was 1 training image and are 2", "there were 2 test images and is 1"]
    assert differences(small, large) == ["it had 1 class and has 2", *told]
    assert unlike(("cat",), ("cat", "dog")) == "it has 1 class, the model 2"
    assert unlike(("cat", "dog"), ("fox", "cow")).endswith(", and 1 more differs")
    assert unlike(("cat", "dog", "owl"), ("fox", "cow", "emu")).endswith(", and 2 more differ")


def test_a_sample_of_features():
    """Of the data set of features one sample is taken."""
    data = load("synthetic-identities", classes=2, dim=4)
    assert repr(data.train.subset(torch.tensor([0]))) == "FeatureSplit(1 sample of 4 features)"


def test_files():
    assert (patched(1), patched(2)) == ("patched: 1 image", "patched: 2 images")
    files = tuple(f"{name}.{suffix}" for suffix in ("a", "b", "c", "d") for name in "xy")[:-1]
    assert Seen(files=files).in_words() == "2 .a, 2 .b, 2 .c, 1 other file"


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: number_classes(np.array([3])), "there is 1 image;"),
        (lambda: check_finite(torch.tensor([[float("nan")]])), "of 1 of 1 sample are not finite;"),
        (lambda: cifarnet.verification([[1.0, 0]], [0, 0]), "1 embedding has labels of shape"),
    ],
)
def test_messages(call, words):
    with pytest.raises(cifarnet.CifarnetError, match=words):
        call()


def test_lists_of_pairs(tmp_path):
    path = tmp_path / "pairs.txt"
    path.write_text("1\nada\t1\t2\n")
    with pytest.raises(Refused, match="promises 2 pairs, 1 line follows;"):
        read_pairs(path)
    path.write_text("a,b,same\nx\n")
    with pytest.raises(Refused, match="has 1 cell, the first line 3"):
        read_pairs(path)


def test_maps_with_one_channel():
    assert [number_shown(*one) for one in ((1, 1), (1, 4), (4, 4))] == [
        "1 channel",
        "1 of 4 channels",
        "all 4 channels",
    ]
