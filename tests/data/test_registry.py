"""The table of data sets: each row leads to its file, and says which options are its own."""

import dataclasses
import subprocess
import sys
from pkgutil import resolve_name
from types import SimpleNamespace

import pytest
import torch

from cifarnet.cli.report import data_of
from cifarnet.core.config import TrainConfig
from cifarnet.core.errors import Refused
from cifarnet.data import DATASETS, load, load_options
from cifarnet.data.registry import options_of_some


@pytest.mark.parametrize("name", DATASETS)
def test_a_row_leads_to_its_file_and_names_fields_of_the_configuration(name):
    row = DATASETS[name]
    assert callable(resolve_name(row.loader)) and row.title
    fields = {field.name: field.default for field in dataclasses.fields(TrainConfig)}
    assert set(row.options) <= fields.keys()
    assert all(name in options_of_some()[option] for option in row.options)


def test_the_table_is_read_without_torch():
    code = "import sys; from cifarnet.data import DATASETS; print(len(DATASETS), 'torch' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.split() == [str(len(DATASETS)), "False"]


def test_a_configuration_gives_a_set_its_own_options_alone():
    config = TrainConfig(dataset="cifar100", coarse=True, classes=50, image_size=48, seed=5)
    assert load_options(config) == {"image_size": 48, "seed": 5, "coarse": True}
    assert load_options(config, "digits") == {"image_size": 48, "seed": 5}
    made = load(
        "synthetic-identities",
        **load_options(dataclasses.replace(config, dataset="synthetic-identities", dim=3, spread=0.0)),
    )
    assert len(made.classes) == 50 and len(made.test) == 100
    (features,) = made.test.batches([torch.tensor([7])])
    torch.testing.assert_close(features[0] / 3**0.5, made.test.source.prototypes(made.test.labels[7:8])[0])


@pytest.mark.parametrize(("name", "option"), [("digits", "coarse"), ("cifar10", "classes"), ("digits", "colour")])
def test_an_option_of_another_set_is_refused(name, option):
    with pytest.raises(Refused, match=f"{option}: {name} has no such option"):
        load(name, **{option: 3})


@pytest.mark.parametrize(
    ("first", "second", "same"),
    [
        ({"dataset": "cifar100"}, {"dataset": "cifar100", "data_dir": "elsewhere", "seed": 2}, True),
        ({"dataset": "cifar100"}, {"dataset": "cifar100", "coarse": True}, False),
        ({"dataset": "folder", "data_dir": "a"}, {"dataset": "folder", "data_dir": "b"}, False),
        ({"dataset": "gone"}, {"dataset": "gone"}, True),
    ],
)
def test_runs_are_compared_where_their_data_is_the_same(first, second, same):
    one, other = (data_of(SimpleNamespace(config=TrainConfig(**values))) for values in (first, second))
    assert (one == other) is same
