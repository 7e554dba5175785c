"""`python -m krelax`."""

from krelax.cli import main

main()
