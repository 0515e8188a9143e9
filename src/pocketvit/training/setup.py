"""Set up a run from its configuration: images, model, objective, kernels, whitened patches, the training step."""

from collections.abc import Sequence
from typing import Literal, assert_never, cast

import numpy as np
import torch
from torch import Tensor

from pocketvit.augment.augment import normalise_and_erase
from pocketvit.augment.batch import BatchMaker
from pocketvit.config import RunConfig, TrainConfig
from pocketvit.config.checks import describe_size
from pocketvit.config.training import Kernels
from pocketvit.data import Split, Splits
from pocketvit.device import compute_dtype, uses_bf16
from pocketvit.errors import InputError
from pocketvit.loading.balance import class_weights
from pocketvit.loading.loader import TrainLoader
from pocketvit.model import ViT
from pocketvit.model.custom import check_trains
from pocketvit.model.whitening import whiten, whitening_filters
from pocketvit.objectives.classification import Classification
from pocketvit.objectives.dino import Dino
from pocketvit.objectives.distillation import Distillation
from pocketvit.objectives.drloc import RelativeLocalization
from pocketvit.objectives.mae import MaskedAutoencoder
from pocketvit.objectives.multilabel import Multilabel
from pocketvit.objectives.objective import Objective, Stack
from pocketvit.objectives.patch_dropout import PatchDropout
from pocketvit.optim.build import build_optimizers, offer_gradient_memory
from pocketvit.optim.ema import EMA
from pocketvit.randomness import Stream, permutation, seeded, torch_seed
from pocketvit.training.distributed import ALONE, Processes
from pocketvit.training.progress import Reporter
from pocketvit.training.start import load_teacher
from pocketvit.training.step import TrainStep, batch_loss

WHITENING_IMAGES = 5_000  # training images whose patches the whitening filters come from, as in the paper's code


def make_loader(config: RunConfig, split: Split, device: torch.device, processes: Processes = ALONE) -> TrainLoader:
    """The loader of the training images that one of the processes takes.

    Raises:
        InputError: fewer images than a batch or than the processes need, a policy that is invalid, or too little memory.
    """
    return TrainLoader(
        split,
        data=config.data,
        augment=config.augment,
        seed=config.seed,
        batch_size=config.batch_size,
        device=device,
        share=processes.share(config.batch_size),
        kernels="fused" if config.train.kernels == "persistent" else config.train.kernels,
    )


def make_model(config: RunConfig, splits: Splits, device: torch.device) -> ViT:
    """The model with the initial weights that the run's seed draws, on a device."""
    return ViT(
        config.model,
        image_size=splits.train.image_size,
        num_classes=len(splits.class_names),
        generator=torch.Generator().manual_seed(torch_seed(config.seed, Stream.INIT)),
        distilled=config.objective.teacher is not None,
    ).to(device)


def freeze(model: ViT, what: Literal["none", "encoder"]) -> None:
    """Exclude a part of a model from training: `train.freeze`."""
    match what:
        case "none":
            parts = ()
        case "encoder":
            parts = model.tokens, model.blocks, model.norm
        case other:
            assert_never(other)
    for part in parts:
        part.requires_grad_(False)


def make_objective(config: RunConfig, model: ViT, splits: Splits) -> Objective:
    """What a run minimizes, its own layers on the model's device with their initial weights.

    Raises:
        InputError: the teacher cannot be read, or does not fit.
    """
    with seeded(torch_seed(config.seed, Stream.OBJECTIVE_INIT)):
        match config.objective.name:
            case "classification":
                objective = _classification(config, model, splits)
            case "dino":
                objective = Dino(config.batch_size, model)
            case "multilabel":
                objective = Multilabel(config.batch_size)
            case "mae":
                objective = MaskedAutoencoder(config.batch_size, model)
            case other:
                assert_never(other)
    objective.layers.to(next(model.parameters()).device)
    return objective


def _classification(config: RunConfig, model: ViT, splits: Splits) -> Objective:
    """Classification, with what the configuration adds to it."""
    chosen, weights = config.objective, None
    if config.data.balance == "loss":
        weights = next(model.parameters()).new_tensor(class_weights(splits.train.labels, model.num_classes))
    classes = Classification(config.batch_size, weights)
    if chosen.teacher is not None:
        teacher = load_teacher(chosen.teacher, model, splits.class_names, config.train.kernels)
        seen = teacher.mean, teacher.std, teacher.images
        classes = Distillation(config.batch_size, teacher.model, *seen, weights)
    if chosen.drloc:
        return RelativeLocalization(classes, model, chosen.drloc)
    return PatchDropout(classes, model) if config.model.patch_drop else classes


def check_labels(config: RunConfig, splits: Splits) -> None:
    """Refuse data whose labels are not those that the objective needs.

    Raises:
        InputError: an image may have several classes in one of them only, or no image to measure has a class.
    """
    wanted, source = config.objective.name == "multilabel", config.data.source
    if splits.train.multilabel and not wanted:
        raise InputError(f"images of {source} may have several classes; set objective.name=multilabel")
    if wanted and not splits.train.multilabel:
        raise InputError(
            f"objective.name=multilabel needs images with several classes, and each of {source} has one; write them into "
            "labels.csv with a column of 0 and 1 for each class, or say what separates them: data.label_separator"
        )
    for name, split in (("test", splits.test), ("validation", splits.val)):
        if wanted and split is not None and not split.labels.any():
            raise InputError(f"no {name} image of {source} has a class, so average precision cannot be measured")


def stacks_by_side(config: RunConfig, model: ViT, objective: Objective) -> list[Sequence[Stack]]:
    """The stacks of blocks that a step runs on whole images, and on each smaller size that the run has.

    Raises:
        InputError: the images are not square, a side is more than theirs, or the patches do not tile such images.
    """
    sides, (height, width) = config.schedule.sides, model.image_size
    if sides and height != width:
        raise InputError(f"schedule.sides={sides} needs square images, and these have {describe_size((height, width))}")
    stacks = []
    try:
        for side in (*sides, None):
            if side is not None and side > height:
                raise InputError(f"the images have only {height} pixels a side")
            model.use_side(side)
            stacks.append(objective.stacks(model))
    except InputError as error:
        raise InputError(f"schedule.sides={sides}: {error}") from error
    return stacks[::-1]


def choose_kernels(
    model: ViT,
    stacks: Sequence[Stack],
    config: TrainConfig,
    device: torch.device,
    processes: Processes,
    reporter: Reporter,
) -> Kernels:
    """Choose the model's kernels, and note why if the fastest ones are not supported.

    Args:
        stacks: that the model's blocks compute in a step, on whole images first.
    Returns:
        the kernels of the blocks on whole images: their name, or reference.
    Raises:
        InputError: `train.kernels` names kernels that do not support the model or the device.
    """
    model.use_kernels(config.kernels)
    dtype = compute_dtype(config.precision, device)
    choices = dict.fromkeys(model.block_kernels(device, dtype, stack.num_tokens) for stack in stacks)
    for chosen in choices:
        if config.kernels not in ("auto", chosen.name):
            raise processes.error(
                f"train.kernels={config.kernels} is not supported here: {chosen.reason}; use train.kernels=auto"
            )
        if chosen.reason and device.type == "cuda" and config.kernels == "auto":
            instead = "without fused kernels" if chosen.name == "reference" else f"as {chosen.name} kernels"
            reporter.note(f"the blocks run {instead}: {chosen.reason}")
    kernels = next(iter(choices)).name
    if kernels == "persistent":
        images = torch.empty(0, device=device, dtype=dtype)
        for part, beside in {"stem": model.stem_kernels(images), "head": model.head_kernels(images)}.items():
            if beside.name != "persistent":
                reporter.note(f"the {part} runs in PyTorch: {beside.reason}")
    return cast(Kernels, kernels)


def start_whitened(model: ViT, loader: TrainLoader, mean: Tensor, std: Tensor) -> Tensor:
    """Initialize the patch embedding with whitening filters of training images, clean or augmented.

    Args:
        model: on its device.
        mean: of the training pixels in [0, 1], (C,).
        std: of the same pixels, (C,).
    Returns:
        the filters, (F, C, p, p).
    """
    config = model.config
    sample = permutation(loader.seed, Stream.SAMPLE, 0, len(loader.split))[:WHITENING_IMAGES]
    images = loader.sample(sample, pass_index={"augmented": 0, "clean": None}[config.whitening_patches])
    pixels = normalise_and_erase(images.images, mean, std, images.erase)
    filters = whitening_filters(pixels, config.patch_size)
    whiten(model.tokens.patches, filters, pairs=config.whitening_pairs)
    return filters


PATCH_INITS = {"random": lambda *_: None, "whitening": start_whitened}
"""The initialization of the patch filters, by `model.patch_init`; called as `start_whitened`."""


def image_dtype(config: RunConfig, model: ViT, objective: Objective, device: torch.device) -> torch.dtype:
    """The type in which our kernel makes a batch's images: that of a step's products where nothing else reads them."""
    products_only = objective.bf16_images and model.tokens.patches.bf16_images
    return compute_dtype(config.train.precision, device) if products_only else torch.float32


def make_step(
    config: RunConfig,
    model: ViT,
    objective: Objective,
    *,
    stats: tuple[Tensor, Tensor],
    factors: np.ndarray,
    processes: Processes,
    fused: bool,
    in_place: bool = False,
) -> TrainStep:
    """The training step of a run.

    Args:
        model: on its device, with its kernels chosen.
        objective: with its layers on the same device.
        stats: mean and standard deviation of the training pixels in [0, 1], (C,) each.
        factors: learning rate of every step over the peak, (total steps,).
        fused: whether our kernels run the blocks and the update.
        in_place: whether they write gradients where a flat optimizer wants them.
    Raises:
        InputError: user-defined code does not support the run's settings.
    """
    mean, std = stats
    on_cuda, bf16 = mean.is_cuda, uses_bf16(config.train.precision, mean.device)
    compile = on_cuda if config.train.compile is None else config.train.compile
    cuda_graph = on_cuda and config.train.cuda_graph
    for num_tokens in dict.fromkeys(stacks[0].num_tokens for stacks in stacks_by_side(config, model, objective)):
        if config.train.freeze == "none":
            check_trains(model, num_tokens, device=mean.device, bf16=bf16, compile=compile, cuda_graph=cuda_graph)
    batches = BatchMaker(mean, std, num_classes=model.num_classes, label_smoothing=config.optim.label_smoothing)
    objective.prepare(model, mean, std)
    averaged, optim = {name: p for name, p in model.named_parameters() if p.is_floating_point()}, config.optim
    start = int(optim.ema_start * len(factors))
    optimizers = build_optimizers(optim, model, layers=objective.layers, fused=fused)
    if in_place:
        offer_gradient_memory(optimizers)
    loss = batch_loss(
        objective, batches, bf16=bf16, compile=compile, fused=fused, micro_batch=config.train.micro_batch,
        image_dtype=image_dtype(config, model, objective, mean.device),
    )  # fmt: skip
    return TrainStep(
        model,
        optimizers,
        loss,
        ema=EMA(averaged, optim.ema_decay, start=start, share=optim.ema_share) if optim.ema_decay else None,
        factors=factors,
        processes=processes,
        cuda_graph=cuda_graph,
        warm_up=compile or fused,
        objective=objective,
        grad_clip=optim.grad_clip,
    )
