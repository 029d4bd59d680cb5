"""Train a feed-forward network that paints any photograph in one style, and paint with it.

    python examples/train_network.py --style painting.jpg --photos photos/ --paint photo.jpg --output painted.png
    torchrun --nproc-per-node 2 examples/train_network.py --steps 2000

The network and its loss are those of Johnson, Alahi and Fei-Fei, "Perceptual losses for real-time style transfer and
super-resolution", ECCV 2016, smaller, with the instance normalization of Ulyanov, Vedaldi and Lempitsky (2016). Without
arguments it learns the shipped painting from crops and reflections of the shipped photograph. On CUDA it runs under
autocast in bfloat16 and channels_last; under torchrun each process trains on crops of its own.
"""

from __future__ import annotations

import argparse
import os
import random
from itertools import pairwise
from pathlib import Path

import torch
import torch.distributed
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

import fastnst
from fastnst import VGG, images, losses, ops, weights

ASSETS = Path(fastnst.__file__).parent / "assets"
STYLE_LAYERS = ("relu1_1", "relu2_1", "relu3_1", "relu4_1")
CONTENT_LAYER = "relu3_1"


def convolution(inputs: int, outputs: int, size: int, stride: int = 1) -> list[nn.Module]:
    return [nn.Conv2d(inputs, outputs, size, stride, size // 2, padding_mode="reflect")]


def normalized(inputs: int, outputs: int, size: int, stride: int = 1) -> list[nn.Module]:
    return [*convolution(inputs, outputs, size, stride), nn.InstanceNorm2d(outputs, affine=True), nn.ReLU()]


class Residual(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(*normalized(channels, channels, 3), *normalized(channels, channels, 3)[:-1])

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x)


class Painter(nn.Module):
    """Images ``[B, 3, H, W]`` in 0..1 to images of that size: down by 4, residual blocks, and up again."""

    def __init__(self, channels: int = 16, blocks: int = 3) -> None:
        super().__init__()
        sizes = (channels, 2 * channels, 4 * channels)
        layers = normalized(3, channels, 9)
        for inputs, outputs in pairwise(sizes):
            layers += normalized(inputs, outputs, 3, stride=2)
        layers += [Residual(sizes[-1]) for _ in range(blocks)]
        for inputs, outputs in pairwise(reversed(sizes)):
            layers += [nn.Upsample(scale_factor=2), *normalized(inputs, outputs, 3)]
        last = nn.Conv2d(channels, 3, 9, padding=4, padding_mode="reflect")
        nn.init.zeros_(last.weight)  # training starts from the photograph itself
        self.layers = nn.Sequential(*layers, last)

    def forward(self, image: Tensor) -> Tensor:
        height, width = image.shape[2:]
        whole = F.pad(image, (0, -width % 4, 0, -height % 4), mode="replicate")
        change = self.layers(whole - 0.5)[..., :height, :width]
        return torch.sigmoid(torch.logit(image, 0.02) + change.float())


class PerceptualLoss(nn.Module):
    """Distance of painted images to their photographs, and to the style, in the features of VGG."""

    def __init__(self, style: Tensor, options: argparse.Namespace, device: torch.device) -> None:
        super().__init__()
        dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
        self.vgg = VGG(weights.load(), STYLE_LAYERS, device=device, dtype=dtype, winograd=device.type == "cpu")
        with torch.no_grad():
            features = self.vgg.features(255 * style, STYLE_LAYERS)
            self.styles = nn.ModuleList(losses.GramLoss(features[name]) for name in STYLE_LAYERS)
            for name, loss in zip(STYLE_LAYERS, self.styles, strict=True):
                # Relative to the size of the target, so that all layers count alike.
                loss.weight = options.style_weight / loss(torch.zeros_like(features[name])).item()
        self.smooth = losses.TotalVariationLoss("squared", options.smoothness)
        self.content = options.content_weight

    def forward(self, painted: Tensor, photo: Tensor) -> Tensor:
        """The mean over the batch."""
        with torch.no_grad():
            wanted = self.vgg.features(255 * photo, [CONTENT_LAYER])[CONTENT_LAYER]
        found = self.vgg.features(255 * painted, STYLE_LAYERS)
        style = torch.stack([loss(found[name]) for name, loss in zip(STYLE_LAYERS, self.styles, strict=True)]).sum()
        content = self.content / wanted.float().square().mean() / wanted[0].numel()
        content = content * ops.content_loss(found[CONTENT_LAYER], wanted)
        return (style + content + self.smooth(painted)) / len(photo)


def crops(photos: list[Tensor], count: int, side: int) -> Tensor:
    """Random squares of the photographs, at random sizes, half of them reflected."""
    found = []
    for _ in range(count):
        photo = random.choice(photos)
        height, width = photo.shape[2:]
        reach = random.randint(min(side, height, width), min(height, width))
        top, left = random.randint(0, height - reach), random.randint(0, width - reach)
        part = photo[..., top : top + reach, left : left + reach]
        part = F.interpolate(part, (side, side), mode="bilinear", antialias=True)
        found.append(part.flip(3) if random.random() < 0.5 else part)
    return torch.cat(found)


def train(painter: nn.Module, loss: PerceptualLoss, photos: list[Tensor], options: argparse.Namespace) -> None:
    device = photos[0].device
    optimizer = torch.optim.Adam(painter.parameters(), lr=options.rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, options.rate, options.steps + 1)
    for step in range(options.steps):
        photo = crops(photos, options.batch, options.side).contiguous(memory_format=torch.channels_last)
        optimizer.zero_grad()
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            painted = painter(photo)
        total = loss(painted, photo)
        total.backward()
        optimizer.step()
        schedule.step()
        if step % 50 == 0 or step == options.steps - 1:
            print(f"step {step + 1}: loss {total.item():.4g}", flush=True)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--style", default=ASSETS / "demo_painting.jpg", type=Path, help="the painting")
    parser.add_argument("--photos", default=ASSETS / "demo_photo.jpg", type=Path, help="a photograph, or a folder")
    parser.add_argument("--paint", default=ASSETS / "demo_photo.jpg", type=Path, help="what is painted at the end")
    parser.add_argument("--size", type=int, default=384, help="the longest side of the painted picture")
    parser.add_argument("--output", default="painted.png")
    parser.add_argument("--network", default="painter.pt", type=Path, help="where the trained network is saved")
    parser.add_argument("--trained", action="store_true", help="paint with --network instead of training it")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--side", type=int, default=96, help="of the crops, in pixels")
    parser.add_argument("--style-size", type=int, default=192, help="the longest side of the painting")
    parser.add_argument("--channels", type=int, default=16)
    parser.add_argument("--rate", type=float, default=2e-3, help="of Adam, at its highest")
    parser.add_argument("--style-weight", type=float, default=5.0)
    parser.add_argument("--content-weight", type=float, default=1.0)
    parser.add_argument("--smoothness", type=float, default=1e-4)
    return parser.parse_args()


def main() -> None:
    options = parse()
    ranks = int(os.environ.get("WORLD_SIZE", "1"))
    rank, device = int(os.environ.get("RANK", "0")), torch.device(options.device)
    if device.type == "cuda":
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    torch.manual_seed(0)
    random.seed(rank)
    painter = Painter(options.channels).to(device, memory_format=torch.channels_last)
    if options.trained:
        painter.load_state_dict(torch.load(options.network, map_location=device))
    else:
        paths = sorted(options.photos.iterdir()) if options.photos.is_dir() else [options.photos]
        photos = [images.load(path, size=4 * options.side).pixels.to(device) for path in paths]
        style = images.load(options.style, size=options.style_size).pixels.to(device)
        loss = PerceptualLoss(style, options, device)
        if ranks > 1:
            torch.distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
            train(DistributedDataParallel(painter), loss, photos, options)
            torch.distributed.barrier()
            torch.distributed.destroy_process_group()
        else:
            train(painter, loss, photos, options)
        if rank == 0:
            torch.save(painter.state_dict(), options.network)
    if rank == 0:
        with torch.no_grad():
            photo = images.load(options.paint, size=options.size).pixels.to(device, memory_format=torch.channels_last)
            images.save(options.output, painter(photo).cpu())


if __name__ == "__main__":
    main()
