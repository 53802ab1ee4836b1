"""The configuration refuses what cannot be, and says what can."""

import copy
import dataclasses
import math
import pickle

import pytest
import typer

from cifarnet.cli import app
from cifarnet.cli.train_options import file_values
from cifarnet.core.config import TrainConfig, merged
from cifarnet.core.errors import Refused
from cifarnet.core.option_values import LOSS_CONSTANTS
from cifarnet.data import DATASETS
from cifarnet.data.augment.batch import POLICIES
from cifarnet.engine.conflicts import check_options
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
        ("batch_size", 0),
        ("epochs", -1),
        ("val_fraction", 1.0),
        ("warmup", 1.5),
        ("seed", -1),
        ("momentum", 1.0),
        ("eval_every", 0),
        ("workers", -1),
        ("image_size", 100_000),
    ],
)
def test_numbers_out_of_range_are_refused(name, value):
    with pytest.raises(Refused, match=rf"^{name}: .* is out of range; give a finite number (at|above)") as caught:
        TrainConfig(**{name: value}).check()
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("loss", "name", "value"),
    [
        ("arcface", "margin", math.nan),
        ("arcface", "margin", 1e30),
        ("cosface", "scale", 0.0),
        ("ce", "label_smoothing", 1.0),
        ("focal", "gamma", -1),
        ("adaface", "t_alpha", 1.5),
    ],
)
def test_a_losss_constants_have_their_own_ranges(loss, name, value):
    with pytest.raises(Refused, match=rf"^{name}: .* is out of range; give a finite number (at|above)"):
        check_options(TrainConfig(loss=loss, loss_options={name: value}))


@pytest.mark.parametrize(
    ("loss", "name", "value", "words"),
    [
        ("sphereface", "margin", 6.0, "6 is not one of its values; choose from 1, 2, 3, 4, 5$"),
        ("sphereface", "margin", -3, "-3 is not one of its values"),
        ("sphereface", "margin", math.nan, "nan is not one of its values"),
        ("subcenter-arcface", "subcenters", 2.5, "2.5 is not one of its values; choose from 1, 2, "),
        ("subcenter-arcface", "subcenters", 10**400, "10+ is not one of its values"),
    ],
)
def test_a_number_that_is_no_choice_is_not_taken_for_a_misspelt_one(loss, name, value, words):
    with pytest.raises(Refused, match=f"^{name}: {words}"):
        check_options(TrainConfig(loss=loss, loss_options={name: value}))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"h": 0.3}, "^h: arcface has no such constant; arcface takes `scale`, `margin`, `easy_margin`"),
        ({"scale": "wide"}, "^scale: 'wide' is not a number; give a number, or auto"),
        ({"scale": [1]}, "^scale: .* is not a number"),
        ({"easy_margin": 1}, "^easy_margin: '1' is not true or false"),
        ({"backend": "torch"}, "^backend: arcface has no such constant"),
    ],
)
def test_the_losss_row_checks_its_constants(options, words):
    with pytest.raises(Refused, match=words):
        check_options(TrainConfig(loss="arcface", loss_options=options))


@pytest.mark.parametrize("name", ["stem", "neck", "augment", "optimizer", "schedule", "precision", "backend", "init"])
def test_unknown_words_list_the_known(name):
    with pytest.raises(Refused, match="choose from " + FIELDS[name].metadata["bounds"].choices[0]):
        TrainConfig(**{name: "nonsense"}).check()


@pytest.mark.parametrize(
    "values",
    [{"neck": "bn"}, {"loss_options": {"label_smoothing": 0.1}, "loss": "arcface"}, {"coarse": True}],
)
def test_what_does_not_go_together(values):
    with pytest.raises(Refused):
        check_options(TrainConfig(**values))


SPREAD = {"loss": "arcface", "head_parallel": True}
FEATURES = {"dataset": "synthetic-identities", "arch": "identity", "augment": "none"}


@pytest.mark.parametrize(
    ("one", "other", "named"),
    [
        ({"ema": 0.9}, {"swa": 0.5}, "`ema` and `swa`"),
        ({"mixup": 1.0}, {"loss": "arcface"}, "`mixup` and `cutmix`"),
        ({"cutmix": 1.0}, {"loss": "arcface"}, "`mixup` and `cutmix`"),
        ({"mixup": 1.0}, {"cuda_graph": True}, "cuda_graph"),
        ({"cutmix": 1.0}, {"cuda_graph": True}, "cuda_graph"),
        ({"progressive": 64, "image_size": 64}, {"image_size": 32}, "progressive"),
        ({"progressive": 24}, {"arch": "baseline"}, "progressive"),
        ({"optimizer": "muon"}, {"arch": "baseline"}, "optimizer"),
        ({"prototypes": "simplex"}, {"frozen_head": True}, "prototypes"),
        ({"data_dir": "here"}, {"dataset": "digits"}, "data_dir"),
        ({"dataset": "cifar100", "coarse": True}, {"dataset": "digits"}, "coarse"),
        ({"dataset": "csv", "image_column": "file"}, {"dataset": "folder"}, "image_column"),
        ({"dataset": "parquet", "label_column": "answer"}, {"dataset": "folder"}, "label_column"),
        (SPREAD | {"head_sample": 0.5}, {"head_parallel": False}, "head_sample"),
        (SPREAD, {"loss": "ce"}, "head_parallel"),
        (SPREAD, {"loss": "subcenter-arcface"}, "head_parallel"),
        (SPREAD, {"prototypes": "simplex"}, "head_parallel"),
        (SPREAD, {"init": "keras"}, "head_parallel"),
        (SPREAD, {"backend": "cuda"}, "head_parallel"),
        (SPREAD, {"compile": True}, "head_parallel"),
        (SPREAD, {"cuda_graph": True}, "head_parallel"),
        (SPREAD, {"log_grad": True}, "head_parallel"),
        (FEATURES, {"arch": "resnet18"}, "arch"),
        (FEATURES, {"dataset": "cifar10"}, "arch"),
        (FEATURES, {"augment": "basic"}, "augment"),
        (FEATURES, {"cutout": 8}, "cutout"),
        (FEATURES, {"mixup": 1.0}, "mixup"),
        (FEATURES, {"cutmix": 1.0}, "cutmix"),
        (FEATURES, {"progressive": 24}, "progressive"),
        (FEATURES, {"val_fraction": 0.1}, "val_fraction"),
        (FEATURES, {"label_noise": 0.1}, "label_noise"),
        (FEATURES, {"tta": True}, "tta"),
        (FEATURES | {"classes": 5}, {"dataset": "cifar10", "arch": "resnet18"}, "classes"),
        (FEATURES | {"dim": 5}, {"dataset": "cifar10", "arch": "resnet18"}, "dim"),
        (FEATURES | {"spread": 5.0}, {"dataset": "cifar10", "arch": "resnet18"}, "spread"),
    ],
)
def test_what_can_be_alone_cannot_be_together(one, other, named):
    for values in (one, other):
        check_options(TrainConfig(**values))
    with pytest.raises(Refused) as caught:
        check_options(TrainConfig(**(one | other)))
    assert caught.value.what == named


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"lrr": 1}, "unknown option 'lrr'; did you mean lr\\? known: arch"),
        ({"batch-size": 1}, "did you mean batch_size"),
        ({"zzz": 1}, "unknown option 'zzz'; known: arch"),
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


def test_a_key_that_stands_twice_is_refused(tmp_path):
    """json.loads takes the last one in silence."""
    (tmp_path / "my.json").write_text('{"lr": 0.1, "loss_options": {"scale": 1, "scale": 2}}')
    with pytest.raises(Refused, match=r"my\.json: has 'scale' twice; leave one of them out"):
        file_values(tmp_path / "my.json")


def test_round_trip():
    config = TrainConfig(lr=1, loss="arcface", loss_options={"scale": 3})
    assert TrainConfig.from_dict(config.to_dict()) == config


def test_the_constants_of_version_0_1_move_to_the_loss_options():
    """There every loss had all of them beside it; None, False and no smoothing said that a constant is not set."""
    old = {"scale": None, "margin": "auto", "h": None, "t_alpha": 0.5, "easy_margin": False, "gamma": None}
    config = TrainConfig.from_dict({"loss": "adaface", **old, "label_smoothing": 0.0})
    assert config.loss_options == {"margin": "auto", "t_alpha": 0.5}
    assert TrainConfig.from_dict({"loss": "focal", "gamma": 0.0}).loss_options == {"gamma": 0.0}


def test_a_later_layer_replaces_constants_one_by_one():
    layers = {"lr": 1, "scale": "auto"}, {"loss_options": {"scale": 30, "margin": 0.2}}, {"margin": 0.3, "lr": 2}
    assert merged(*layers) == {"lr": 2, "loss_options": {"scale": 30, "margin": 0.3}}


def test_help_names_what_the_tables_hold():
    helps = {option.name: option.help for option in typer.main.get_command(app).commands["train"].params}
    for name, table in (("loss", LOSSES), ("dataset", DATASETS), ("arch", ARCHS), ("augment", POLICIES)):
        assert all(row in helps[name] for row in table), name
    assert set(FIELDS["augment"].metadata["bounds"].choices) == set(POLICIES)
    assert {name for row in LOSSES.values() for name, one in row.constants.items() if one.flag} <= helps.keys()


@pytest.mark.parametrize("loss", [None, *LOSSES])
@pytest.mark.parametrize("name", RECIPES)
def test_recipes_are_configurations_for_every_loss(name, loss):
    values = recipe_values(name, loss)
    config = TrainConfig.from_dict(values | ({"loss": loss} if loss else {}), name)
    build_head(64, 10, config.loss, config.loss_options)


def test_every_constant_is_known_for_one_where_it_stands_beside_the_options():
    assert set(LOSS_CONSTANTS) == {name for row in LOSSES.values() for name in row.constants}
    assert not set(LOSS_CONSTANTS) & FIELDS.keys()


@pytest.mark.parametrize(
    ("loss", "name", "owners"),
    [
        ("arcface", "subcenters", "; subcenter-arcface takes `subcenters`"),
        ("ce", "gamma", "; focal, vs, kappaface take `gamma`"),
        ("adacos", "margin", ""),  # which most have
        ("ce", "momentum", ""),  # which none has
    ],
)
def test_a_constant_that_a_loss_lacks_is_told_with_the_losses_that_have_it(loss, name, owners):
    takes = ", ".join(f"`{one}`" for one in LOSSES[loss].constants) or "no constants"
    with pytest.raises(Refused) as refused:
        check_options(TrainConfig(loss=loss, loss_options={name: 3}))
    assert str(refused.value).endswith(f"; {loss} takes {takes}{owners}")


def test_an_option_that_is_none_is_refused_by_name_in_python_too():
    for given, said in (
        ({"margin": 0.5}, "unknown option 'margin'; a constant of the loss: give loss_options={'margin': ...}"),
        (
            {"subcenters": 3},
            "unknown option 'subcenters'; a constant of the loss: give loss_options={'subcenters': ...}",
        ),
        ({"tau": 3}, "unknown option 'tau'; a constant of the loss: give loss_options={'tau': ...}"),  # and not tta
        ({"batchsize": 8}, "unknown option 'batchsize'; did you mean batch_size? known: arch, "),
        ({"zzzz": 8}, "unknown option 'zzzz'; known: arch, "),
    ):
        with pytest.raises(Refused) as refused:
            TrainConfig(**given)
        assert str(refused.value).startswith("TrainConfig: " + said)
        with pytest.raises(Refused, match="unknown option"):
            dataclasses.replace(TrainConfig(), **given)
    config = TrainConfig("plainnet18", seed=3)
    assert pickle.loads(pickle.dumps(config)) == copy.deepcopy(config) == config
