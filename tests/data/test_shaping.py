"""Properties of the training split, against the formulas written out again: which classes, how many of each, which labels."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from cifarnet.core.class_names import Numbers
from cifarnet.core.config import TrainConfig
from cifarnet.core.errors import Refused
from cifarnet.data import Dataset, StreamedSplit, load
from cifarnet.data.dataset import Split, make_dataset
from cifarnet.data.images import index
from cifarnet.data.selection import held_out_classes, long_tail, noisy, stratified
from cifarnet.data.shape_options import asked_classes, shaping_words
from cifarnet.data.shaping import describe_shape, shape, unseen_classes

CLASSES = ("Ant", "bee", "cat", "dog", "eel")


def labels_of(sizes, seed=0):
    """So many labels of each class, mixed."""
    labels = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
    return labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))]


def made(sizes=(30, 28, 26, 24, 22), tested=(6, 5, 4, 3, 2)) -> Dataset:
    """Random images, each of its own pixels."""
    generator = torch.Generator().manual_seed(1)
    parts = []
    for counts in (sizes, tested):
        labels = labels_of(counts, seed=len(parts))
        parts.append(Split(torch.randint(256, (len(labels), 3, 8, 8), dtype=torch.uint8, generator=generator), labels))
    return make_dataset("made", CLASSES[: len(sizes)], *parts)


def keys(split):
    """Each image as its bytes, with its label."""
    return {image.numpy().tobytes(): label for image, label in zip(split.images, split.labels.tolist(), strict=True)}


def test_classes_are_held_out_by_number_and_by_name():
    assert held_out_classes(CLASSES, "2") == [3, 4] and held_out_classes(CLASSES, " dog, ANT,dog") == [0, 3]
    numbered = tuple(map(str, range(5)))
    assert held_out_classes(numbered, "1") == [4] and held_out_classes(numbered, "1,") == [1]
    assert held_out_classes(("a", "A", "b", "c"), "a") == [0]  # its own spelling before another
    persian = "می\u200cخواهم"  # with a joiner, which configurations of earlier versions hold escaped
    assert held_out_classes((persian, "b", "c", "d"), persian.replace("\u200c", r"\u200c")) == [0]
    for asked, said in [
        ("beee", "'beee' is no class; did you mean bee?"), ("4", "leaves 1 class to train; hold out 1 to 3 of 5"), ("0", "names no class"),
        ("9" * 30, "leaves 0 classes"), (" , ", "names no class"), ("ant,bee,cat,dog", "leaves 1 class"), ("\N{SUPERSCRIPT TWO}", "no class"),
    ]:  # fmt: skip
        with pytest.raises(Refused) as raised:
            held_out_classes(CLASSES, asked)
        assert said in str(raised.value)
    with pytest.raises(Refused, match="and 980 more"):
        held_out_classes(Numbers(1000), "airplane")

    people = ("Bob", "Ben", "Çelik, Ümit", '"Al"', "x=y")  # a list had no way to name the third
    assert held_out_classes(people, 'Bob, "çelik, Ümit" ,"Al"') == [0, 2, 3]
    for listed in (["Çelik, Ümit"], ["x=y", "Çelik, Ümit"]):
        config = TrainConfig(hold_out_classes=listed).check()
        assert held_out_classes(people, config.hold_out_classes) == sorted(map(people.index, listed))
        assert shaping_words(config) == "without " + ", ".join(listed).replace("Çelik, Ümit", '"Çelik, Ümit"')
    with pytest.raises(Refused, match='did you mean "Çelik, Ümit", in double quotes for its comma'):
        held_out_classes(people, "Çelik, Ümit")

    assert asked_classes('"' + "," * 10**6) == ['"']  # a text out of any file: a search from comma to comma takes hours
    assert asked_classes('a "b, c", "d,e"f,  "g,,h"\t,"i"') == ['a "b', 'c"', '"d', 'e"f', "g,,h", '"i"']

    data = made()
    shaped = shape(data, TrainConfig(hold_out_classes="Bee,dog")).dataset
    assert shaped.classes == ("Ant", "cat", "eel")
    for part, whole in ((shaped.train, data.train), (shaped.test, data.test)):
        new = {0: 0, 2: 1, 4: 2}
        assert keys(part) == {image: new[label] for image, label in keys(whole).items() if label in new}
    for listed in (["Bee", "dog"], ("dog", "bee")):  # as a caller in Python has them
        config = TrainConfig(hold_out_classes=listed).check()
        assert shape(data, config).dataset.classes == shaped.classes
        assert TrainConfig.from_dict(config.to_dict()) == config
    for wrong, said in ((['a,"b'], "'a,\"b' has a comma and a double quote in it"), ([3], "3 is no name of a class")):
        with pytest.raises(Refused, match=f"hold_out_classes: {said}"):
            TrainConfig(hold_out_classes=wrong)
    assert held_out_classes(("1", "2", "3", "4"), TrainConfig(hold_out_classes=["1"]).hold_out_classes) == [0]
    unseen, names = unseen_classes(data, TrainConfig(hold_out_classes="dog,bee"))
    assert names == ("bee", "dog") and keys(unseen) == {
        i: (n - 1) // 2 for i, n in keys(data.test).items() if n in (1, 3)
    }
    with pytest.raises(Refused, match="held no classes out"):
        unseen_classes(data, TrainConfig())


def test_a_subset_has_of_each_class_its_share():
    """By Hamilton's method: the whole part of each share, then one more for the largest remainders."""
    for sizes, count in [
        ((30, 28, 26, 24, 22), 37),
        ((500, 300, 200), 10),
        ((7, 7, 7), 21),
        ((1, 1, 2), 3),
        ((40, 60), 99),
    ]:
        labels = labels_of(sizes)
        chosen = stratified(labels, count, seed=3)
        shares = [count * size / sum(sizes) for size in sizes]
        expected = [int(share) for share in shares]
        for n in sorted(range(len(sizes)), key=lambda n: expected[n] - shares[n])[: count - sum(expected)]:
            expected[n] += 1
        assert labels[chosen].bincount().tolist() == expected and len(chosen.unique()) == count
        assert chosen.tolist() == sorted(chosen.tolist()) == stratified(labels, count, seed=3).tolist()
    labels = labels_of((1000, 3, 2, 1, 0, 1))
    # One of each that is there.
    assert labels[stratified(labels, 10, 0)].bincount(minlength=6).tolist() == [6, 1, 1, 1, 0, 1]
    assert not torch.equal(stratified(labels, 10, 0), stratified(labels, 10, 1))
    for count in (4, 1008):
        with pytest.raises(Refused, match="give 5 to 1,007"):
            stratified(labels, count, 0)


def test_a_long_tail_follows_the_formula():
    labels = labels_of([500] * 10)
    chosen = long_tail(labels, 10, 100, seed=0)
    expected = [round(500 * 100 ** (-j / 9)) for j in range(10)]
    assert expected[0] == 500 and expected[-1] == 5 and labels[chosen].bincount().tolist() == expected
    again, other = long_tail(labels, 10, 100, seed=0), long_tail(labels, 10, 100, seed=1)
    assert torch.equal(chosen, again) and not torch.equal(chosen, other)
    uneven = labels_of([100, 60, 200, 3])  # a class that has fewer gives all it has; of each at least one
    counts = uneven[long_tail(uneven, 4, 10_000, seed=0)].bincount().tolist()
    assert counts == [min(have, max(round(200 * 10_000 ** (-j / 3)), 1)) for j, have in enumerate([100, 60, 200, 3])]


def test_label_noise_is_exact_and_even():
    labels = labels_of([4000] * 10)
    for share in (0.0, 0.123456, 0.4, 1.0):
        changed = noisy(labels, 10, share, seed=5)
        assert int((changed != labels).sum()) == round(share * 40_000)
    steps = ((changed - labels) % 10).bincount(minlength=10).double().numpy()  # 40,000 changes, 9 kinds
    expected, deviation = 40_000 / 9, (40_000 / 9 * 8 / 9) ** 0.5
    assert steps[0] == 0 and (np.abs(steps[1:] - expected) < 5 * deviation).all()
    wrong = (noisy(labels, 10, 0.4, seed=5) != labels).double()
    assert abs(wrong[:20_000].mean() - 0.4) < 5 * (0.24 / 20_000) ** 0.5  # anywhere in the split
    assert not torch.equal(changed, noisy(labels, 10, 1.0, seed=6))


def test_all_together():
    """In their order: classes, subset, long tail, noise, validation; the test split and the statistics with them."""
    data = made()
    config = TrainConfig(hold_out_classes="1", subset=60, imbalance=4.0, label_noise=0.25, val_fraction=0.2, seed=3)
    shaped = shape(data, config)
    whole, found = keys(data.train), keys(shaped.dataset.train)
    true = np.bincount([whole[image] for image in found])
    sizes = labels_of((30, 28, 26, 24))
    held = sizes[stratified(sizes, 60, 0)].bincount().tolist()
    assert true.tolist() == [min(have, round(max(held) * 4 ** (-j / 3))) for j, have in enumerate(held)]
    assert sum(whole[image] != label for image, label in found.items()) == round(0.25 * len(found))
    parts = keys(shaped.train), keys(shaped.validation)
    assert parts[0] | parts[1] == found and not parts[0].keys() & parts[1].keys()  # noisy labels stay in both
    assert keys(shaped.dataset.test) == {image: label for image, label in keys(data.test).items() if label < 4}
    pixels = shaped.dataset.train.images.double().numpy() / 255
    np.testing.assert_allclose(shaped.dataset.mean, pixels.mean((0, 2, 3)), rtol=1e-12)
    np.testing.assert_allclose(shaped.dataset.std, pixels.std((0, 2, 3)), rtol=1e-12)
    assert [part.known_hashes is not None for part in (shaped.train, shaped.dataset.test)] == [True, True]

    said, identity = describe_shape(data, config), shaped.identity()
    assert said["classes"] == ["Ant", "bee", "cat", "dog"] and said["held_out_classes"] == ["eel"]
    assert said["train_images"] == len(shaped.train) and said["validation_images"] == len(shaped.validation)
    assert said["images_per_class"] == np.bincount(shaped.train.labels, minlength=4).tolist()
    assert said["wrong_labels"] == round(0.25 * len(found)) and said["test_images"] == 18
    assert said["options"] == {"hold_out_classes": "1", "subset": 60, "imbalance": 4.0, "label_noise": 0.25}
    assert shaping_words(config) == "without the last 1 class, a subset of 60 images, long tail 4:1, 25% wrong labels"

    assert shape(data, TrainConfig()).dataset is data and shaping_words(TrainConfig()) == ""
    plain = shape(data, TrainConfig()).identity()
    assert said["source_digest"] == identity.source == plain.digest == plain.source
    assert (
        len(
            {identity.digest, plain.digest}
            | {shape(data, TrainConfig(label_noise=p)).identity().digest for p in (0.1, 0.2)}
        )
        == 4
    )


@pytest.mark.parametrize(
    "options", [{"subset": 60}, {"imbalance": 4.0}, {"label_noise": 0.25}, {"val_fraction": 0.2}], ids=str
)
def test_another_seed_shapes_in_another_way(options):
    data = made()
    one, again, other = (keys(shape(data, TrainConfig(seed=seed, **options)).train) for seed in (1, 1, 2))
    assert one == again and one != other and len(one) == len(other)


def test_a_class_of_which_nothing_can_be_held_out_is_named():
    with pytest.raises(
        Refused, match=r"^val_fraction: the class cat has a single training image, .*; add images of it"
    ):
        shape(made(sizes=(30, 28, 26)), TrainConfig(imbalance=30.0, val_fraction=0.2))


def test_the_canonical_order_is_that_of_the_content():
    """Of the same images in any order it makes one split, also after a choice; the digest is the same with and without it."""
    data = made()
    mixed = replace(data, train=data.train.subset(torch.randperm(130)), test=data.test.subset(torch.randperm(20)))
    config = TrainConfig(canonical_order=True, hold_out_classes="2", subset=50, label_noise=0.5)
    one, other = (shape(found, config).dataset for found in (data, mixed))
    for part in ("train", "test"):
        mine, its = getattr(one, part), getattr(other, part)
        assert torch.equal(mine.images, its.images) and torch.equal(mine.labels, its.labels)
    sorted_alone = shape(mixed, TrainConfig(canonical_order=True))
    hashes = [bytes(row.tolist()) for row in sorted_alone.train.image_hashes]
    assert hashes == sorted(hashes) and keys(sorted_alone.train) == keys(data.train)
    assert sorted_alone.identity().digest == shape(data, TrainConfig()).identity().digest
    twins = Split(data.train.images[:1].repeat(3, 1, 1, 1), torch.tensor([2, 0, 1]))  # one image, three labels
    assert shape(replace(data, train=twins), TrainConfig(canonical_order=True)).train.labels.tolist() == [0, 1, 2]


def test_unseen_images_come_in_canonical_order_too():
    data, config = made(), TrainConfig(canonical_order=True, hold_out_classes="dog,bee")
    mixed = replace(data, test=data.test.subset(torch.arange(20).flip(0)))
    (one, names), (other, _) = (unseen_classes(found, config) for found in (data, mixed))
    assert names == ("bee", "dog") and torch.equal(one.images, other.images) and torch.equal(one.labels, other.labels)


def test_images_that_stay_on_the_disk_are_shaped_alike(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    data = made((9, 8, 7), (3, 2, 2))
    for part, split in (("train", data.train), ("test", data.test)):
        for n, (image, label) in enumerate(zip(split.images, split.labels.tolist(), strict=True)):
            (tmp_path / part / CLASSES[label]).mkdir(parents=True, exist_ok=True)
            Image.fromarray(image.permute(1, 2, 0).numpy()).save(tmp_path / part / CLASSES[label] / f"{n:02}.png")
    memory = load("folder", tmp_path, image_size=8)
    monkeypatch.setattr(index, "MEMORY", 100)
    disk = load("folder", tmp_path, image_size=8)
    assert isinstance(disk.train, StreamedSplit)
    config = TrainConfig(hold_out_classes="1", subset=12, imbalance=2.0, label_noise=0.3, val_fraction=0.2)
    one, other = shape(memory, config), shape(disk, config)
    assert (one.dataset.mean, one.dataset.std) == (other.dataset.mean, other.dataset.std) != (memory.mean, memory.std)
    for mine, its in (
        (one.train, other.train),
        (one.validation, other.validation),
        (one.dataset.test, other.dataset.test),
    ):
        assert torch.equal(mine.labels, its.labels)
        assert torch.equal(mine.images, next(its.batches([torch.arange(len(its))])))
    noise = [shape(disk, TrainConfig(label_noise=share)).identity() for share in (0.0, 0.5)]
    assert noise[0].digest != noise[1].digest and noise[0].source == noise[1].source
    with pytest.raises(Refused, match="canonical_order: this set is too large to be held in memory"):
        shape(disk, TrainConfig(canonical_order=True))
    unsummed = replace(disk, train=replace(disk.train, sums=None))  # statistics that nobody can tell: the source's
    assert shape(unsummed, config).dataset.mean == disk.mean
