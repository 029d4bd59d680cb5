"""``python -m fastnst`` is the command ``fastnst``."""

from __future__ import annotations

import sys

from fastnst.cli import main

if __name__ == "__main__":
    sys.exit(main())
