"""A classifier: a backbone, the neck between, and a head that owns the class weights. Saved together."""

from typing import cast

from torch import Tensor, nn

from cifarnet.core.config import TrainConfig
from cifarnet.core.distributed import Ranks
from cifarnet.core.errors import plural
from cifarnet.core.torch_settings import check_default_dtype, own_draws
from cifarnet.losses.base import Head
from cifarnet.losses.heads import build_head
from cifarnet.losses.sharded.head import ClassParallelOptions
from cifarnet.models.registry import build_backbone, check_arch


class Classifier(nn.Module):
    """images [B, 3, H, W] -> `features` [B, E] -> logits [B, C]; `loss(images, labels)` is what training minimises."""

    def __init__(self, backbone: nn.Module, neck: nn.Module, head: Head) -> None:
        super().__init__()
        self.backbone, self.neck, self.head = backbone, neck, head

    @property
    def apart(self) -> tuple[str, ...]:
        """Names of the parameters of which each rank holds rows of its own (those of `head.classes`)."""
        return tuple(f"head.{name}" for name in self.head.apart)

    def features(self, images: Tensor) -> Tensor:
        """Embeddings [B, E] before the head."""
        return self.neck(self.backbone(images))

    def forward(self, images: Tensor) -> Tensor:
        """Logits [B, C], fp32, without margin: their softmax is the probability of each class."""
        return self.head.logits(self.features(images))


def build_neck(kind: str, in_features: int, embed_dim: int) -> nn.Module:
    """The module between backbone [B, D] and head [B, E]: nothing, a linear map without bias, or Linear + BatchNorm.

    With `embed_dim` 2 or 3 the last layer is split in two (D -> E without bias, E -> C), so that features can be drawn.
    """
    if embed_dim == 0:
        return nn.Identity()
    if kind == "none":
        return nn.Linear(in_features, embed_dim, bias=False)
    return nn.Sequential(nn.Linear(in_features, embed_dim, bias=False), nn.BatchNorm1d(embed_dim))


def layers_before_head(config: TrainConfig, classes: int) -> str:
    """The layers of a classifier between backbone and head, in words for the user."""
    layers = []
    if config.embed_dim:
        layers.append(f"a map to {config.embed_dim} dimensions" + (", BatchNorm" if config.neck == "bn" else ""))
    if config.prototypes == "simplex":
        layers.append(f"the map to the simplex of {plural(classes, 'class')}")
    return " and ".join(layers) or "nothing"


def build_model(config: TrainConfig, num_classes: int, ranks: Ranks | None = None) -> Classifier:
    """The classifier of `config`, freshly initialised from the seed (its own generator: the global one is left alone).

    With --head-parallel its classes lie on `ranks`; without these, as for every use but training, all of them are here.

    Raises:
        Refused: an option of the architecture or the loss that cannot be; torch's default dtype is not float32.
    """
    check_default_dtype()
    with own_draws(config.seed):
        backbone = build_backbone(config.arch, config.stem, config.image_size, config.dim)
        width = cast(int, backbone.num_features)
        neck = build_neck(config.neck, width, config.embed_dim)
        width = config.embed_dim or width
        if config.prototypes == "simplex":  # whose corners of C classes lie in C - 1 dimensions
            neck, width = nn.Sequential(neck, nn.Linear(width, num_classes - 1)), num_classes - 1
        parallel = None
        if ranks and config.head_parallel:
            parallel = ClassParallelOptions(ranks, config.head_sample, config.seed)
        head = configured_head(config, width, num_classes, parallel)
        model = Classifier(backbone, neck, head)
        if config.init == "keras":
            initialise_as_keras(model)
    return model


def configured_head(
    config: TrainConfig, in_features: int, num_classes: int, class_parallel: ClassParallelOptions | None = None
) -> Head:
    """The head of `config` for features [B, in_features]. Raises Refused as `build_head`."""
    return build_head(
        in_features,
        num_classes,
        config.loss,
        config.loss_options,
        frozen=config.frozen_head or config.prototypes == "frozen",
        simplex=config.prototypes == "simplex",
        backend=config.backend,
        class_parallel=class_parallel,
    )


def check_model(config: TrainConfig) -> None:
    """Raises Refused as `build_model`, in a millisecond: the backbone is not built, and only a small head is."""
    check_default_dtype()
    check_arch(config.arch, config.image_size)
    with own_draws():
        configured_head(config, in_features=512, num_classes=10)


def initialise_as_keras(model: Classifier) -> None:
    """Keras's defaults, the lab's: Glorot-uniform weights and zero biases in convolutions and linear layers."""
    for module in model.modules():
        if module is model.head:
            model.head.initialise_as_keras()
        elif isinstance(module, (nn.Conv2d, nn.Linear)):
            nn.init.xavier_uniform_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
