"""The whole description of a run: frozen dataclasses, validated, saved as YAML, hashed.

A `RunConfig` holds one section per part of the road (model, data, augment, optim, schedule, train). Every field has
a dotted name (`optim.lr`) that is the same on the command line (`--optim.lr`), in `config.yaml`, in an ablation row
(`{"optim.lr": 2e-3}`) and in error messages. Defaults are the paper's setting, so a row shows only what differs.
"""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pocketvit.checks import above, at_least, between, check_types, unknown
from pocketvit.errors import InputError
from pocketvit.usercode import Code, keep_copies, resolve

SCHEMA_VERSION = 1
"""Part of `config_hash`. Raise it when a default changes, because hashes leave defaults out."""

NOT_HASHED = ("recipe", "seed", "out", "data.source", "data.cache_dir", "data.keep", "train.device")
"""Fields that say who, where and which draw, but not what is computed; the data counts by its fingerprint."""


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """The vision transformer. Defaults: the paper's Tiny ViT, 2,697,610 parameters on 32 × 32 images."""

    patch_size: int = 4
    """Side of a square patch, pixels."""
    patch_stride: int | None = None
    """Pixels between neighbouring patches; less than patch_size makes them overlap, none sets them side by side."""
    patch_init: Literal["random", "whitening"] = "random"
    """How the patch filters start: a convolution's default, or whitening filters of the training images."""
    whitening_patches: Literal["clean", "augmented"] = "augmented"
    """Whether the whitening filters come from clean or augmented images; the paper's code takes augmented ones."""
    whitening_pairs: bool = False
    """Set each whitening filter beside its negative, as in convolutional networks with a ReLU behind."""
    width: int = 192
    """Channels of a token."""
    depth: int = 9
    """Number of transformer blocks."""
    num_heads: int = 12
    """Attention heads; must divide the width."""
    num_kv_heads: int | None = None
    """Key and value heads, each shared by as many query heads: 1 is multi-query attention, none is one for each."""
    q_rank: int | None = None
    """Rank of the query projection (the paper's MLA); none is full."""
    k_rank: int | None = None
    """Rank of the key projection; none is full."""
    v_rank: int | None = None
    """Rank of the value projection; none is full."""
    kv_rank_shared: int | None = None
    """Rank of one latent that keys and values are both made from (DeepSeek-V2); none is no latent."""
    attention: Literal["standard"] | Code = "standard"
    """The attention layer; or FILE.py:NAME, a class of your own."""
    block: Literal["standard"] | Code = "standard"
    """The transformer block; or FILE.py:NAME, a class of your own."""
    qk_norm: bool = False
    """Normalise queries and keys, head by head, before their product."""
    mlp_ratio: float = 2.0
    """Width of the MLP's hidden layer over the width."""
    activation: Literal["gelu", "gelu_tanh"] = "gelu"
    """GELU by the error function, or its approximation by tanh."""
    norm: Literal["layernorm", "rmsnorm"] = "layernorm"
    """Normalisation in front of every branch and of the head."""
    layer_scale: float | None = None
    """Starting value of a learned factor per channel on every branch; none leaves it out."""
    positions: Literal["learned", "sincos", "rope", "none"] = "learned"
    """Positions: a learned table, fixed 2-D sines and cosines, 2-D rotation of queries and keys, or none."""
    num_cls_tokens: int = 1
    """CLS tokens, concatenated into the head; they exist only with pool=cls."""
    num_registers: int = 0
    """Learned tokens that take part in attention and are read by nobody."""
    pool: Literal["cls", "mean", "attention"] = "cls"
    """What the head reads: the CLS tokens, the mean of the patch tokens, or their learned weighted mean."""
    head: Literal["linear", "mlp"] = "linear"
    """The classifier: one linear layer, or two with a ReLU between (the paper's Eq. 4)."""
    drop_path: float = 0.1
    """Stochastic depth: chance to skip a branch for an image, rising linearly from 0 to this in the last block."""

    def __post_init__(self) -> None:
        check_types("model", self)
        for name in ("patch_size", "width", "depth", "num_heads"):
            at_least("model." + name, getattr(self, name), 1)
        for name in ("patch_stride", "num_kv_heads", "q_rank", "k_rank", "v_rank", "kv_rank_shared"):
            if getattr(self, name) is not None:
                at_least("model." + name, getattr(self, name), 1)
        at_least("model.num_registers", self.num_registers, 0)
        at_least("model.num_cls_tokens", self.num_cls_tokens, 1 if self.pool == "cls" else 0)
        between("model.drop_path", self.drop_path, 0, 1, open_right=True)
        if round(self.width * self.mlp_ratio) < 1:
            raise InputError(f"model.mlp_ratio={self.mlp_ratio} leaves no hidden channel; must be > 0")
        self._check_combinations()

    def _check_combinations(self) -> None:
        """Refuse fields that do not go together."""
        if self.width % self.num_heads:
            raise InputError(f"model.width={self.width} is not divisible by model.num_heads={self.num_heads}")
        if self.num_heads % (self.num_kv_heads or self.num_heads):
            raise InputError(
                f"model.num_heads={self.num_heads} is not divisible by model.num_kv_heads={self.num_kv_heads}"
            )
        if self.pool != "cls" and self.num_cls_tokens > 1:
            raise InputError(
                f"model.num_cls_tokens={self.num_cls_tokens} has no effect with model.pool={self.pool}; use pool=cls"
            )
        if self.patch_stride is not None and self.patch_stride > self.patch_size:
            raise InputError(
                f"model.patch_stride={self.patch_stride} is more than model.patch_size={self.patch_size}: pixels between "
                "the patches would never be seen"
            )
        if self.kv_rank_shared is not None and (self.k_rank is not None or self.v_rank is not None):
            raise InputError(
                f"model.kv_rank_shared={self.kv_rank_shared} cannot stand beside model.k_rank or model.v_rank"
            )
        if self.positions == "sincos" and self.width % 4:
            raise InputError(f"model.width={self.width} is not divisible by 4, as model.positions=sincos needs")
        if self.positions == "rope" and self.head_dim % 4:
            raise InputError(
                f"model.num_heads={self.num_heads} makes heads of {self.head_dim} channels, not divisible by 4, as "
                "model.positions=rope needs"
            )

    @property
    def head_dim(self) -> int:
        """Channels of one attention head."""
        return self.width // self.num_heads

    @property
    def hidden_width(self) -> int:
        """Channels of the MLP's hidden layer."""
        return round(self.width * self.mlp_ratio)


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Where the images come from, how they are split and in what order a pass takes them."""

    source: str = "digits"
    """A known name (see `pocketvit data list`), a path, or hf:OWNER/NAME."""
    format: str | None = None
    """The format of a path; found by itself when none."""
    resize: int | None = None
    """Resize every image to this many pixels square; none leaves them."""
    val_frac: float = 0.0
    """Fraction of the training images held out for choosing; with it the test images are used once, at the end."""
    test_frac: float = 0.2
    """Fraction held out for testing where the source has no split of its own."""
    split_seed: int = 0
    """Seed of these two splits; apart from the run's seed, so that runs over seeds share them."""
    repeats: Literal["fresh", "batch"] = "fresh"
    """fresh: a pass is one shuffle of the images; batch: each image `num_repeats` times in a row."""
    num_repeats: int = 3
    """Copies in a row with repeats=batch; that many passes share one shuffle."""
    cache_dir: Path | None = None
    """Folder of downloaded and decoded sets; by default $POCKETVIT_DATA or ~/.cache/pocketvit."""
    keep: Literal["auto", "gpu", "host", "disk"] = "auto"
    """Where a GPU's training images are: in its memory, pinned on the host, or on disk; auto takes what has room."""

    def __post_init__(self) -> None:
        check_types("data", self)
        between("data.val_frac", self.val_frac, 0, 1, open_right=True)
        between("data.test_frac", self.test_frac, 0, 1, open_left=True, open_right=True)
        at_least("data.num_repeats", self.num_repeats, 1)
        at_least("data.split_seed", self.split_seed, 0)
        if self.resize is not None:
            at_least("data.resize", self.resize, 1)


Operation = Literal[
    "identity", "shear_x", "shear_y", "translate_x", "translate_y", "rotate", "color", "contrast", "brightness",
    "sharpness", "posterize", "solarize", "autocontrast", "equalize", "invert",
]  # fmt: skip
"""What the policies do to images."""


@dataclass(frozen=True, kw_only=True)
class AugmentConfig:
    """Augmentation, in the order of the fields. A part is off at probability, pixels or policy none."""

    flip_prob: float = 0.5
    """Chance of a horizontal flip."""
    crop_pad: int = 4
    """Random crop after padding with this many black pixels on each side; 0 turns it off."""
    policy: Literal["none", "cifar10", "svhn", "imagenet", "randaugment", "trivialaugment"] | Code = "cifar10"
    """AutoAugment's policy for one of three data sets, RandAugment, TrivialAugment; or FILE.py:NAME, a function."""
    skip_ops: tuple[Operation, ...] = ()
    """Operations of the policy to leave out, such as rotate; the image stays as it is there."""
    randaugment_ops: int = 2
    """Operations in a row by RandAugment."""
    randaugment_level: int = 4
    """Strength of RandAugment's operations, 0 … 9."""
    erase_prob: float = 0.25
    """Chance of random erasing."""
    erase_area: tuple[float, float] = (0.02, 0.4)
    """Least and greatest erased area as a fraction of the image."""
    erase_aspect: tuple[float, float] = (0.3, 1 / 0.3)
    """Least and greatest ratio of the erased box's height to its width, drawn uniformly."""
    cutmix_prob: float = 0.25
    """Chance that a batch is mixed by CutMix."""
    mixup_prob: float = 0.25
    """Chance that a batch is mixed by MixUp."""
    cutmix_alpha: float = 1.0
    """Both parameters of CutMix's Beta distribution."""
    mixup_alpha: float = 1.0
    """Both parameters of MixUp's Beta distribution."""

    def __post_init__(self) -> None:
        check_types("augment", self)
        for name in ("flip_prob", "erase_prob", "cutmix_prob", "mixup_prob"):
            between("augment." + name, getattr(self, name), 0, 1)
        at_least("augment.crop_pad", self.crop_pad, 0)
        at_least("augment.randaugment_ops", self.randaugment_ops, 1)
        between("augment.randaugment_level", self.randaugment_level, 0, 9)
        if self.cutmix_prob + self.mixup_prob > 1:
            raise InputError(
                f"augment.cutmix_prob={self.cutmix_prob} and augment.mixup_prob={self.mixup_prob} add up to more than 1"
            )
        for name in ("cutmix_alpha", "mixup_alpha"):
            above("augment." + name, getattr(self, name), 0)
        for name, top in (("erase_area", 1.0), ("erase_aspect", float("inf"))):
            low, high = getattr(self, name)
            if not 0 < low <= high <= top:
                raise InputError(f"augment.{name}=({low}, {high}): must satisfy 0 < least <= greatest <= {top}")


@dataclass(frozen=True, kw_only=True)
class OptimConfig:
    """The loss and the update of the weights."""

    name: Literal["adamw", "lion", "muon"] | Code = "adamw"
    """Optimizer; muon takes the matrices of the blocks, and AdamW the rest. Or FILE.py:NAME, a class of your own."""
    lr: float = 1e-3
    """Peak learning rate; with muon, of its AdamW part."""
    weight_decay: float = 0.05
    """Decoupled weight decay."""
    decay: Literal["all", "matrices"] = "all"
    """What decays: all parameters, as in the paper, or only those that are matrices inside a layer."""
    betas: tuple[float, float] | None = None
    """Decay rates of the running moments; by default the optimizer's own: AdamW 0.9 0.999, Lion 0.9 0.99."""
    muon_lr: float = 0.02
    """Peak learning rate of Muon."""
    muon_momentum: float = 0.95
    """Decay rate of Muon's running moment."""
    ema_decay: float = 0.0
    """Average the weights over about 1 / (1 − this) steps and evaluate the average; 0 does not."""
    label_smoothing: float = 0.1
    """Probability spread evenly over all classes in the target; 0 is plain cross-entropy."""

    def __post_init__(self) -> None:
        check_types("optim", self)
        for name in ("lr", "muon_lr"):
            above("optim." + name, getattr(self, name), 0)
        at_least("optim.weight_decay", self.weight_decay, 0)
        for name in ("label_smoothing", "muon_momentum", "ema_decay"):
            between("optim." + name, getattr(self, name), 0, 1, open_right=True)
        for beta in self.betas or ():
            between("optim.betas", beta, 0, 1, open_right=True)


@dataclass(frozen=True, kw_only=True)
class ScheduleConfig:
    """How long to train, and the learning rate over the steps."""

    name: Literal["cosine", "linear", "wsd"] | Code = "cosine"
    """Shape after the warm-up: half a cosine, a straight line, constant and then a straight line; or FILE.py:NAME."""
    passes: int = 300
    """Passes over the training images; the paper's 100 epochs are 300 of them."""
    warmup_passes: int = 30
    """Passes of linear warm-up."""
    warmup_lr: float = 1e-6
    """Learning rate at the first step."""
    final_lr: float = 1e-6
    """Learning rate that the schedule ends at."""
    decay_frac: float = 0.2
    """Fraction of the run in which wsd falls."""

    def __post_init__(self) -> None:
        check_types("schedule", self)
        at_least("schedule.passes", self.passes, 1)
        at_least("schedule.warmup_passes", self.warmup_passes, 0)
        at_least("schedule.warmup_lr", self.warmup_lr, 0)
        at_least("schedule.final_lr", self.final_lr, 0)
        between("schedule.decay_frac", self.decay_frac, 0, 1, open_left=True)
        if self.warmup_passes >= self.passes:
            raise InputError(
                f"schedule.warmup_passes={self.warmup_passes} must be less than schedule.passes={self.passes}"
            )
        if self.name == "wsd" and self.warmup_passes + self.decay_frac * self.passes > self.passes:
            raise InputError(
                f"schedule.decay_frac={self.decay_frac} and schedule.warmup_passes={self.warmup_passes} do not fit in "
                f"schedule.passes={self.passes}"
            )


Device = Literal["auto", "cuda", "mps", "cpu"]
"""Where to compute."""


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """The machine side of a run."""

    device: Device = "auto"
    """auto takes CUDA, else Apple's MPS, else the CPU."""
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    """auto: bf16 autocast on CUDA, fp32 elsewhere."""
    compile: bool | None = None
    """torch.compile; by default on CUDA only."""
    cuda_graph: bool = True
    """Capture the whole step in a CUDA graph, where there is CUDA."""
    kernels: Literal["auto", "fused", "reference"] = "auto"
    """Fused kernels where they are supported, everywhere or an error, or plain PyTorch only."""
    deterministic: bool = False
    """Only operations of PyTorch, cuBLAS and cuDNN that give the same bits every time on the same GPUs; slower."""
    eval_every_passes: int = 15
    """Evaluate every so many passes; the paper's five epochs are 15."""
    checkpoint_every_passes: int = 10
    """Save a checkpoint every so many passes; 0 saves only when stopped."""

    def __post_init__(self) -> None:
        check_types("train", self)
        at_least("train.eval_every_passes", self.eval_every_passes, 1)
        at_least("train.checkpoint_every_passes", self.checkpoint_every_passes, 0)


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """One training run."""

    recipe: str = "custom"
    """Name of the recipe that this started from: a label, not an input."""
    seed: int = 0
    """Seed of everything random in the run."""
    out: Path | None = None
    """Run folder; by default the next free runs/<recipe>-<nnn>."""
    batch_size: int = 256
    """Images per step, over all processes."""
    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    train: TrainConfig = field(default_factory=TrainConfig)

    def __post_init__(self) -> None:
        check_types("", self)
        at_least("batch_size", self.batch_size, 1)
        between("seed", self.seed, 0, 2**63, open_right=True)


# ---------------------------------------------------------------- dotted names


def flatten(config: Any, prefix: str = "") -> dict[str, Any]:
    """Every field of a config by its dotted name, in order."""
    flat = {}
    for item in dataclasses.fields(config):
        value = getattr(config, item.name)
        if dataclasses.is_dataclass(value):
            flat |= flatten(value, f"{prefix}{item.name}.")
        else:
            flat[prefix + item.name] = value
    return flat


def override(config: RunConfig, values: Mapping[str, Any]) -> RunConfig:
    """A copy of `config` with some fields, given by dotted name, set anew.

    Raises:
        InputError: an unknown name (with the nearest one), or a value that its field refuses.
    """
    known = flatten(config)
    sections: dict[str, dict[str, Any]] = {}
    for name, value in values.items():
        if name not in known:
            raise InputError(unknown("field", name, known))
        section, _, leaf = name.rpartition(".")
        sections.setdefault(section, {})[leaf] = value
    top = sections.pop("", {})
    for section, changes in sections.items():
        top[section] = dataclasses.replace(getattr(config, section), **changes)
    return dataclasses.replace(config, **top)


def to_dict(config: RunConfig) -> dict[str, Any]:
    """The config as plain nested mappings that YAML and JSON can hold, with the schema version.

    Code becomes a reference to the copy that `save_config` makes of it.
    """

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: plain(item) for key, item in value.items()}
        if isinstance(value, tuple):
            return list(value)
        if isinstance(value, Code):
            return value.copied
        return str(value) if isinstance(value, Path) else value

    return plain(dataclasses.asdict(config)) | {"schema": SCHEMA_VERSION}


def from_dict(
    mapping: Mapping[str, Any], *, folder: Path = Path(), where: str = "config", allow_code: bool = False
) -> RunConfig:
    """The config that `to_dict` wrote; fields left out take their defaults.

    Args:
        mapping: what `to_dict` wrote.
        folder: that it was found in; code is taken from there and nowhere else.
        where: names the config in messages.
        allow_code: agree to run the code that it names.
    Raises:
        InputError: not a config, an unknown field, a wrong value, a newer schema, or code without consent.
    """
    values: dict[str, Any] = {}
    for key, item in mapping.items():
        if isinstance(item, Mapping):
            values |= {f"{key}.{leaf}": value for leaf, value in item.items()}
        else:
            values[key] = item
    schema = values.pop("schema", SCHEMA_VERSION)
    if schema != SCHEMA_VERSION:
        raise InputError(f"config has schema {schema}; this version reads {SCHEMA_VERSION}")
    return override(
        RunConfig(), resolve(values, folder=folder, where=where, allow_code=allow_code, inside=True)
    )


def save_config(config: RunConfig, path: Path) -> None:
    """Write `config.yaml`, and the files of the code that it names into code/ beside it.

    Raises:
        InputError: two different files of code have the same name.
        OSError: the folder cannot be written.
    """
    import yaml

    keep_copies(code_of(config).values(), path.parent)
    path.write_text(yaml.safe_dump(to_dict(config), sort_keys=False))


def load_config(path: Path, *, allow_code: bool = False) -> RunConfig:
    """Read a saved `config.yaml`.

    Args:
        path: of the file.
        allow_code: agree to run the code that it names, which must lie in the same folder.
    Raises:
        InputError: no such file, not YAML, not a config, or code without consent.
    """
    import yaml

    try:
        mapping = yaml.safe_load(path.read_text())
    except OSError as error:
        raise InputError(f"cannot read config {path}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"config {path} is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(mapping, Mapping):
        raise InputError(f"config {path} holds no fields; expected the mapping that a run folder's config.yaml has")
    return from_dict(mapping, folder=path.parent, where=str(path), allow_code=allow_code)


def code_of(config: Any) -> dict[str, Code]:
    """The user's own code in a config or in a section of one, by dotted name."""
    return {name: value for name, value in flatten(config).items() if isinstance(value, Code)}


def config_hash(config: RunConfig, data_fingerprint: str) -> str:
    """A name for what a run computes, apart from its seed: 12 hex digits.

    Fields at their default are left out, so that adding a field does not rename older runs. Code counts by its name
    and its file's content.
    """
    defaults = flatten(RunConfig())
    differing = {
        name: value.identity if isinstance(value, Code) else value
        for name, value in flatten(config).items()
        if value != defaults[name] and name not in NOT_HASHED
    }
    text = json.dumps([SCHEMA_VERSION, data_fingerprint, differing], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]
