"""Hugging Face: `ViTForImageClassification` with `Trainer`."""

import tempfile

import torch
from timm.data import Mixup
from torch.utils.data import default_collate
from transformers import Trainer, TrainerCallback, TrainingArguments, ViTConfig, ViTForImageClassification

from benchmarks.peers.clock import Clock
from benchmarks.peers.loading import datasets
from benchmarks.peers.task import Task


class Tell(TrainerCallback):  # clock
    """Tells the clock of the steps."""  # clock

    def on_step_end(self, args, state, control, **kwargs):  # clock
        """One more step is done."""  # clock
        clock.step(task.batch_size)  # clock


def mixed(examples):
    """A batch for training, mixed."""
    images, labels = default_collate(examples)
    images, targets = mixup(images, labels)
    return {"pixel_values": images, "labels": targets}


def plain(examples):
    """A batch for evaluation."""
    images, labels = default_collate(examples)
    return {"pixel_values": images, "labels": labels}


def loss_of(outputs, labels, num_items_in_batch=None):
    """The cross-entropy with soft targets."""
    return torch.nn.functional.cross_entropy(outputs.logits, labels)


task = Task.read()
clock = Clock(task.passes * task.steps_per_pass * task.batch_size)
train, test = datasets(task)
mixup = Mixup(
    mixup_alpha=1.0, cutmix_alpha=1.0, prob=task.mix, label_smoothing=task.label_smoothing, num_classes=task.num_classes
)
mixup.device = "cpu"
model = ViTForImageClassification(
    ViTConfig(
        image_size=task.side,
        patch_size=task.patch_size,
        num_labels=task.num_classes,
        hidden_size=task.width,
        num_hidden_layers=task.depth,
        num_attention_heads=task.num_heads,
        intermediate_size=task.hidden,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
)
arguments = TrainingArguments(
    tempfile.mkdtemp(),
    per_device_train_batch_size=task.batch_size,
    per_device_eval_batch_size=500,
    num_train_epochs=task.passes,
    learning_rate=task.lr,
    weight_decay=task.weight_decay,
    lr_scheduler_type="cosine",
    warmup_steps=int(task.warmup * task.passes * task.steps_per_pass),
    bf16=task.gpu,
    torch_compile=task.gpu,
    use_cpu=not task.gpu,
    dataloader_num_workers=task.num_workers,
    dataloader_persistent_workers=task.num_workers > 0,
    dataloader_drop_last=True,
    remove_unused_columns=False,
    save_strategy="no",
    logging_strategy="no",
    report_to="none",
    disable_tqdm=True,
)
trainer = Trainer(
    model, arguments, data_collator=mixed, train_dataset=train, compute_loss_func=loss_of, callbacks=[Tell()]
)
trainer.train()
clock.trained()
trainer.data_collator = plain
trainer.args.dataloader_drop_last = False
predicted = trainer.predict(test)
clock.result(float((predicted.predictions.argmax(1) == predicted.label_ids).mean()))
