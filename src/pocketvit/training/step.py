"""One training step, from a batch of bytes to updated weights, without waiting for the host.

The step finds everything in device memory by two counters: the chunk's images, the learning rate and the place for
its loss. So on CUDA, all of it (the last part of augmentation, forward, backward, update) is captured in a CUDA
graph and replayed, and the host reads results once per chunk.
"""

from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.profiler import record_function

from pocketvit.augment.batch import Batch, BatchMaker, Chunk
from pocketvit.config.checks import FEW
from pocketvit.errors import InputError
from pocketvit.model import ViT
from pocketvit.objectives.objective import Objective
from pocketvit.optim.build import named_parameters
from pocketvit.optim.ema import EMA
from pocketvit.optim.state import create_state, state_tensors
from pocketvit.training import graphs
from pocketvit.training.distributed import Processes

WARMUP_STEPS = 3


Losses = Iterable[tuple[Tensor, dict[str, Tensor]]]
"""The loss and other logged values of each piece of a batch; those of the batch are their sums."""
BatchLoss = Callable[[ViT, Chunk, Tensor], Losses]
"""From a model, a chunk and the position of a batch in it, (1,), to the losses of its pieces, each computed when asked for."""


def batch_loss(
    objective: Objective,
    batches: BatchMaker,
    *,
    bf16: bool,
    compile: bool = False,
    fused: bool = False,
    micro_batch: int | None = None,
    image_dtype: torch.dtype = torch.float32,
) -> BatchLoss:
    """The last part of augmentation and the objective as one function.

    Args:
        batches: makes the inputs and targets.
        bf16: run the objective under bf16 autocast.
        compile: with `torch.compile`, including the model.
        fused: our kernels run the blocks: one also makes the batch, and nothing is compiled.
        micro_batch: images of a piece; None computes the batch at once.
        image_dtype: of the images that our kernel makes.
    """

    def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
        return torch.compile(function, fullgraph=True, dynamic=False) if compile else function

    def of_batch(model: ViT, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        with torch.autocast(batch.images.device.type, torch.bfloat16, enabled=bf16, cache_enabled=False):
            return objective(model, batch)

    def of_taken(model: ViT, taken: Chunk) -> tuple[Tensor, dict[str, Tensor]]:
        return of_batch(model, batches.finish(taken))

    pieces: Callable[[Chunk, Tensor], Sequence[Any]]
    if fused:
        of_piece = of_batch
        pieces = lambda chunk, position: batches.fused(chunk, position, image_dtype).split(micro_batch)  # noqa: E731
    elif micro_batch is None:  # in one function, of which the compiler makes fewer kernels
        of_piece, pieces = compiled(of_taken), lambda chunk, position: [chunk.take(position)]
    else:
        finish, of_piece = compiled(batches.finish), compiled(of_batch)
        pieces = lambda chunk, position: finish(chunk.take(position)).split(micro_batch)  # noqa: E731

    def losses(model: ViT, chunk: Chunk, position: Tensor) -> Losses:
        with record_function("forward"):
            given = pieces(chunk, position)
        for piece in given:
            with record_function("forward"):
                found = of_piece(model, piece)
            yield found

    return losses


class TrainStep:
    """A training step, repeated.

    Args:
        model: on its device.
        optimizers: as `build_optimizers` makes them.
        loss: of a batch, from `batch_loss`.
        ema: average of the weights, updated after them; None for no average.
        factors: learning rate of every step of the run over the peak, (total steps,).
        cuda_graph: capture the step; only on CUDA.
        warm_up: run the step a few times first, because its first runs compile; captured steps always are.
        objective: of the loss; its layers are trained as the model is.
        grad_clip: greatest L2 norm of all gradients together; None leaves them as they are.
    """

    def __init__(
        self,
        model: ViT,
        optimizers: Sequence[torch.optim.Optimizer],
        loss: BatchLoss,
        *,
        ema: EMA | None,
        factors: np.ndarray,
        processes: Processes,
        cuda_graph: bool,
        warm_up: bool = False,
        objective: Objective | None = None,
        grad_clip: float | None = None,
    ) -> None:
        device = next(model.parameters()).device
        self.model, self.optimizers, self.loss, self.ema = model, optimizers, loss, ema
        self.processes, self.objective, self.grad_clip = processes, objective, grad_clip
        self.layers = nn.Module() if objective is None else objective.layers
        self.cuda_graph = cuda_graph and device.type == "cuda"
        self.warm_up = warm_up
        self.warm = not warm_up  # whether nothing is left to compile
        self.side: int | None = None  # of the images, in pixels; None keeps their size
        self.factors = torch.from_numpy(factors.astype(np.float32)).to(device)
        self.losses = torch.full_like(self.factors, torch.nan)  # loss of every step of the run so far, (total steps,)
        self.logged = {
            name: self.losses.clone() for name in (objective.logged if objective else ())
        }  # the same of the other logged values
        self.counters = torch.zeros(2, dtype=torch.int64, device=device)  # one tensor, because one launch counts both:
        self.position, self.step = self.counters.split(1)  # the next step within the chunk, and of the run
        self.graph: torch.cuda.CUDAGraph | None = None
        create_state(optimizers)

    def use_side(self, side: int | None) -> bool:
        """From the next chunk on, train on images of this side; returns whether that is another one than before."""
        changes = side != self.side
        if changes:
            self.side, self.graph, self.warm = side, None, not self.warm_up
            self.model.use_side(side)
        return changes

    def set_chunk(self, chunk: Chunk) -> None:
        """Take the next steps from this chunk.

        Once captured, the graph reads from fixed memory, so a new chunk is copied over the first one. If that was
        shorter (the rest of an interrupted pass), the step is captured again.
        """
        if self.graph is not None and chunk.num_steps > self.chunk.num_steps:
            self.graph = None
        if self.graph is None:
            self.chunk = chunk
        else:
            for mine, new in zip(self.chunk, chunk, strict=True):
                if mine is not None and new is not None:  # all chunks of a run have stochastic depth, or none has
                    mine[: len(new)].copy_(new)
        self.position.zero_()
        if not self.warm or (self.cuda_graph and self.graph is None):
            self._prepare()

    def __call__(self) -> None:
        """Run the next step."""
        if self.graph is None:
            self._run()
        else:
            self.graph.replay()

    def backward(self) -> list[Tensor]:
        """Compute the gradients of the next batch over all processes, clipped; returns its loss and logged values, 0-dim."""
        shared, sums = self.objective.shared if self.objective else (), []
        parameters = [parameter for _, parameter in named_parameters(self.model, self.layers)]
        for index, (loss, logged) in enumerate(self.loss(self.model, self.chunk, self.position)):
            with record_function("backward"):
                if index == 1:
                    _separate_gradients(parameters)
                loss.backward()
            values = [value.detach() for value in (loss, *(logged[name] for name in (*self.logged, *shared)))]
            sums = list(map(torch.add, sums, values)) if sums else values
        found = self.processes.sum_gradients(parameters, sums)
        self.shared = dict(zip(shared, found[1 + len(self.logged) :], strict=True))
        if self.grad_clip is not None:
            with record_function("optimizer"):
                nn.utils.clip_grad_norm_(parameters, self.grad_clip)  # never waits for the host
        return found[: 1 + len(self.logged)]

    def _run(self) -> None:
        factor = self.factors[self.step].squeeze()
        for group in (group for optimizer in self.optimizers for group in optimizer.param_groups):
            torch.mul(factor, group["peak_lr"], out=group["lr"])
        found = self.backward()
        with record_function("optimizer"):
            for optimizer in self.optimizers:
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
            if self.ema is not None:
                self.ema.update(self.step)
            if self.objective is not None:
                self.objective.update(self.model, self.shared, self.step / len(self.factors))
        for log, value in zip((self.losses, *self.logged.values()), found, strict=True):
            log.index_copy_(0, self.step, value.reshape(1))
        self.counters += 1

    def _prepare(self) -> None:
        """Run the step on the current chunk until all of it is compiled, capture it, and restore the state."""
        before = {name: tensor.clone() for name, tensor in self.state().items()}
        with graphs.beside() if self.cuda_graph else nullcontext():
            for _ in range(WARMUP_STEPS):
                self._run()
                self.counters.zero_()
        self.warm = True
        if self.cuda_graph:
            # NCCL's watchdog calls CUDA from another thread, which the default mode forbids during the capture.
            self.graph = graphs.captured(self._run, mode="global" if self.processes.size == 1 else "thread_local")
        self.load_state(before)
        self.position.zero_()

    def state(self) -> dict[str, Tensor]:
        """Every tensor that the next step depends on, by name; the tensors themselves, not copies."""
        names: dict[Tensor, str] = {parameter: name for name, parameter in named_parameters(self.model, self.layers)}
        tensors = {f"model.{name}": tensor.detach() for name, tensor in self.model.state_dict().items()}
        tensors |= {f"objective.{name}": tensor.detach() for name, tensor in self.layers.state_dict().items()}
        tensors |= {f"optim.{name}": tensor for name, tensor in state_tensors(self.optimizers, names).items()}
        if self.ema is not None:
            averages = self.ema.state_dict()
            tensors |= {f"ema.{name}": tensor for name, tensor in averages["averages"].items()}
            tensors["ema_window"] = averages["window"]
        tensors |= {f"logged.{name}": log for name, log in self.logged.items()}
        return tensors | {"run.step": self.step, "run.losses": self.losses}

    def load_state(self, tensors: dict[str, Tensor]) -> None:
        """Copy the values of another `state` into this one's memory, from which the captured graph reads.

        A logged value that an older version did not log stays unknown, NaN, for the steps so far.

        Raises:
            InputError: it has other tensors, or some of other shapes.
        """
        mine = self.state()
        mine = {name: tensor for name, tensor in mine.items() if name in tensors or not name.startswith("logged.")}
        shapes, others = ({name: tensor.shape for name, tensor in held.items()} for held in (mine, tensors))
        if differ := sorted({name for name, _ in shapes.items() ^ others.items()}):
            raise InputError(f"state has other tensors: {', '.join(differ[:FEW])}")
        with torch.no_grad():
            for name, tensor in mine.items():
                tensor.copy_(tensors[name])


def _separate_gradients(parameters: Iterable[Tensor]) -> None:
    """Give every gradient memory of its own.

    PyTorch keeps the first gradient of a parameter as it comes, which may be a view of another's: that of the CLS tokens is
    the first row of the positions'. It adds the next one in place, to both.
    """
    end = 0
    for parameter in sorted(parameters, key=_address):
        if parameter.grad is not None:
            if _address(parameter) < end:
                parameter.grad = parameter.grad.clone()
            end = max(end, _address(parameter) + parameter.grad.nbytes)


def _address(parameter: Tensor) -> int:
    return 0 if parameter.grad is None else parameter.grad.data_ptr()
