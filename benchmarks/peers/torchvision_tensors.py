"""torchvision: its model, and its v2 transforms for whole batches on the device, which draw once for a batch."""

import torch
from torch.optim.lr_scheduler import OneCycleLR
from torchvision.models import VisionTransformer
from torchvision.transforms import AutoAugmentPolicy, v2

from benchmarks.peers.clock import Clock
from benchmarks.peers.task import Task

task = Task.read()
clock = Clock(task.passes * task.steps_per_pass * task.batch_size)
data = {name: torch.from_numpy(array).to(task.device) for name, array in task.arrays.items()}
images, labels = data["train_images"].permute(0, 3, 1, 2).contiguous(), data["train_labels"].long()
normalize = [v2.ToDtype(torch.float32, scale=True), v2.Normalize(task.mean, task.std)]
augment = v2.Compose(
    [
        v2.RandomHorizontalFlip(task.flip),
        v2.RandomCrop(task.side, padding=task.crop_pad),
        *([v2.AutoAugment(AutoAugmentPolicy.CIFAR10)] if task.autoaugment else []),
        *normalize,
        *([v2.RandomErasing(task.erase, scale=(0.02, 0.4))] if task.erase else []),
    ]
)
mixing = v2.RandomChoice([v2.MixUp(num_classes=task.num_classes), v2.CutMix(num_classes=task.num_classes)])
mixing = v2.RandomApply([mixing], p=task.mix)
model = VisionTransformer(
    image_size=task.side,
    patch_size=task.patch_size,
    num_layers=task.depth,
    num_heads=task.num_heads,
    hidden_dim=task.width,
    mlp_dim=task.hidden,
    num_classes=task.num_classes,
).to(task.device)
optimizer = torch.optim.AdamW(model.parameters(), lr=task.lr, weight_decay=task.weight_decay, fused=task.gpu)
scheduler = OneCycleLR(optimizer, task.lr, task.passes * task.steps_per_pass, pct_start=task.warmup or 1e-9)
criterion = torch.nn.CrossEntropyLoss(label_smoothing=task.label_smoothing)
compiled = torch.compile(model) if task.gpu else model
for _ in range(task.passes):
    model.train()
    order = torch.randperm(len(images), device=task.device)
    for chosen in order[: task.steps_per_pass * task.batch_size].split(task.batch_size):
        batch, targets = augment(images[chosen]), labels[chosen]
        batch, targets = mixing(batch, targets) if task.mix else (batch, targets)
        with task.autocast():
            loss = criterion(compiled(batch), targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        scheduler.step()
        clock.step(len(batch))
clock.trained()
model.eval()
with torch.no_grad():
    tests = v2.Compose(normalize)(data["test_images"].permute(0, 3, 1, 2))
    predicted = torch.cat([model(part).argmax(1) for part in tests.split(500)])
clock.result((predicted == data["test_labels"]).float().mean().item())
