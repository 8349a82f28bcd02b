"""python -m tests.attacks --n 5000: every attack, one after another; see attacks.py."""

import sys
from pathlib import Path

sys.path[:0] = map(str, (Path(__file__).parent, Path(__file__).parents[1]))

if __name__ == "__main__":
    from attacks import main

    sys.exit(main())
