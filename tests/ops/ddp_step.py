"""One training step of a rank in DistributedDataParallel: ``ddp_step.py FOLDER``, started by torchrun."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import torch
import torch.distributed
from test_ops_in_programs import Trained, pictures
from torch.nn.parallel import DistributedDataParallel


def main(folder: Path) -> None:
    torch.distributed.init_process_group("gloo")
    rank, count = torch.distributed.get_rank(), torch.distributed.get_world_size()
    module = Trained()
    share = pictures().chunk(count)[rank]
    parallel = DistributedDataParallel(module)
    parallel(share).backward()
    torch.save({name: p.grad for name, p in module.named_parameters()}, folder / f"{rank}.pt")
    torch.distributed.barrier()
    # On a busy machine, threads of gloo can abort the process while it ends. The gradients are written.
    os._exit(0)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
