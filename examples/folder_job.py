"""Style every photograph of a folder, as a job that can be stopped and started again.

    python examples/folder_job.py photos/ painting.jpg --output styled/

Results that exist are skipped. Each run has a checkpoint beside its result, so a job that was stopped continues there.
A photograph that cannot be read is reported and skipped.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import fastnst

SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff"}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("style", type=Path)
    parser.add_argument("--output", type=Path, default=Path("styled"))
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--steps", type=int, default=100)
    options = parser.parse_args()

    options.output.mkdir(parents=True, exist_ok=True)
    failed = 0
    for photo in sorted(path for path in options.folder.iterdir() if path.suffix.lower() in SUFFIXES):
        result, checkpoint = options.output / f"{photo.stem}.png", options.output / f"{photo.stem}.ckpt"
        if result.exists() and not checkpoint.exists():
            print(f"{photo}: done before")
            continue
        try:
            picture = fastnst.stylize(
                photo, options.style, size=options.size, steps=options.steps, checkpoint=checkpoint, resume=True
            )
        except fastnst.FastnstError as error:
            print(f"{photo}: {error}", file=sys.stderr)
            failed += 1
            continue
        if picture.stopped == "interrupt":
            print(f"{photo}: stopped; start the job again to continue")
            return 130
        picture.save(result)
        checkpoint.unlink()
        print(result)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
