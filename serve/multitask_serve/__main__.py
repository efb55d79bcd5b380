"""Entry point of `python -m multitask_serve`."""

import sys

from multitask_serve.cli import main

if __name__ == "__main__":
    sys.exit(main())
