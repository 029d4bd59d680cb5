"""From the content of a file to ``Weights``: detection of the network and the input convention, and checks.

Each format implies a convention: Keras ``caffe``, MatConvNet and ``.npz`` ``caffe-rgb``, ``.pth`` and ``.safetensors``
``torchvision``. But ``.pth`` files of both kinds have the same keys, and converters swap channels, so the first layer
decides. Every VGG of the Caffe conventions descends from Oxford's, and the first layer changes little in retraining:
the cosine similarity between conv1_1 of the bundled VGG-19 and of ``vgg16-hed`` is 0.99, and 0.83 with reversed
channels. A file whose conv1_1 has a similarity above 0.9 with the bundled one is ``caffe``, or ``caffe-rgb`` if its
reversed channels are more similar. If its norm is more than 10 times larger, torchvision's division by 255 * 0.225 is
folded into it, and it is ``torchvision``. All other files follow their format.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch

from fastnst.errors import UsageError, WeightsError, nearest
from fastnst.weights import Weights
from fastnst.weights.bundle import oxford_first_layer
from fastnst.weights.layout import ARCHS, CONVENTIONS, TITLES, conv_shapes, detect_arch, span
from fastnst.weights.readers.common import Content


def assemble(
    label: str,
    content: Content,
    arch: str | None,
    convention: str | None,
    need: Iterable[str],
    default_arch: str | None = None,
) -> Weights:
    """Check ``content`` against its network, and convert it to float32 and RGB.

    ``label`` names the file in errors. ``arch`` and ``convention`` are detected if None; ``default_arch`` is used if
    the file does not determine the network.
    """
    arch = _arch(label, content, arch, default_arch)
    _require(label, arch, content.convs, need)
    convs = {name: (weight.float(), bias.float()) for name, (weight, bias) in content.convs.items()}
    for name, tensors in convs.items():
        _check(label, arch, name, *tensors)
    chosen = CONVENTIONS[convention or _convention(content)]
    if chosen.bgr and "conv1_1" in convs:
        weight, bias = convs["conv1_1"]
        convs["conv1_1"] = (weight.flip(1), bias)
    own_mean = content.mean if chosen.scale == (1.0, 1.0, 1.0) else None
    return Weights(
        arch=arch,
        # copied, so that nothing depends on the file after loading
        convs={
            name: (weight.clone(memory_format=torch.contiguous_format), bias.clone())
            for name, (weight, bias) in convs.items()
        },
        mean=own_mean or chosen.mean,
        scale=chosen.scale,
        name=content.name or label,
        license=content.license or "unknown",
        source=content.source or label,
    )


def check_arguments(arch: str | None, convention: str | None, need: Iterable[str]) -> None:
    """Raise UsageError for an unknown network, convention or layer name."""
    if arch is not None and arch not in ARCHS:
        raise UsageError(f"weights: arch is {' or '.join(ARCHS)}, not {arch!r}{nearest(arch, ARCHS)}")
    if convention is not None and convention not in CONVENTIONS:
        known = ", ".join(CONVENTIONS)
        raise UsageError(f"weights: convention is one of {known}, not {convention!r}{nearest(convention, CONVENTIONS)}")
    known_layers = [*conv_shapes("vgg19"), *conv_shapes("vgg16")]
    for name in need:
        if name not in known_layers:
            raise UsageError(f"weights: no VGG has a convolution {name!r}{nearest(name, known_layers)}")


def _arch(label: str, content: Content, asked: str | None, default: str | None) -> str:
    found = content.arch or detect_arch(content.convs)
    asked = asked or (default if found is None else None)
    if found is None and asked is None:
        raise WeightsError(
            f"{label}: holds {span(content.convs)}, which VGG-16 and VGG-19 both have; "
            "say which with arch='vgg16' or arch='vgg19'"
        )
    if found is not None and asked not in (None, found):
        raise WeightsError(f"{label}: holds {TITLES[found]}, not {TITLES[str(asked)]}")
    return str(found or asked)


def _require(label: str, arch: str, present: Iterable[str], need: Iterable[str]) -> None:
    held = set(present)
    missing = [name for name in dict.fromkeys(need) if name not in held]
    if missing:
        raise WeightsError(f"{label}: lacks {', '.join(missing)}; it holds {span(held)} of {TITLES[arch]}")


def _check(label: str, arch: str, name: str, weight: torch.Tensor, bias: torch.Tensor) -> None:
    if name not in conv_shapes(arch):
        raise WeightsError(f"{label}: holds {name}, which {TITLES[arch]} does not have")
    for part, tensor in (("weight", weight), ("bias", bias)):
        if not tensor.isfinite().all():
            raise WeightsError(f"{label}: {name} {part} holds NaN or infinite values (as float32)")


def _convention(content: Content) -> str:
    """Detect the convention as described above."""
    if content.settled or "conv1_1" not in content.convs:
        return content.convention
    weight = content.convs["conv1_1"][0].float()
    oxford = oxford_first_layer()
    size = float(weight.norm())
    similarity = {
        order: float((weight * like).sum()) for order, like in (("caffe", oxford), ("caffe-rgb", oxford.flip(1)))
    }
    best = max(similarity, key=similarity.__getitem__)
    if similarity[best] <= 0.9 * size * float(oxford.norm()):
        return content.convention
    return "torchvision" if size > 10 * float(oxford.norm()) else best
