"""The section `model`: the vision transformer."""

from dataclasses import dataclass
from typing import Annotated, Literal, TypedDict

from pocketvit.config.checks import Bounds, Count, Fraction, Natural, Positive, check_types
from pocketvit.errors import InputError
from pocketvit.usercode import Code


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """The vision transformer. ModelConfig() is the paper's Tiny ViT, 2,697,610 parameters on 32 × 32 images."""

    patch_size: Count = 4
    """Side of a square patch, in pixels."""
    patch_stride: Count | None = None
    """Pixels between neighboring patches; below patch_size, patches overlap; none is patch_size."""
    stem: Literal["patches", "shifted", "conv"] = "patches"
    """From image to tokens: patches through one linear layer; shifted, the same with the image moved to four sides; or conv,
    convolutions that halve the image until patch_size pixels are one."""
    patch_init: Literal["random", "whitening"] = "random"
    """Initial patch filters: a convolution's default, or whitening filters of the training images."""
    whitening_patches: Literal["clean", "augmented"] = "augmented"
    """Whether the whitening filters come from clean or augmented images; the paper's code takes augmented ones."""
    whitening_pairs: bool = False
    """Add the negative of each whitening filter, as in convolutional networks with a ReLU."""
    width: Count = 192
    """Channels of a token."""
    depth: Count = 9
    """Number of transformer blocks."""
    block_repeats: Annotated[int, Bounds(1, 64)] = 1
    """How often each block is applied, one time right after the other, with the same weights."""
    num_heads: Count = 12
    """Attention heads; must divide the width."""
    num_kv_heads: Count | None = None
    """Key and value heads, shared by equal groups of query heads; 1 is multi-query attention, none is num_heads."""
    q_rank: Count | None = None
    """Rank of the query projection (the paper's MLA); none is full."""
    k_rank: Count | None = None
    """Rank of the key projection, at most the channels of all key heads; none is full."""
    v_rank: Count | None = None
    """Rank of the value projection, at most the channels of all value heads; none is full."""
    kv_rank_shared: Count | None = None
    """Rank of one latent shared by keys and values (DeepSeek-V2); none is no latent."""
    attention: Literal["standard", "linear", "locality", "sparse"] | Code = "standard"
    """The attention layer: standard (softmax over all tokens), linear (feature maps, at a cost linear in the tokens), locality
    (all tokens but itself, with a learned temperature), sparse (windows and coarse grids of patches); or FILE.py:NAME, your own
    class."""
    block: Literal["standard"] | Code = "standard"
    """The transformer block; or FILE.py:NAME, your own class."""
    depthwise: Count | None = None
    """Side of the kernel of a depth-wise convolution of the patches beside every block, odd; none is no convolution."""
    qk_norm: bool = False
    """Normalize queries and keys in each head before their product."""
    mlp_ratio: Positive = 2.0
    """Width of the MLP's hidden layer as a multiple of the width."""
    activation: Literal["gelu", "gelu_tanh"] = "gelu"
    """GELU with the error function, or its tanh approximation."""
    norm: Literal["layernorm", "rmsnorm"] = "layernorm"
    """Normalization before every branch and before the head."""
    layer_scale: float | None = None
    """Initial value of a learned factor per channel on every branch; none is no factor."""
    positions: Literal["learned", "sincos", "rope", "none"] = "learned"
    """Position embedding: a learned table, fixed 2-D sines and cosines, 2-D rotation of queries and keys, or none."""
    num_cls_tokens: Natural = 1
    """CLS tokens, concatenated before the head; only with pool=cls."""
    num_registers: Natural = 0
    """Learned tokens that take part in attention but are not read out."""
    pool: Literal["cls", "mean", "attention", "cls_per_class"] = "cls"
    """What the head reads: the CLS tokens, the mean of the patch tokens, their learned weighted mean, or one CLS token a class,
    each for its own class."""
    head: Literal["linear", "mlp"] = "linear"
    """The classifier: one linear layer, or two with a ReLU between (the paper's Eq. 4)."""
    patch_drop: Fraction = 0.0
    """Fraction of the patch tokens of an image that training leaves out, others each time; at least one stays."""
    init: Literal["normal", "mimetic"] = "normal"
    """Initial weights of attention: normal, or mimetic, whose products are near the identity, as in trained models."""
    drop_path: Fraction = 0.1
    """Stochastic depth: probability of skipping a branch for an image, rising linearly from 0 to this in the last block."""
    dropout: Fraction = 0.0
    """Probability of zeroing a number in training: of the tokens with positions, of attention's output and the MLP's, and of
    the MLP's hidden layer."""

    def __post_init__(self) -> None:
        check_types("model", self)
        if self.pool == "cls":
            Bounds(1).check("model.num_cls_tokens", self.num_cls_tokens)
        if round(self.width * self.mlp_ratio) < 1:
            raise InputError(f"model.mlp_ratio={self.mlp_ratio} leaves no hidden channel of model.width={self.width}")
        self._check_combinations()
        self._check_ranks()

    def _check_combinations(self) -> None:
        """Refuse combinations of fields that are not supported."""
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
        if self.pool == "cls_per_class" and self.head != "linear":
            raise InputError(
                f"model.head={self.head} reads all pooled tokens at once, but model.pool=cls_per_class has one for each class; "
                "use head=linear"
            )
        if self.patch_stride is not None and self.patch_stride > self.patch_size:
            raise InputError(
                f"model.patch_stride={self.patch_stride} is more than model.patch_size={self.patch_size}: pixels "
                "between patches would be ignored"
            )
        self._check_stem()
        if self.init == "mimetic":
            self._check_mimetic()
        if self.attention == "sparse" and self.num_heads < 2:
            raise InputError("model.num_heads=1 is too few for model.attention=sparse, which has two kinds of heads")
        if self.depthwise is not None and self.depthwise % 2 == 0:
            raise InputError(f"model.depthwise={self.depthwise} is even: the kernel needs a center")
        for name in ("depthwise", "dropout"):
            if getattr(self, name) and isinstance(self.block, Code):
                raise InputError(f"model.{name}={getattr(self, name)} has no effect with model.block={self.block}")
        if self.positions == "sincos" and self.width % 4:
            raise InputError(f"model.width={self.width} is not divisible by 4, as model.positions=sincos requires")
        if self.positions == "rope" and self.head_dim % 4:
            raise InputError(
                f"model.num_heads={self.num_heads} gives heads of {self.head_dim} channels, not divisible by 4, as "
                "model.positions=rope requires"
            )

    def _check_stem(self) -> None:
        """Refuse what a stem other than patches does not support."""
        if self.stem != "patches" and self.patch_init != "random":
            raise InputError(
                f"model.patch_init={self.patch_init} is for the filters of model.stem=patches, not model.stem={self.stem}"
            )
        if self.stem == "shifted" and self.patch_size < 2:
            raise InputError(
                f"model.patch_size={self.patch_size} is less than the 2 that model.stem=shifted needs to shift"
            )

        if self.stem == "conv":
            if self.patch_size not in (2, 4, 8, 16, 32):
                raise InputError(
                    f"model.patch_size={self.patch_size} is none of 2, 4, 8, 16 and 32, as model.stem=conv requires: each of "
                    "its convolutions halves the image"
                )
            if self.patch_stride not in (None, self.patch_size):
                raise InputError(f"model.patch_stride={self.patch_stride} has no effect with model.stem=conv; use none")

    def _check_mimetic(self) -> None:
        """Refuse projections whose products mimetic initialization cannot choose."""
        for name in ("attention", "block"):
            if isinstance(getattr(self, name), Code):
                raise InputError(f"model.init=mimetic does not know the weights of model.{name}={getattr(self, name)}")
        for name in ("q_rank", "k_rank", "v_rank", "kv_rank_shared"):
            if getattr(self, name) is not None:
                raise InputError(f"model.init=mimetic needs full rank, not model.{name}={getattr(self, name)}")
        if self.num_kv_heads not in (None, self.num_heads):
            raise InputError(
                f"model.init=mimetic needs a key head for each query head, not model.num_kv_heads={self.num_kv_heads}"
            )

    def _check_ranks(self) -> None:
        """Refuse ranks that are more than full, or not supported together."""
        kv_width = (self.num_kv_heads or self.num_heads) * self.head_dim
        for name in ("q_rank", "k_rank", "v_rank", "kv_rank_shared"):
            rank = getattr(self, name) or 0
            if rank > self.width:
                full = f"model.width={self.width}, which is already full rank"
            elif name in ("k_rank", "v_rank") and rank > kv_width:
                full = f"{kv_width}, which is already full rank with model.num_kv_heads={self.num_kv_heads} of "
                full += f"{self.head_dim} channels"
            else:
                continue
            raise InputError(f"model.{name}={rank} is more than {full}; choose less, or none")
        if self.kv_rank_shared is not None and (self.k_rank is not None or self.v_rank is not None):
            raise InputError(
                f"model.kv_rank_shared={self.kv_rank_shared} cannot be combined with model.k_rank or model.v_rank"
            )

    @property
    def on_grid(self) -> list[str]:
        """The choices for which every patch must be in its place."""
        choices = {
            "model.positions=rope": self.positions == "rope",
            "model.attention=sparse": self.attention == "sparse",
            f"model.depthwise={self.depthwise}": self.depthwise is not None,
        }
        return [name for name, chosen in choices.items() if chosen]

    @property
    def overlapping(self) -> list[str]:
        """The choices by which a patch's token also sees pixels of its neighbors."""
        choices = {
            f"model.stem={self.stem}": self.stem != "patches",
            f"model.patch_stride={self.patch_stride}": self.patch_stride not in (None, self.patch_size),
        }
        return [name for name, chosen in choices.items() if chosen]

    @property
    def num_layers(self) -> int:
        """Layers that an image passes through: a block counts as often as it is applied."""
        return self.depth * self.block_repeats

    @property
    def num_dropouts(self) -> int:
        """Places of dropout: the tokens with their positions, and three in each layer."""
        return 1 + 3 * self.num_layers

    @property
    def head_dim(self) -> int:
        """Channels of one attention head."""
        return self.width // self.num_heads

    @property
    def hidden_width(self) -> int:
        """Channels of the MLP's hidden layer."""
        return round(self.width * self.mlp_ratio)


class ModelFields(TypedDict, total=False):
    """The fields of `ModelConfig` as keyword arguments, for editors; code is given as FILE.py:NAME."""

    patch_size: int
    patch_stride: int | None
    stem: Literal["patches", "shifted", "conv"]
    patch_init: Literal["random", "whitening"]
    whitening_patches: Literal["clean", "augmented"]
    whitening_pairs: bool
    width: int
    depth: int
    block_repeats: int
    num_heads: int
    num_kv_heads: int | None
    q_rank: int | None
    k_rank: int | None
    v_rank: int | None
    kv_rank_shared: int | None
    attention: Literal["standard", "linear", "locality", "sparse"] | Code | str
    block: Literal["standard"] | Code | str
    depthwise: int | None
    qk_norm: bool
    mlp_ratio: float
    activation: Literal["gelu", "gelu_tanh"]
    norm: Literal["layernorm", "rmsnorm"]
    layer_scale: float | None
    positions: Literal["learned", "sincos", "rope", "none"]
    num_cls_tokens: int
    num_registers: int
    pool: Literal["cls", "mean", "attention", "cls_per_class"]
    head: Literal["linear", "mlp"]
    patch_drop: float
    init: Literal["normal", "mimetic"]
    drop_path: float
    dropout: float
