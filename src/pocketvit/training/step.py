"""One training step: a batch of bytes in, updated weights out, with nothing that waits for the host.

The step finds everything it needs in device memory by its own two counters: the chunk's images, the learning rate
and the place where its loss is written. So on CUDA the whole of it (augmentation's last part, forward, backward,
update) is captured once in a CUDA graph and replayed, and the host hears of it once a chunk.

Shapes: S steps of a chunk, B batch (on several processes, the share of this one), C channels, H W pixels,
K classes, L blocks.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.profiler import record_function

from pocketvit.augment.batch import BatchMaker
from pocketvit.loading.loader import Chunk
from pocketvit.optim.ema import EMA
from pocketvit.optim.state import create_state, state_tensors
from pocketvit.training import graphs
from pocketvit.training.distributed import Processes

WARMUP_STEPS = 3


BatchLoss = Callable[[nn.Module, Sequence[Tensor], Tensor], Tensor]
"""From a model, the tensors of a chunk and the position of a batch in it, (1,), to the loss."""


@dataclass(frozen=True)
class Loss:
    """The loss of a batch: the last part of augmentation, the model, cross-entropy against soft targets.

    Args:
        batches: makes what the model sees and what it should say.
        bf16: run the model under bf16 autocast.
        batch_size: images of a step over all processes.
    """

    batches: BatchMaker
    bf16: bool
    batch_size: int

    def __call__(self, model: nn.Module, inputs: Sequence[Tensor], position: Tensor) -> Tensor:
        """The loss of a batch, or what a share of it adds to that.

        Args:
            model: from pixels to logits.
            inputs: images, labels, boxes and mixing of a chunk as in `Chunk`, and perhaps stochastic depth
                (S, L, 2, B).
            position: of the batch in the chunk, int64, (1,).
        Returns:
            the sum of the images' losses over the batch size, 0-dim.
        """
        return self.of_taken(model, *take(inputs, position))

    def compiled(self) -> BatchLoss:
        """The same by `torch.compile`, the model included."""
        whole = torch.compile(self.of_taken, fullgraph=True, dynamic=False)
        return lambda model, inputs, position: whole(model, *take(inputs, position))

    def fused(self, model: nn.Module, inputs: Sequence[Tensor], position: Tensor) -> Tensor:
        """The same where the model's blocks are kernels of our own: the batch is made by one as well."""
        dtype = torch.bfloat16 if self.bf16 else torch.float32
        x, targets = self.batches.fused(*inputs[:4], position, dtype)
        return self.of(model, x, targets, take_keep(inputs, position))

    def of_taken(
        self, model: nn.Module, images: Tensor, labels: Tensor, erase: Tensor, mix_row: Tensor, keep: Tensor | None
    ) -> Tensor:
        """The loss of a batch as `take` takes it."""
        return self.of(model, *self.batches.finish(images, labels, erase, mix_row), keep)

    def of(self, model: nn.Module, x: Tensor, targets: Tensor, keep: Tensor | None) -> Tensor:
        """The loss of prepared images x (B, C, H, W) with their targets (B, K), 0-dim."""
        with torch.autocast(x.device.type, torch.bfloat16, enabled=self.bf16, cache_enabled=False):
            logits = model(x, keep)  # (B, K)
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))  # bf16 is too coarse for a sum
        return -(targets * torch.log_softmax(logits, dim=1)).sum() / self.batch_size


def take(inputs: Sequence[Tensor], position: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor | None]:
    """A batch of a chunk: its images (B, H, W, C), labels, boxes (B, 4), mixing (7,) and stochastic depth (L, 2, B)."""
    images, labels, erase, mix_rows = inputs[:4]
    batch_size = len(labels) // len(mix_rows)
    rows = position * batch_size + torch.arange(batch_size, device=position.device)  # (B,)
    mix_row = mix_rows[position].squeeze(0)
    return images[rows], labels[rows], erase[rows], mix_row, take_keep(inputs, position)


def take_keep(inputs: Sequence[Tensor], position: Tensor) -> Tensor | None:
    """Stochastic depth of a batch of a chunk, (L, 2, B); none where the chunk has none."""
    return inputs[4][position].squeeze(0) if len(inputs) > 4 else None


class TrainStep:
    """A training step, repeated.

    Args:
        model: on its device.
        optimizers: as `build_optimizers` makes them.
        loss: of a batch, in one of the forms of `Loss`.
        ema: average of the weights, updated after them; none keeps no average.
        factors: learning rate of every step of the run over the peak, (total steps,).
        processes: that share each batch.
        cuda_graph: capture the step; only on CUDA.
        warm_up: run the step a few times before it counts, because its first runs compile; captured steps always are.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizers: Sequence[torch.optim.Optimizer],
        loss: BatchLoss,
        *,
        ema: EMA | None,
        factors: np.ndarray,
        processes: Processes,
        cuda_graph: bool,
        warm_up: bool = False,
    ) -> None:
        device = next(model.parameters()).device
        self.model, self.optimizers, self.loss, self.ema = model, optimizers, loss, ema
        self.processes = processes
        self.cuda_graph = cuda_graph and device.type == "cuda"
        self.warm = not warm_up
        """Whether nothing is left to compile."""
        self.factors = torch.from_numpy(factors.astype(np.float32)).to(device)
        self.losses = torch.full_like(self.factors, torch.nan)
        """Loss of every step of the run so far, (total steps,)."""
        self.position = torch.zeros(1, dtype=torch.int64, device=device)
        """The next step within the chunk."""
        self.step = torch.zeros(1, dtype=torch.int64, device=device)
        """The next step of the run."""
        self.graph: torch.cuda.CUDAGraph | None = None
        create_state(optimizers)

    def set_chunk(self, chunk: Chunk, keep: Tensor | None) -> None:
        """Take the next steps from this chunk, with its stochastic depth, (S, L, 2, B) or none.

        Once captured, the graph reads from fixed memory, so a new chunk is copied over the first one. Where that was
        shorter, the rest of a pass that was stopped, the step is captured anew.
        """
        tensors = (*chunk.tensors(), *(() if keep is None else (keep,)))
        if self.graph is not None and len(chunk.mix) > len(self.inputs[3]):
            self.graph = None
        if self.graph is None:
            self.inputs = tensors
        else:
            for mine, new in zip(self.inputs, tensors, strict=True):
                mine[: len(new)].copy_(new)
        self.position.zero_()
        if self.cuda_graph and self.graph is None:
            self._capture()
        elif not self.warm:
            self._warm_up()

    def __call__(self) -> None:
        """Run the next step."""
        if self.graph is None:
            self._run()
        else:
            self.graph.replay()

    def backward(self) -> Tensor:
        """Find the gradients of the next batch, over all processes; returns its loss, 0-dim."""
        with record_function("forward"):
            loss = self.loss(self.model, self.inputs, self.position)
        with record_function("backward"):
            loss.backward()
        return self.processes.sum_gradients(self.model.parameters(), loss)

    def _run(self) -> None:
        for optimizer in self.optimizers:
            factor = self.factors[self.step].squeeze()
            for group in optimizer.param_groups:
                group["lr"].copy_(factor * group["peak_lr"])
        loss = self.backward()
        with record_function("optimizer"):
            for optimizer in self.optimizers:
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
            if self.ema is not None:
                self.ema.update()
        self.losses.index_copy_(0, self.step, loss.reshape(1))
        self.position += 1
        self.step += 1

    def _rehearse(self) -> None:
        """Run the step on the chunk at hand until all of it is compiled."""
        for _ in range(WARMUP_STEPS):
            self._run()
            self.position.zero_()
            self.step.zero_()
        self.warm = True

    def _warm_up(self) -> None:
        """Rehearse, then put everything back as it was."""
        before = {name: tensor.clone() for name, tensor in self.state().items()}
        self._rehearse()
        self.load_state(before)

    def _capture(self) -> None:
        """Rehearse and capture the step on the chunk at hand, then put everything back as it was."""
        before = {name: tensor.clone() for name, tensor in self.state().items()}
        with graphs.beside():
            self._rehearse()
        # NCCL's watchdog calls CUDA from a thread of its own, which the default mode forbids during the capture.
        self.graph = graphs.captured(self._run, mode="global" if self.processes.size == 1 else "thread_local")
        self.load_state(before)
        self.position.zero_()

    def state(self) -> dict[str, Tensor]:
        """Every tensor that the next step depends on, by name; the tensors themselves, not copies."""
        names = {parameter: name for name, parameter in self.model.named_parameters()}
        tensors = {f"model.{name}": tensor.detach() for name, tensor in self.model.state_dict().items()}
        tensors |= {f"optim.{name}": tensor for name, tensor in state_tensors(self.optimizers, names).items()}
        if self.ema is not None:
            averages = self.ema.state_dict()
            tensors |= {f"ema.{name}": tensor for name, tensor in averages["averages"].items()}
            tensors["ema_window"] = averages["window"]
        return tensors | {"run.step": self.step, "run.losses": self.losses}

    def load_state(self, tensors: dict[str, Tensor]) -> None:
        """Copy the values of another `state` into this one's memory, where the captured graph looks for them."""
        mine = self.state()
        if mine.keys() != tensors.keys():
            raise ValueError(f"state has other tensors: {sorted(mine.keys() ^ tensors.keys())[:3]} …")
        with torch.no_grad():
            for name, tensor in mine.items():
                tensor.copy_(tensors[name])
