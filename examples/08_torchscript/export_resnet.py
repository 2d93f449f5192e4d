#!/usr/bin/env python3
"""Writes a small residual network for 28x28 grey images as a TorchScript file.

    examples/08_torchscript/export_resnet.py net.pt [--seed 1]

Any module that torch.jit.script takes will do, if forward(images) gives one row of class scores for each
image. The file's weights are the run's model before its first round.
"""
import argparse

import torch
from torch import nn


class Block(nn.Module):
    """Two 3x3 convolutions and a way around them (He et al. 2016)."""

    def __init__(self, inputs: int, outputs: int, stride: int):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
            nn.Conv2d(outputs, outputs, 3, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
        )
        self.around = nn.Sequential(
            nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
        )
        self.relu = nn.ReLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.relu(self.body(x) + self.around(x))


def resnet(classes: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1, bias=False),  # [n, 1, 28, 28]: images come channels first
        nn.BatchNorm2d(8),
        nn.ReLU(),
        Block(8, 16, 2),
        Block(16, 32, 2),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(32, classes),
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", nargs="?", default="net.pt")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    torch.manual_seed(options.seed)
    model = resnet(classes=10)
    torch.jit.script(model).save(options.file)
    print(f"{options.file}: {sum(p.numel() for p in model.parameters())} parameters")
