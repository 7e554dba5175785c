"""The command line. Every command imports what it needs when it runs, so that `krelax --version` is instant."""

from __future__ import annotations

import errno
import os
import signal
import sys
import threading
import time
import warnings
from collections.abc import Sequence
from contextlib import suppress
from types import FrameType
from typing import NoReturn

import click

from krelax._version import __version__
from krelax.errors import KrelaxError, one_line, shows_tracebacks

# NumPy's matrix products, which the checker of certificates is made of, wait for each other's threads on a busy machine
# longer than they work. Read when NumPy is imported.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

# Limits of time count from here: what is imported later takes longer than many a question.
_BEGAN = time.perf_counter()

# Exit codes, one for each outcome; see docs/cli.md.
DONE, DISAGREEMENT, BAD_INPUT, SOME_FAILED, VIOLATED, UNKNOWN, TIMED_OUT = 0, 1, 2, 3, 10, 20, 30
INTERNAL_ERROR, INTERRUPTED, NO_READER, TERMINATED = 70, 130, 141, 143

_COMMANDS = {
    "certify": "krelax.cli.certify:certify",
    "demo": "krelax.cli.certify:demo",
    "radius": "krelax.cli.radius:radius",
    "difference": "krelax.cli.difference:difference",
    "verify": "krelax.cli.verify:verify",
    "bench": "krelax.cli.bench:bench",
    "bounds": "krelax.cli.bounds:bounds",
    "compare": "krelax.cli.bounds:compare",
    "explore": "krelax.cli.explore:explore",
    "report": "krelax.cli.report:report",
    "check": "krelax.cli.check:check",
    "supports": "krelax.cli.supports:supports",
}


# The variable by which click's scripts for shells ask.
_COMPLETE = "_KRELAX_COMPLETE"


class _Lazy(click.Group):
    """A group whose commands are imported when they are called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        from importlib import import_module

        module, name = _COMMANDS[cmd_name].split(":")
        command: click.Command = getattr(import_module(module), name)
        return command


def _print_name(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    if value:
        click.echo("krelax")
        ctx.exit()


@click.group(
    cls=_Lazy,
    no_args_is_help=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
@click.version_option(__version__, message="%(version)s")
@click.option("--name", is_flag=True, is_eager=True, expose_value=False, callback=_print_name, help="Print the name.")
def cli() -> None:
    """Certified robustness of neural networks: proofs that hold against any adversary.

    \b
    krelax demo                                   certify a bundled network on real images
    krelax certify net.onnx images.npz --eps 0.1  certify your own
    krelax verify spec.vnnlib --network net.onnx  one VNN-LIB property
    """


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and exit; every failure is one line on stderr. One that a user can mend has exit code 2.

    Without `arguments` this is the program itself: those of the process are taken, and it ends on SIGTERM as on Ctrl-C.
    """
    if arguments is None:
        _complete_for_a_shell()
        _as_a_program()
    try:
        began = _BEGAN if arguments is None else time.perf_counter()
        code = _run(sys.argv[1:] if arguments is None else list(arguments), began)
        sys.stdout.flush()
    except KrelaxError as error:
        _fail(str(error), BAD_INPUT)
    except click.UsageError as error:
        hint = f" (see {error.ctx.command_path} --help)" if error.ctx else ""
        _fail(error.format_message() + hint, BAD_INPUT)
    except click.ClickException as error:
        _fail(error.format_message(), BAD_INPUT)
    except _Terminated:
        _fail("terminated; results in a --jsonl file are kept", TERMINATED)
    except (KeyboardInterrupt, click.Abort):
        if sys.stderr.isatty():  # it shows ^C
            click.echo(err=True)
        _fail("interrupted; results in a --jsonl file are kept", INTERRUPTED)
    except BrokenPipeError:
        _silence(sys.stdout)
        sys.exit(NO_READER)
    except Exception as error:
        _internal(error)
    code = code if isinstance(code, int) else DONE
    if arguments is None:
        _leave_compilers(code)
    sys.exit(code)


def _complete_for_a_shell() -> None:
    """End with what a shell asks for: its script, or how a line may go on. docs/install.md says how it gets to ask."""
    asked = os.environ.get(_COMPLETE)
    if asked:
        from click.shell_completion import shell_complete

        sys.exit(shell_complete(cli, {}, "krelax", _COMPLETE, asked))


def _leave_compilers(code: int) -> None:
    """End now if a kernel is still being compiled. The interpreter would wait for it, which takes seconds."""
    jit = sys.modules.get("krelax.hull.jit")
    if jit is not None and any(thread.name == jit.COMPILING for thread in threading.enumerate()):
        sys.stderr.flush()
        os._exit(code)


def _run(arguments: list[str], began: float) -> object:
    """What a command returns. Unlike click's own way of doing this, it raises what the command raises."""
    try:
        with cli.make_context("krelax", arguments, obj=began) as context:
            return cli.invoke(context)
    except click.exceptions.Exit as done:
        return done.exit_code


class _Terminated(KeyboardInterrupt):
    """SIGTERM."""


def _as_a_program() -> None:
    """What a library must not do to its process."""
    _open_streams()
    _keep_stdout()
    if not sys.warnoptions:  # errors are one line, and warnings of libraries are none of a user's business
        warnings.simplefilter("ignore")

    def terminate(number: int, frame: FrameType | None) -> None:
        raise _Terminated

    signal.signal(signal.SIGTERM, terminate)


def _open_streams() -> None:
    """What was closed when the program began, as by `>&-`, leads nowhere. Otherwise files that are opened take its
    place, and what is printed goes into them."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115


def _keep_stdout() -> None:
    """Results go to stdout, and nothing else: what libraries print there by themselves is not seen."""
    with suppress(OSError, ValueError, AttributeError):
        sys.stdout.flush()
        kept, empty = os.dup(1), os.open(os.devnull, os.O_WRONLY)
        os.dup2(empty, 1)
        os.close(empty)
        buffering, encoding, errors = 1 if os.isatty(kept) else -1, sys.stdout.encoding, sys.stdout.errors
        stream = os.fdopen(kept, "w", buffering, encoding=encoding, errors=errors)
        sys.stdout = sys.__stdout__ = stream  # type: ignore[misc]


def _internal(error: Exception) -> NoReturn:
    """End with one line about an exception that no command handles."""
    if isinstance(error, OSError) and error.errno in _NO_ROOM:  # of files this is said where they are written
        _silence(sys.stdout)
        _fail(f"stdout cannot be written to ({error.strerror})", BAD_INPUT)
    if isinstance(error, OSError) and isinstance(error.filename, str):  # a path that was given, and no bug
        _fail(f"{error.filename}: {error.strerror}; give another path", BAD_INPUT)
    if isinstance(error, ModuleNotFoundError) and error.name and error.name.partition(".")[0] != "krelax":
        _fail(f"needs {error.name}, which is not installed; install krelax with what it depends on", BAD_INPUT)
    if shows_tracebacks():
        raise error
    what = "not enough memory" if isinstance(error, MemoryError) else f"{type(error).__name__}: {error}"
    _fail(f"internal error ({what}); please report it, with what the same command shows with {_SHOW}", INTERNAL_ERROR)


_SHOW = "KRELAX_TRACEBACK=1"
_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def _silence(stream: object) -> None:
    """Nothing more goes to a stream, not even when the interpreter flushes it in the end."""
    with suppress(OSError, AttributeError, ValueError):
        empty = os.open(os.devnull, os.O_WRONLY)
        os.dup2(empty, stream.fileno())  # type: ignore[attr-defined]
        os.close(empty)


def _fail(message: str, code: int) -> NoReturn:
    with suppress(OSError):  # there may be nobody who reads it
        click.echo(f"krelax: {one_line(' '.join(message.split()))}", err=True)
    sys.exit(code)
