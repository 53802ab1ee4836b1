"""The configuration refuses what cannot be, and says what can."""

import dataclasses
import math

import pytest

from cifarnet.core.config import TrainConfig
from cifarnet.core.errors import Refused
from cifarnet.core.fields import flag
from cifarnet.data import DATASETS
from cifarnet.data.augment.batch import POLICIES
from cifarnet.engine.recipes import RECIPES, recipe_values
from cifarnet.losses import LOSSES, build_head
from cifarnet.models import ARCHS

FIELDS = {item.name: item for item in dataclasses.fields(TrainConfig)}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("lr", -1.0),
        ("lr", math.nan),
        ("lr", math.inf),
        ("margin", math.nan),
        ("scale", 0.0),
        ("batch_size", 0),
        ("epochs", -1),
        ("val_fraction", 1.0),
        ("warmup", 1.5),
        ("seed", -1),
        ("momentum", 1.0),
        ("label_smoothing", 1.0),
        ("eval_every", 0),
        ("workers", -1),
        ("image_size", 100_000),
    ],
)
def test_numbers_out_of_range_are_refused(name, value):
    with pytest.raises(Refused, match=rf"{flag(name)}: .* is out of range; give a finite number (at|above)") as caught:
        TrainConfig(**{name: value}).check()
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("name", ["stem", "neck", "augment", "optimizer", "schedule", "precision", "backend", "init"])
def test_unknown_words_list_the_known(name):
    with pytest.raises(Refused, match="choose from " + FIELDS[name].metadata["choices"][0]):
        TrainConfig(**{name: "nonsense"}).check()


@pytest.mark.parametrize(
    "values",
    [{"neck": "bn"}, {"label_smoothing": 0.1, "loss": "arcface"}, {"coarse": True}],
)
def test_what_does_not_go_together(values):
    with pytest.raises(Refused):
        TrainConfig(**values).check()


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"lrr": 1}, "unknown option 'lrr'"),
        ({"lr": "fast"}, "lr cannot be 'fast'"),
        ({"epochs": 1.5}, "epochs cannot be"),
        ({"epochs": True}, "epochs cannot be"),
        ({"compile": 1}, "compile cannot be"),
        ([1], "not a table"),
    ],
)
def test_plain_values_are_checked(values, words):
    with pytest.raises(Refused, match=words):
        TrainConfig.from_dict(values, "file")


def test_round_trip():
    config = TrainConfig(lr=1, margin=None, scale=3)
    assert TrainConfig.from_dict(config.to_dict()) == config


def test_help_names_what_the_tables_hold():
    for name, table in (("loss", LOSSES), ("dataset", DATASETS), ("augment", POLICIES)):
        assert all(row in FIELDS[name].metadata["help"] for row in table), name
    spelled = FIELDS["arch"].metadata["help"].replace("|", ", ")
    assert all(row.removeprefix("resnet").removeprefix("plainnet") in spelled for row in ARCHS)
    assert set(FIELDS["augment"].metadata["choices"]) == set(POLICIES)


@pytest.mark.parametrize("loss", [None, *LOSSES])
@pytest.mark.parametrize("name", RECIPES)
def test_recipes_are_configurations_for_every_loss(name, loss):
    values = recipe_values(name, loss)
    config = TrainConfig.from_dict(values | ({"loss": loss} if loss else {}), name)
    build_head(64, 10, config.loss, scale=config.scale, margin=config.margin, label_smoothing=config.label_smoothing)
