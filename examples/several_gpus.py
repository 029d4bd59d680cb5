"""One large picture on several processes, on GPUs or, without one, on the CPU.

    torchrun --nproc-per-node 2 examples/several_gpus.py photo.jpg painting.jpg --size 4096 --output large.tif

torchrun starts one process per rank. Each rank computes a band of rows. The ranks exchange sums and halos with NCCL on
GPUs and with gloo on the CPU. Started without torchrun, the program computes the picture alone.
"""

from __future__ import annotations

import argparse

from fastnst import Settings, Stylizer
from fastnst.distributed import from_torchrun


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("content")
    parser.add_argument("style")
    parser.add_argument("--output", default="large.tif")
    parser.add_argument("--size", type=int, default=4096)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--device", default="auto", help="auto takes the GPU of the local rank, if there is one")
    options = parser.parse_args()

    settings = Settings.from_preset(size=options.size, steps=options.steps, tiles="on", device=options.device)
    with from_torchrun(options.device) as ranks:
        stylizer = Stylizer(settings, ranks)
        result = stylizer.run(stylizer.load_scene(options.content, options.style))
        if ranks.first:  # all ranks have the same image
            print(result.save(options.output))


if __name__ == "__main__":
    main()
