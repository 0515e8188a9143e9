"""vit-pytorch: its model in a plain loop, with torchvision's transforms, a `DataLoader`, and PyTorch's optimizer."""

import torch
from torch.optim.lr_scheduler import OneCycleLR
from torchvision.transforms import v2
from vit_pytorch import ViT

from benchmarks.peers.clock import Clock
from benchmarks.peers.loading import accuracy, loaders
from benchmarks.peers.task import Task

task = Task.read()
clock = Clock(task.passes * task.steps_per_pass * task.batch_size)
train_loader, test_loader = loaders(task)
model = ViT(
    image_size=task.side,
    patch_size=task.patch_size,
    num_classes=task.num_classes,
    dim=task.width,
    depth=task.depth,
    heads=task.num_heads,
    dim_head=task.width // task.num_heads,
    mlp_dim=task.hidden,
).to(task.device)
optimizer = torch.optim.AdamW(model.parameters(), lr=task.lr, weight_decay=task.weight_decay)
scheduler = OneCycleLR(optimizer, task.lr, task.passes * task.steps_per_pass, pct_start=task.warmup or 1e-9)
criterion = torch.nn.CrossEntropyLoss(label_smoothing=task.label_smoothing)
mixing = v2.RandomChoice([v2.MixUp(num_classes=task.num_classes), v2.CutMix(num_classes=task.num_classes)])
mixing = v2.RandomApply([mixing], p=task.mix)
compiled = torch.compile(model) if task.gpu else model
for _ in range(task.passes):
    model.train()
    for images, labels in train_loader:
        images, labels = images.to(task.device, non_blocking=True), labels.to(task.device, non_blocking=True)
        images, labels = mixing(images, labels) if task.mix else (images, labels)
        with task.autocast():
            loss = criterion(compiled(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        scheduler.step()
        clock.step(len(images))
clock.trained()
clock.result(accuracy(model, test_loader, task.device))
