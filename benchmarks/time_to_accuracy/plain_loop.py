"""Fine-tuning as one writes it with PyTorch at hand and nothing else: the point of reference.

Class folders, the usual augmentation, a new head, Adam, early stopping; fp32, one picture decoded
each time that it is needed. It stands alone: `python plain_loop.py --help`.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import timm
import torch
from torch import nn
from torch.utils.data import DataLoader
from torchvision import transforms
from torchvision.datasets import ImageFolder


class CarNet(nn.Module):
    """A pretrained backbone and a new head."""

    def __init__(self, backbone: str, weights: Path | None, classes: int) -> None:
        super().__init__()
        network: Any = timm.create_model(backbone, pretrained=False, num_classes=0)
        if weights is not None:
            network.load_state_dict(torch.load(weights, weights_only=True))
        features = int(network.num_features)
        self.backbone = network
        self.head = nn.Sequential(
            nn.BatchNorm1d(features), nn.Dropout(0.7), nn.Linear(features, classes)
        )

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        """Logits (N, classes) of pictures (N, 3, S, S)."""
        logits: torch.Tensor = self.head(self.backbone(pictures))
        return logits


def make_loaders(
    args: argparse.Namespace, mean: list[float], std: list[float]
) -> tuple[DataLoader[tuple[torch.Tensor, int]], DataLoader[tuple[torch.Tensor, int]], int]:
    """Loaders of the training and the test pictures, and the number of classes."""
    as_input = [transforms.ToTensor(), transforms.Normalize(mean, std)]
    larger = round(args.size * 320 / 300)
    for_training = transforms.Compose(
        [
            transforms.Resize((larger, larger)),
            transforms.RandomCrop(args.size),
            transforms.RandomHorizontalFlip(),
            transforms.RandomRotation(15),
            transforms.ColorJitter(brightness=0.2, contrast=0.2, saturation=0.2),
            *as_input,
        ]
    )
    for_testing = transforms.Compose([transforms.Resize((args.size, args.size)), *as_input])
    train = ImageFolder(args.data / "train", for_training)
    test = ImageFolder(args.data / "test", for_testing)
    return (
        DataLoader(train, args.batch_size, shuffle=True, num_workers=args.workers, drop_last=True),
        DataLoader(test, args.batch_size, num_workers=args.workers),
        len(train.classes),
    )


def train_epoch(
    model: nn.Module,
    loader: DataLoader[tuple[torch.Tensor, int]],
    optimizer: torch.optim.Optimizer,
    device: torch.device,
) -> tuple[float, int]:
    """One pass over the training pictures; returns the mean loss and how many there were."""
    criterion = nn.CrossEntropyLoss()
    model.train()
    total, seen = 0.0, 0
    for pictures, targets in loader:
        pictures, targets = pictures.to(device), targets.to(device)
        optimizer.zero_grad()
        loss = criterion(model(pictures), targets)
        loss.backward()
        optimizer.step()
        total += loss.item() * len(targets)
        seen += len(targets)
    return total / max(1, seen), seen


def accuracy_of(
    model: nn.Module, loader: DataLoader[tuple[torch.Tensor, int]], device: torch.device
) -> float:
    """Share of the test pictures whose most probable class is the right one."""
    model.eval()
    right, seen = 0, 0
    with torch.no_grad():
        for pictures, targets in loader:
            found = model(pictures.to(device)).argmax(dim=1).cpu()
            right += int((found == targets).sum())
            seen += len(targets)
    return right / seen


def main() -> None:
    """Train, and append a line to OUT/marks.jsonl after each epoch and after each test."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="a folder with train/ and test/")
    parser.add_argument("--out", type=Path, required=True, help="where marks and weights go")
    parser.add_argument("--backbone", default="tf_efficientnet_lite0", help="a timm model name")
    parser.add_argument("--weights", type=Path, help="its state dict; random weights without")
    parser.add_argument("--size", type=int, default=300)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--epochs", type=int, default=50)
    parser.add_argument("--patience", type=int, default=7, help="epochs without gain")
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--weight-decay", type=float, default=1e-4)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()

    torch.manual_seed(args.seed)
    device = torch.device(args.device)
    config = timm.get_pretrained_cfg(args.backbone)
    assert config is not None, "not a timm model"
    train, test, classes = make_loaders(args, list(config.mean), list(config.std))
    model = CarNet(args.backbone, args.weights, classes).to(device)
    optimizer = torch.optim.Adam(model.parameters(), args.lr, weight_decay=args.weight_decay)

    def say(line: dict[str, float]) -> None:
        print(line, flush=True)
        with (args.out / "marks.jsonl").open("a") as file:
            file.write(json.dumps(line) + "\n")

    best, best_epoch = 0.0, 0
    for epoch in range(1, args.epochs + 1):
        began = time.monotonic()
        loss, seen = train_epoch(model, train, optimizer, device)
        rate = seen / (time.monotonic() - began)
        say({"epoch": epoch, "loss": loss, "pictures_per_second": rate})
        accuracy = accuracy_of(model, test, device)
        say({"epoch": epoch, "accuracy": accuracy})
        if accuracy > best:
            best, best_epoch = accuracy, epoch
            torch.save(model.state_dict(), args.out / "best.pt")
        elif epoch - best_epoch >= args.patience:
            break


if __name__ == "__main__":
    main()
