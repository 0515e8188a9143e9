"""timm: its model, mixing, optimizer and schedule, with a `DataLoader`."""

import torch
from timm.data import Mixup
from timm.loss import SoftTargetCrossEntropy
from timm.models.vision_transformer import VisionTransformer
from timm.optim import create_optimizer_v2
from timm.scheduler import CosineLRScheduler

from benchmarks.peers.clock import Clock
from benchmarks.peers.loading import accuracy, loaders
from benchmarks.peers.task import Task

task = Task.read()
clock = Clock(task.passes * task.steps_per_pass * task.batch_size)
train_loader, test_loader = loaders(task)
model = VisionTransformer(
    img_size=task.side,
    patch_size=task.patch_size,
    num_classes=task.num_classes,
    embed_dim=task.width,
    depth=task.depth,
    num_heads=task.num_heads,
    mlp_ratio=task.hidden / task.width,
    drop_path_rate=task.drop_path,
).to(task.device)
optimizer = create_optimizer_v2(model, "adamw", lr=task.lr, weight_decay=task.weight_decay)
steps = task.passes * task.steps_per_pass
scheduler = CosineLRScheduler(
    optimizer, steps, warmup_t=int(task.warmup * steps), warmup_lr_init=1e-6, warmup_prefix=True, t_in_epochs=False
)
mixup = Mixup(
    mixup_alpha=1.0, cutmix_alpha=1.0, prob=task.mix, label_smoothing=task.label_smoothing, num_classes=task.num_classes
)
criterion = SoftTargetCrossEntropy()
compiled = torch.compile(model) if task.gpu else model
step = 0
for _ in range(task.passes):
    model.train()
    for images, labels in train_loader:
        images, labels = images.to(task.device, non_blocking=True), labels.to(task.device, non_blocking=True)
        images, targets = mixup(images, labels)
        with task.autocast():
            loss = criterion(compiled(images), targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        step += 1
        scheduler.step_update(step)
        clock.step(len(images))
clock.trained()
clock.result(accuracy(model, test_loader, task.device))
