"""A trained model, ready to use: images in, classes, embeddings, logits or feature maps out. Normalisation lives inside."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, overload

import torch
import torch.nn.functional as F
from torch import Tensor

from cifarnet.analysis.features import record
from cifarnet.core.config import TrainConfig
from cifarnet.core.devices import pick_device
from cifarnet.core.errors import Refused
from cifarnet.core.fields import check_count
from cifarnet.data.images.decode import ImageError
from cifarnet.engine.evaluate import embed_batches
from cifarnet.engine.pixels import KINDS, is_batch, one_by_one
from cifarnet.engine.predict import Prediction, predict_images, read_batches
from cifarnet.models.checkpoint import load_model
from cifarnet.models.classifier import Classifier
from cifarnet.models.model_info import ModelInfo
from cifarnet.storage.find_checkpoint import default_checkpoint
from cifarnet.storage.hub import SCHEME, fetch


class Model:
    """A trained network with its classes and its normalisation; `cifarnet.load` returns it.

    Images are paths, PIL images, uint8 arrays [H, W, 3] or [N, H, W, 3], tensors [3, H, W] or [N, 3, H, W] (uint8, or float
    in [0, 1]), a list of single ones, or a folder of image files. They are resized and normalised as `cifarnet predict` does.

    Attributes:
        classifier: the network, a `torch.nn.Module` that takes normalised images.
        config: the training's configuration; classes: the names of the classes; path: the checkpoint's file.
    """

    def __init__(self, classifier: Classifier, info: ModelInfo, path: Path, device: torch.device) -> None:
        self.classifier, self.info, self.path, self.device = classifier.to(device).eval(), info, path, device

    @property
    def config(self) -> TrainConfig:
        """The configuration that it was trained with."""
        return self.info.config

    @property
    def classes(self) -> Sequence[str]:
        """The names of the classes, in the order of the logits."""
        return self.info.classes

    def __repr__(self) -> str:
        return f"Model({self.config.arch}, loss {self.config.loss}, {len(self.classes)} classes, {self.path})"

    @overload
    def predict(
        self, images: list[Any] | tuple[Any, ...], *, top: int | None = None, crop: bool = False
    ) -> list[Prediction]: ...

    @overload
    def predict(self, images: Any, *, top: int | None = None, crop: bool = False) -> Any: ...

    def predict(self, images: Any, *, top: int | None = None, crop: bool = False) -> Any:
        """The `Prediction` of an image; of several images a list of them.

        Args:
            top: classes to name, most probable first; None names all.
            crop: cut the largest centred square out of an image that is not square; else it is squeezed.

        Raises:
            ImageError: a file that cannot be read. Refused: no image at all, or no number of classes; the message says
                what to give.
        """
        if top is not None:
            check_count("top", top, "give 1 or more, or None for all classes")
        made = predict_images(self.classifier, self.info, one_by_one(images), top=top, crop=crop, device=self.device)
        found = [self._usable(prediction) for prediction in made]
        return found if is_batch(images) else found[0]

    def embed(self, images: Any) -> Tensor:
        """Embeddings on the unit sphere, [N, E], float32 on the CPU (N = 1 for one image). Raises as `predict`."""
        return F.normalize(self._features(images).float(), dim=1).cpu()

    @torch.no_grad()
    def logits(self, images: Any) -> Tensor:
        """Logits without margin [N, C], float32 on the CPU (N = 1 for one image). Raises as `predict`."""
        return self.classifier.head.logits(self._features(images)).float().cpu()

    @torch.no_grad()
    def features(self, images: Any, layers: Sequence[str] | None = None) -> dict[str, Tensor]:
        """The output of each layer: name -> float32 [channels, h, w] on the CPU, of several images [N, channels, h, w].

        Args:
            layers: names of layers; None gives all.

        Raises:
            Refused: an unknown layer; the message lists those that are there. Else as `predict`.
        """
        if isinstance(layers, str) or (layers is not None and not layers):
            raise Refused(
                "layers",
                "is text, and no list" if isinstance(layers, str) else "names none",
                "give a list of names, or None for all",
            )
        batches = [batch for batch, _ in self._batches(images)]
        if not batches:
            raise Refused("images", "there are none", f"give {KINDS}")
        maps, _ = record(self.classifier.eval(), torch.cat(batches))
        unknown = [name for name in layers or () if name not in maps]
        if unknown:
            raise Refused("layers", f"there is no layer '{unknown[0]}'", f"choose from {', '.join(maps)}")
        chosen = {name: maps[name].values.float().cpu() for name in layers or maps}
        return chosen if is_batch(images) else {name: values[0] for name, values in chosen.items()}

    def _features(self, images: Any) -> Tensor:
        """[N, E] on the model's device; of no images at all [0, E]."""
        embedded = embed_batches(self.classifier, self._batches(images), self.device, "fp32")
        none = torch.empty(0, self.classifier.head.in_features, device=self.device)
        return torch.cat([none, *(features for features, _ in embedded)])

    def _batches(self, images: Any) -> Iterator[tuple[Tensor, list[Prediction]]]:
        for batch, predictions in read_batches(one_by_one(images), self.info, self.device):
            for prediction in predictions:
                self._usable(prediction)
            yield batch, predictions

    @staticmethod
    def _usable(prediction: Prediction) -> Prediction:
        if prediction.error is not None:
            name, _, why = prediction.error.partition(": ")
            raise ImageError(name, why)
        return prediction


@torch.inference_mode(False)  # weights that may be learned from, whatever the caller's mode
def load(run: str | Path | None = None, *, device: str = "auto") -> Model:
    """A trained model.

    Args:
        run: a run folder, a .safetensors file, "hf://owner/name" (of the Hugging Face hub, a model that `cifarnet push` put
            there), or "packaged" for the small model that ships with cifarnet ("packaged:baseline": the report's small CNN);
            None takes runs/latest where there is one, else the packaged model.
        device: auto, cpu, cuda, cuda:1 or mps.

    Raises:
        Refused: no such run, a broken checkpoint, a model of features, a device that is not there, another file than
            safetensors. Failed: the hub does not give it.
    """
    if run is not None and not str(run):
        raise Refused("run", "is empty", "name a run folder or a checkpoint, or leave it out")
    if isinstance(run, str) and run.startswith(SCHEME):
        run = fetch(run)
    path = default_checkpoint(run)
    classifier, info = load_model(path)
    return Model(classifier, info, path, pick_device(device))
