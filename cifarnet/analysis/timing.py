"""The time that a model takes, measured."""

import statistics
import time
from dataclasses import dataclass

import torch

from cifarnet.core.config import TrainConfig
from cifarnet.core.devices import finish
from cifarnet.core.torch_settings import autocast
from cifarnet.models.classifier import build_model


@dataclass(frozen=True)
class Timing:
    """Measured: median milliseconds a batch and images a second, on `device` in `precision`, over `repeats` passes."""

    milliseconds: float
    images_per_second: float
    device: str
    precision: str
    repeats: int


def measure_time(
    config: TrainConfig, num_classes: int, batch: int, device: torch.device, precision: str, seconds: float = 2.0
) -> Timing:
    """Times forward passes in inference mode, channels_last, for about `seconds` after a warm-up (5 passes or more)."""
    model = build_model(config, num_classes).eval().to(device)
    model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    shape, generator = (batch, 3, config.image_size, config.image_size), torch.Generator().manual_seed(config.seed)
    images = torch.randn(shape, generator=generator).to(device)
    images = images.contiguous(memory_format=torch.channels_last)
    # Not torch.utils.benchmark: it does not wait for mps, and of a slow model it may take a single pass.
    times: list[float] = []
    with torch.inference_mode(), autocast(device, precision):
        for _ in range(3):
            model(images)
        finish(device)
        end = time.perf_counter() + seconds
        while len(times) < 5 or time.perf_counter() < end:
            start = time.perf_counter()
            model(images)
            finish(device)
            times.append(time.perf_counter() - start)
    median = statistics.median(times)
    return Timing(1000 * median, batch / median, str(device), precision, len(times))
