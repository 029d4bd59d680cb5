"""Make the README's picture: run `fastnst demo` and save its sheet, reduced, as docs/images/demo.jpg.

python -m tools.readme_pictures
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from fastnst import images

TARGET = Path(__file__).resolve().parent.parent / "docs" / "images" / "demo.jpg"


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([sys.executable, "-m", "fastnst", "demo", "-o", folder], check=True)
        sheet = images.load(Path(folder) / "sheet.png", size=1200)
    TARGET.parent.mkdir(parents=True, exist_ok=True)
    print(images.save(TARGET, sheet.pixels, quality=88))


if __name__ == "__main__":
    main()
