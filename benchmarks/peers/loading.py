"""The usual torchvision pipeline: transforms for one image after another, in a `DataLoader` with worker processes."""

import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms
from torchvision.transforms import AutoAugmentPolicy

from benchmarks.peers.task import Task


class Images(Dataset):
    """Images with transforms."""

    def __init__(self, images, labels, transform):
        self.images, self.labels, self.transform = images, labels, transform

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        return self.transform(Image.fromarray(self.images[index])), int(self.labels[index])


def datasets(task: Task):
    """The training images, augmented, and the test images."""
    normalize = [transforms.ToTensor(), transforms.Normalize(task.mean, task.std)]
    augment = [
        transforms.RandomHorizontalFlip(task.flip),
        transforms.RandomCrop(task.side, padding=task.crop_pad),
        *([transforms.AutoAugment(AutoAugmentPolicy.CIFAR10)] if task.autoaugment else []),
        *normalize,
        *([transforms.RandomErasing(task.erase, scale=(0.02, 0.4))] if task.erase else []),
    ]
    data = task.arrays
    return (
        Images(data["train_images"], data["train_labels"], transforms.Compose(augment)),
        Images(data["test_images"], data["test_labels"], transforms.Compose(normalize)),
    )


def loaders(task: Task):
    """Loaders of both."""
    train, test = datasets(task)
    common = {"num_workers": task.num_workers, "pin_memory": task.gpu, "persistent_workers": task.num_workers > 0}
    return (DataLoader(train, task.batch_size, shuffle=True, drop_last=True, **common), DataLoader(test, 500, **common))


@torch.no_grad()
def accuracy(model, loader, device):
    """The share of images that are classified correctly."""
    model.eval()
    right = [(model(x.to(device)).argmax(1) == y.to(device)).float() for x, y in loader]
    return torch.cat(right).mean().item()
