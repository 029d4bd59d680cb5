"""From what a file holds to ``Weights``: which network, which input convention, are all shapes right.

The rule for the convention. Each format stands for one: Keras for ``caffe``, MatConvNet and ``.npz`` for ``caffe-rgb``,
``.pth`` and ``.safetensors`` for ``torchvision``. But ``.pth`` files of both kinds have the same keys, and channels are
swapped by converters, so the first layer has the last word: every Caffe-convention VGG descends from Oxford's, and the
first layer changes little in retraining (cosine 0.99 between the bundled VGG-19's and that of ``vgg16-hed``; 0.83 with
its channels reversed). A file whose conv1_1 has a cosine above 0.9 with the bundled one is taken as ``caffe``, or as
``caffe-rgb`` if its reversed channels fit better; where it is over 10 times larger, torchvision's division by
255 * 0.225 has been folded into it, and it is taken as ``torchvision``. All other files follow their format.
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
    """Check ``content`` against the network it should be and bring it to float32 and RGB.

    ``label`` names the file in errors. ``arch`` and ``convention`` are the caller's word, None to detect them;
    ``default_arch`` is used where neither the caller nor the file tells.
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
        # a copy where needed, so that nothing depends on the file once it is loaded
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
    """Apply the rule above."""
    if content.settled or "conv1_1" not in content.convs:
        return content.convention
    weight = content.convs["conv1_1"][0].float()
    oxford = oxford_first_layer()
    size = float(weight.norm())
    likeness = {
        order: float((weight * like).sum()) for order, like in (("caffe", oxford), ("caffe-rgb", oxford.flip(1)))
    }
    best = max(likeness, key=likeness.__getitem__)
    if likeness[best] <= 0.9 * size * float(oxford.norm()):
        return content.convention
    return "torchvision" if size > 10 * float(oxford.norm()) else best
