"""The ways in which a check ends without an acceptance. Anything else that is raised is a bug of the checker."""

from __future__ import annotations

from krelax.errors import InputError, KrelaxError


class Malformed(InputError):
    """The file is not a certificate of this format, or does not fit the network: nothing can be said about a proof."""


class Rejected(KrelaxError):
    """A step of the proof does not hold, or the last bound is not positive."""


class TooClose(Rejected):
    """The last bound is positive but for what rounding may have taken."""


class TooLarge(Rejected):
    """A number that the arithmetic does not hold."""


class Contradiction(Rejected):
    """Bounds that contradict each other."""
