"""Attention, block, optimizer, augmentation and schedule of the user's own: used as they must be, or refused."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from pocketvit.config import ModelConfig, RunConfig, ScheduleConfig, override
from pocketvit.data import Split, Splits
from pocketvit.errors import InputError
from pocketvit.inference.trained_model import TrainedModel, load_model
from pocketvit.model import ViT
from pocketvit.model.custom import fork_of
from pocketvit.model.mixers.standard import Attention
from pocketvit.optim.build import build_optimizers
from pocketvit.optim.lion import Lion
from pocketvit.optim.schedule import lr_table
from pocketvit.recipes import recipe
from pocketvit.training.progress import SilentReporter
from pocketvit.training.trainer import Trainer

EXAMPLES = Path(__file__).parents[3] / "docs" / "examples"
RNG = np.random.default_rng(0)
SET = Split(RNG.integers(0, 256, (24, 16, 16, 3), dtype=np.uint8), np.arange(24) % 3)
SPLITS = Splits(SET, None, SET, ("a", "b", "c"), "synthetic", ())
SMALL = {"batch_size": 8, "schedule.passes": 2, "schedule.warmup_passes": 0, "model.width": 24, "model.depth": 2}
SMALL |= {"model.num_heads": 2, "train.device": "cpu"}
HEADER = """\
import numpy as np, torch
from torch import nn, Tensor
from pocketvit.model import make_attention
from pocketvit.model.mixers.standard import Attention
from pocketvit.optim.lion import Lion
class Thru(nn.Module):
    def __init__(self, config, rotary):
        super().__init__()
        self.fc = nn.Linear(config.width, config.width)
    def forward(self, x, keep=None):
        return self.fc(x)
class Step(Lion):
    def __init__(self, groups, config):
        super().__init__(groups, lr=0.0)
"""


def forward(body: str, arguments: str = "self, x, keep=None") -> str:
    """A layer with this forward."""
    return f"class f(Thru):\n    def forward({arguments}):\n        {body}\n"


def init(body: str) -> str:
    """A layer with this behind its constructor."""
    return f"class f(Thru):\n    def __init__(self, c, r):\n        super().__init__(c, r)\n        {body}\n"


def update(*body: str) -> str:
    """An optimizer with this update of parameters p by gradients g."""
    lines = "".join(f"        {line}\n" for line in body)
    return f"class f(Step):\n    def _update(self, p, g, group):\n{lines}"


def trainer(**fields) -> Trainer:
    config = override(recipe("paper"), SMALL | {name.replace("__", "."): value for name, value in fields.items()})
    return Trainer(config, SPLITS, torch.device("cpu"), SilentReporter())


@pytest.fixture
def custom(tmp_path):
    """Writes Python lines to a file and gives its reference to `f`."""

    def write(lines: str, name: str = "f") -> str:
        path = tmp_path / f"own{len(list(tmp_path.iterdir()))}.py"
        path.write_text(HEADER + lines)
        return f"{path}:{name}"

    return write


def refused(**fields) -> str:
    with pytest.raises(InputError) as caught:
        trainer(**fields)
    assert "\n" not in str(caught.value)
    assert "own" in str(caught.value), "the file is named"
    return str(caught.value)


# ---------------------------------------------------------------- attention and block


def test_a_custom_attention_equal_to_the_built_in_one_computes_the_same(custom):
    mine = custom("class f(Attention):\n    pass\n")
    given = {"width": 24, "num_heads": 2, "depth": 2}
    models = [
        ViT(ModelConfig(attention=attention, **given), generator=torch.Generator().manual_seed(1))
        for attention in ("standard", mine)
    ]
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(*(model(images) for model in models))  # the built-in one makes fewer tokens at last
    assert type(models[0].blocks[0].attn) is Attention and type(models[1].blocks[0].attn) is not Attention


def test_rotary_positions_reach_a_custom_attention(custom):
    mine = custom(init("assert r is not None"))
    trainer(model__attention=mine, model__positions="rope", model__num_heads=3)
    assert "AssertionError" in refused(model__attention=mine)


def test_weights_that_a_module_draws_itself_follow_from_the_seed(custom):
    mine = custom(init("self.mine = nn.Parameter(torch.randn(5))"))
    drawn = [[block.attn.mine for block in trainer(model__attention=mine, seed=s).model.blocks] for s in (0, 0, 1)]
    assert torch.equal(drawn[0][0], drawn[1][0]) and not torch.equal(drawn[0][0], drawn[2][0])
    assert not torch.equal(drawn[0][0], drawn[0][1]), "blocks differ"
    before = torch.random.get_rng_state()
    with fork_of(torch.Generator().manual_seed(3)):
        torch.randn(5)
    assert torch.equal(before, torch.random.get_rng_state()), "PyTorch's own generator is left as it was"


def test_a_list_of_weights_that_are_saved_can_be_part_of_it(custom):
    trainer(model__attention=custom(init("self.all = [self.fc.weight, self.fc.bias]")))


def test_a_convolution_without_a_bias_can_be_part_of_it(custom):
    trainer(model__block=custom(init("self.conv = nn.Conv2d(3, 3, 1, bias=False)")))


@pytest.mark.parametrize("field", ["model__attention", "model__block"])
@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ("def f(config, rotary):\n    return 3\n", "makes a int; it must make a torch.nn.Module"),
        ("class f(nn.Module):\n    pass\n", "fails when called with (config, rotary): TypeError"),
        (forward("pass", "self"), "TypeError"),
        (forward("return x[:, 1:]"), "returns float32 2x16x24 in forward(x"),
        (forward("return x, x"), "returns a tuple in forward(x"),
        (forward("return x @ x"), "RuntimeError"),
        (init("self.twice = 2 * self.fc.weight"), "cannot be copied"),
    ],
)
def test_a_part_of_the_model_that_does_not_fit_is_refused(custom, field, lines, words):
    assert words in refused(**{field: custom(lines)})


HIDDEN = [
    ("self.experts = [nn.Linear(c.width, c.width)]", "self.experts[0](x)", "self.experts"),
    ("self.experts = {'a': nn.Linear(c.width, c.width)}", "self.experts['a'](x)", "self.experts"),
    ("self.mix = torch.randn(c.width)", "x * self.mix", "self.mix"),
    ("self.heat = torch.ones((), requires_grad=True)", "self.fc(x) * self.heat", "self.heat"),
    ("self.fc.mix = torch.randn(c.width)", "x * self.fc.mix", "self.fc.mix"),
    ("self.fc.gain = nn.Parameter(torch.zeros(())); self.mix = torch.randn(c.width)",
     "x + self.fc.gain * self.mix", "self.mix"),
    ("mix = torch.randn(c.width); self.mix = lambda x: x * mix", "self.mix(x)", "something that the constructor draws"),
]  # fmt: skip


@pytest.mark.parametrize("field", ["model__attention", "model__block"])
@pytest.mark.parametrize(("made", "given", "words"), HIDDEN)
def test_what_is_not_saved_with_the_model_is_refused(custom, field, made, given, words):
    lines = init(made) + f"    def forward(self, x, keep=None):\n        return {given}\n"
    assert f"computes with {words}, which is neither trained nor saved" in refused(**{field: custom(lines)})


@pytest.mark.parametrize("field", ["model__attention", "model__block"])
def test_what_is_saved_or_the_same_in_every_model_may_be_computed_with(custom, field):
    made = "self.register_buffer('mix', torch.randn(c.width)); self.register_buffer('log', torch.randn(3).log())"
    made += "; self.even = torch.ones(c.width); self.more = nn.ModuleList([nn.Dropout(), nn.BatchNorm1d(c.width)])"
    given = "self.more[0](self.more[1]((x * self.mix * self.even).transpose(1, 2)).transpose(1, 2) + self.fc(x))"
    trainer(**{field: custom(init(made) + f"    def forward(self, x, keep=None):\n        return {given}\n")})


@pytest.mark.parametrize("field", ["model__attention", "model__block"])
@pytest.mark.parametrize("given", ["x - x.mean(0, keepdim=True)", "x.roll(1, 0)"])
def test_other_images_of_the_batch_must_not_count(custom, field, given):
    assert "after eval() an image must not depend on others" in refused(
        **{field: custom(forward(f"return self.fc({given})"))}
    )


@pytest.mark.parametrize("field", ["model__attention", "model__block"])
def test_what_is_given_after_eval_must_be_tokens_too(custom, field):
    for given in ("(x, x)", "x[:, 1:]"):
        lines = forward(f"return self.fc(x) if self.training else {given}")
        assert "after eval(); it must return tokens 2x17x24" in refused(**{field: custom(lines)})


def test_a_block_may_ask_for_stochastic_depth(custom):
    trainer(model__block=custom("class f(Thru):\n    def forward(self, x, keep):\n        return self.fc(x)\n"))


@pytest.mark.parametrize("field", ["model__attention", "model__block"])
def test_whole_numbers_and_tied_weights_can_be_part_of_it(custom, field, tmp_path):
    made = "self.order = nn.Parameter(torch.arange(c.width), requires_grad=False); self.again = nn.Linear(c.width, c.width)"
    lines = init(f"{made}; self.again.weight = self.fc.weight")
    lines += "    def forward(self, x, keep=None):\n        return self.again(self.fc(x[..., self.order]))\n"
    run = trainer(**{field: custom(lines)})
    trained = TrainedModel(run.model, ("a", "b", "c"), (0.5,) * 3, (0.2,) * 3)
    trained.save(tmp_path / "model.safetensors")
    again = load_model(tmp_path / "model.safetensors", allow_code=True)
    assert np.array_equal(trained.logits(SET.images), again.logits(SET.images))


def test_whole_numbers_are_not_averaged(custom):
    made = "self.order = nn.Parameter(torch.arange(c.width).flip(0), requires_grad=False)"
    lines = init(made) + "    def forward(self, x, keep=None):\n        return self.fc(x[..., self.order])\n"
    run = trainer(model__block=custom(lines), optim__ema_decay=0.9)
    run.step.set_chunk(run.chunks.load(0, 0, 1))
    run.step()
    averaged = run.averaged().state_dict()
    assert all(torch.equal(averaged[name], tensor) for name, tensor in run.model.state_dict().items())


def test_a_block_without_a_gradient_is_refused(custom):
    lines = forward("return x.detach()")
    assert "cannot be trained: RuntimeError" in refused(model__block=custom(lines))


def test_a_block_must_take_stochastic_depth(custom):
    lines = forward("return x * keep")
    assert "forward(x, keep)" in refused(model__block=custom(lines))


def test_an_attention_that_the_custom_block_does_not_use_is_refused(custom):
    attention = custom("class f(Attention):\n    pass\n")
    assert "has no effect" in refused(model__attention=attention, model__block=custom("class f(Thru):\n    pass\n"))
    using = custom(init("self.attn = make_attention(c, r)"))
    trainer(model__attention=attention, model__block=using)


def test_what_cannot_be_compiled_is_refused_where_it_would_be(custom):
    mine = custom(forward("return x if x.sum() > 0 else -x"))
    assert "cannot be compiled in one piece" in refused(model__attention=mine, train__compile=True)


def test_what_fails_in_bf16_only_is_refused_before_the_first_step(custom):
    lines = forward("return self.fc(x) if x.dtype != torch.bfloat16 else 1 / 0")
    trainer(model__attention=custom(lines))
    assert "ZeroDivisionError" in refused(model__attention=custom(lines), train__precision="bf16")


# ---------------------------------------------------------------- optimizer


def test_a_custom_optimizer_steps_like_the_built_in_one_that_it_is(custom):
    mine = custom("def f(groups, config):\n    return Lion(groups, lr=0.0, betas=(0.9, 0.99))\n")
    runs = [trainer(optim__name=name) for name in ("lion", mine)]
    for run in runs:
        run.step.set_chunk(run.chunks.load(0, 0, 2))
        run.step.factors.fill_(1.0)
        run.step()
        run.step()
    for a, b in zip(*(run.model.parameters() for run in runs), strict=True):
        assert torch.equal(a, b)
    assert runs[0].step.state().keys() == runs[1].step.state().keys()


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ("def f(groups):\n    pass\n", "fails when called with (groups, config): TypeError"),
        ("def f(groups, config):\n    return 1\n", "makes a int; it must make a torch.optim.Optimizer"),
        ("def f(groups, config):\n    return torch.optim.SGD(groups[0]['params'])\n", "replaces the groups' lr"),
        ("def f(groups, config):\n    groups[0]['params'].pop()\n    return Lion(groups, 0.0)\n", "1 parameters of 2"),
        (update("torch._foreach_sub_(p, g)"), "moves weights at learning rate 0"),
        (update("pass"), "does not move the weights"),
        (update("for x in p:", "    self.state[x]['steps'] = 3"), "keeps 'steps' as a int; keep it in a tensor"),
        (
            update(
                "for x in p:",
                "    self.before = [*getattr(self, 'before', []), self.state[x].get('m')]",
                "    self.state[x]['m'] = torch.ones(9999)",
                "    x.sub_(group['lr'])",
            ),
            "makes new state tensors",
        ),
        (update("1 / 0"), "fails in step(): ZeroDivisionError"),
        (update("self.state['all']['n'] = torch.ones(1)", "torch._foreach_sub_(p, group['lr'])"), "to no parameter"),
        (
            update(
                "for x, dx in zip(p, g):",
                "    slow = self.state[x].setdefault('slow', x.clone())",
                "    slow.add_(0.5 * (x - group['lr'] * dx - slow))",
                "    x.copy_(slow)",
            ),
            "has state that does not start at zero",
        ),
        (update("self.t = getattr(self, 't', 0) + 1", "torch._foreach_sub_(p, group['lr'] / self.t)"), "self.state"),
        (update("group['t'] = group.get('t', 0) + 1", "torch._foreach_sub_(p, group['lr'] / group['t'])"), "self.state"),
        (
            update(
                "self.m = getattr(self, 'm', {})",
                "for x, dx in zip(p, g):",
                "    x.sub_(group['lr'] * self.m.setdefault(x, torch.zeros_like(x)).mul_(0.9).add_(dx))",
            ),
            "continues differently in a resumed run",
        ),
        (update("torch._foreach_add_(p, group['lr'].sign() * 3e38)"), "makes weights that are not finite"),
    ],
)  # fmt: skip
def test_an_optimizer_that_does_not_fit_is_refused(custom, lines, words):
    assert words in refused(optim__name=custom(lines))


def test_an_optimizer_that_draws_random_numbers_fits(custom):
    drawn = "for x in p: x.sub_(group['lr'] * self.state[x].setdefault('m', 0 * x).add_(torch.rand_like(x)))"
    trainer(optim__name=custom(update(drawn)))


# ---------------------------------------------------------------- augmentation


def test_a_custom_augmentation_sees_pixels_and_numbers_of_each_image(custom):
    mine = custom("def f(images, draws):\n    assert draws.shape == (len(images), 16)\n"
               "    return torch.where(draws[:, :1, None, None] < 0.5, 255 - images, images)\n")  # fmt: skip
    plain, run = trainer(augment__policy="none"), trainer(augment__policy=mine)
    plan, same = run.chunks.plan(0), plain.chunks.plan(0)
    before, after = (r.loader.load(p, 0, 3).images for r, p in ((plain, same), (run, plan)))
    inverted = torch.from_numpy(plan.images.draws[:, 0] < 0.5)
    assert 0 < inverted.sum() < len(inverted) == 24
    assert torch.equal(after[inverted], 255 - before[inverted]) and torch.equal(after[~inverted], before[~inverted])
    one = run.loader.load(plan, 2, 1).images
    assert torch.equal(one, after[16:]), "the same in a smaller chunk"
    batch = trainer(augment__policy=mine, data__repeats="batch").chunks.plan(0)
    assert batch.images.draws.shape == (24, 16)


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ("def f(images):\n    return images\n", "fails when called with (images, draws): TypeError"),
        ("def f(images, draws):\n    return images.float()\n", "returns torch.float32 (4, 16, 16, 3); it must"),
        ("def f(images, draws):\n    return images[:, 1:]\n", "(4, 15, 16, 3)"),
        ("def f(images, draws):\n    return None\n", "returns a NoneType"),
        ("def f(images, draws):\n    return images.roll(1, 0)\n", "in another place of the batch"),
        ("def f(images, draws):\n    return images // 2 + images.flip(0) // 2\n", "or among other images"),
        ("def f(images, draws):\n    return images // 2 + images.roll(1, 0) // 2\n", "or among other images"),
        ("def f(images, draws):\n    return (images.float() - images.float().mean() / 2).abs().byte()\n", "or among"),
        ("def f(images, draws):\n    return (images * torch.rand(())).to(torch.uint8)\n", "no random numbers"),
    ],
)
def test_an_augmentation_that_does_not_fit_is_refused(custom, lines, words):
    assert words in refused(augment__policy=custom(lines))


# ---------------------------------------------------------------- schedule


def test_a_custom_schedule_equal_to_a_built_in_one_is_that(custom):
    mine = custom("def f(progress):\n    return (1 + np.cos(np.pi * progress)) / 2\n")
    tables = [lr_table(ScheduleConfig(name=name), peak=1e-3, steps_per_pass=3) for name in (mine, "cosine")]
    assert np.array_equal(*tables)


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ("def f():\n    pass\n", "fails when called with (progress): TypeError"),
        ("def f(progress):\n    return 1.0\n", "returns numbers of shape (); it must return (6,), one per step"),
        ("def f(progress):\n    return 'high'\n", "returns a str; it must return an array of numbers"),
        ("def f(progress):\n    return 0.5 - progress\n", "at progress 0.667; it must return numbers of at least 0"),
        ("def f(progress):\n    return np.log(-1 - progress)\n", "returns nan at progress 0.000"),
    ],
)
@pytest.mark.filterwarnings("ignore:invalid value")
def test_a_schedule_that_does_not_fit_is_refused(custom, lines, words):
    assert words in refused(schedule__name=custom(lines))


# ---------------------------------------------------------------- the examples of the docs


def test_the_examples_fit():
    parts = EXAMPLES / "my_parts.py"
    fields = {"optim.name": "SignSGD", "augment.policy": "dim", "schedule.name": "square"}
    fields["model.block"] = "ParallelBlock"
    fields = {name: f"{parts}:{value}" for name, value in fields.items()}
    run = trainer(model__attention=f"{EXAMPLES}/my_attention.py:MyAttention", **fields)
    run.step.set_chunk(run.chunks.load(0, 0, 1))
    run.step()
    assert torch.isfinite(run.step.losses[0])
    assert isinstance(run.model.blocks[0].attn, nn.Module)
    assert not isinstance(build_optimizers(run.config.optim, run.model)[0], Lion)
    assert override(RunConfig(), fields).schedule.name.load()(np.array([0.0, 1.0])).tolist() == [1, 0]
