"""The two kinds of failure a user meets. Everything else is a bug of ours."""


class KrelaxError(Exception):
    """Base class: the message says what is wrong, where, and what to do about it, in one line."""


class InputError(KrelaxError):
    """An input (file, array, option) cannot be used. The command line prints it and exits with code 2."""


class UnsupportedError(InputError):
    """The input is well formed but uses something krelax does not implement yet (an operator, a query form)."""
