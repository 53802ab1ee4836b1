"""Several ranks train as one: DistributedDataParallel around the loss of a batch."""

import warnings

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from cifarnet.engine.step import BatchLoss, compiled
from cifarnet.engine.train_state import Mixture, TrainState


class SharedBatchLoss(BatchLoss):
    """The loss of a batch as DistributedDataParallel takes it; without a batch a sum over all parameters that learn."""

    def forward(self, images: Tensor | None, labels: Tensor | None, mixture: Mixture | None):  # type: ignore[no-untyped-def, override]
        """As BatchLoss's, or a scalar that reaches each parameter (see `warm_up_ddp_buckets`)."""
        if images is not None and labels is not None:
            return super().forward(images, labels, mixture)
        return torch.stack([parameter.sum() for parameter in self.parameters() if parameter.requires_grad]).sum()


def wrap_ddp(run: TrainState) -> None:
    """Joins the runs of all ranks: the first one's weights everywhere, gradients averaged. Alone nothing happens."""
    ranks, model = run.ranks, run.model
    if ranks.world == 1:
        return
    for shared in run.models.values():
        ranks.copy_from_first(value for name, value in shared.state_dict().items() if name not in model.apart)
    model.head.join(ranks)
    if run.config.sync_bn:
        nn.SyncBatchNorm.convert_sync_batchnorm(model)
    shared_loss = SharedBatchLoss(model, run.device, run.precision)
    learned = [p for name, p in model.named_parameters() if p.requires_grad and name not in model.apart]
    if not learned:
        return
    DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(
        shared_loss, [f"model.{name}" for name in model.apart]
    )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`broadcast_buffers`")  # its new name is not in every torch from 2.11 on
        # Buffers are not shared step by step: the head's state is equal on all ranks as it is, and BatchNorm's running
        # statistics, which training does not read, are the first rank's wherever they are used.
        ddp = DistributedDataParallel(shared_loss, broadcast_buffers=False)
    warm_up_ddp_buckets(ddp, run.optimizer)
    run.forward = compiled(ddp, run.config)


def warm_up_ddp_buckets(ddp: DistributedDataParallel, optimizer: torch.optim.Optimizer) -> None:
    """Takes DDP's first step, after which it sorts its buckets anew, and with them the order in which ranks are summed.

    A run then sums in one order from its own first step on, resumed or not (three ranks and more would differ in bits).
    """
    ddp(None, None, None).backward()
    optimizer.zero_grad(set_to_none=True)
