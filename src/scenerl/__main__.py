"""`python -m scenerl` is the command `scenerl`."""

from __future__ import annotations

import sys

from scenerl.cli import main

if __name__ == "__main__":
    sys.exit(main())
