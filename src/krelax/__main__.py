"""`python -m krelax`."""

import os
import sys

# Python looks for modules in the current folder first, where anybody's files may lie: `torch.py`, for one.
if not sys.flags.safe_path and sys.path[:1] == [os.getcwd()]:
    del sys.path[0]

from krelax.cli import main

main()
