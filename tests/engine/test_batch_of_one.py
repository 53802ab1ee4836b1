"""BatchNorm of a single value a channel has no statistics: refused before data is read; a batch of one may be trained else."""

import pytest
import torch

from cifarnet.core.config import TrainConfig
from cifarnet.core.errors import Refused
from cifarnet.engine.setup import resolve_execution
from cifarnet.models.classifier import build_model

ONE = {"batch_size": 1, "device": "cpu"}
SHAPES = [
    ({"arch": "baseline", "neck": "bn", "embed_dim": 2}, "use 2 or more, or `neck=none`"),
    ({"arch": "resnet18", "stem": "imagenet"}, "use 2 or more"),  # ends in maps of 1x1
    ({"arch": "resnet18", "image_size": 64, "progressive": 16}, "use 2 or more"),
    (
        {"arch": "identity", "dataset": "synthetic-identities", "augment": "none", "neck": "bn", "embed_dim": 8},
        "neck=none",
    ),
    ({"arch": "baseline"}, None),
    ({"arch": "resnet18", "image_size": 64}, None),
    ({"arch": "speednet"}, None),
]


@pytest.mark.parametrize(("values", "fix"), SHAPES)
def test_it_is_refused_exactly_where_torch_fails(values, fix):
    config = TrainConfig(**ONE, **values)
    model, side = build_model(config, num_classes=3).train(), config.progressive or config.image_size
    images = torch.randn(1, config.dim) if config.arch == "identity" else torch.randn(1, 3, side, side)
    if fix is None:
        model.features(images)
        resolve_execution(config)
        return
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        model.features(images)
    with pytest.raises(Refused, match=rf"^batch_size: of one image BatchNorm has a single value a channel.*{fix}"):
        resolve_execution(config)


def test_before_data_is_read(cli, tmp_path):
    code, out, err = cli("train", "--neck", "bn", "--embed-dim", 2, "--batch-size", 1, "--out", "run")
    assert code == 2 and out == "" and err.startswith("error: --batch-size: of one image") and err.count("\n") == 1
    assert not (tmp_path / "run").exists()
