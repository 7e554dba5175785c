"""The command line. Every command imports what it needs when it runs, so that `krelax --version` is instant."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

import click

from krelax._version import __version__
from krelax.errors import KrelaxError

# NumPy's matrix products, which the checker of certificates is made of, wait for each other's threads on a busy machine
# longer than they work. Read when NumPy is imported.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

# Exit codes, one for each outcome; see docs/cli.md.
DONE, DISAGREEMENT, BAD_INPUT, VIOLATED, UNKNOWN, TIMED_OUT, INTERRUPTED = 0, 1, 2, 10, 20, 30, 130

_COMMANDS = {
    "certify": "krelax.cli.certify:certify",
    "demo": "krelax.cli.certify:demo",
    "verify": "krelax.cli.verify:verify",
    "bench": "krelax.cli.bench:bench",
    "bounds": "krelax.cli.bounds:bounds",
    "compare": "krelax.cli.bounds:compare",
    "explore": "krelax.cli.explore:explore",
    "report": "krelax.cli.report:report",
    "check": "krelax.cli.check:check",
    "supports": "krelax.cli.supports:supports",
}


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


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit; every failure a user can mend is one line on stderr and exit code 2."""
    try:
        code = cli.main(args=arguments, prog_name="krelax", standalone_mode=False)
    except KrelaxError as error:
        _fail(str(error), BAD_INPUT)
    except click.UsageError as error:
        hint = f" (see {error.ctx.command_path} --help)" if error.ctx else ""
        _fail(error.format_message() + hint, BAD_INPUT)
    except click.ClickException as error:
        _fail(error.format_message(), BAD_INPUT)
    except (KeyboardInterrupt, click.Abort):
        _fail("interrupted; finished results are kept", INTERRUPTED)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(DONE)
    sys.exit(code if isinstance(code, int) else DONE)


def _fail(message: str, code: int) -> None:
    click.echo(f"krelax: {' '.join(message.split())}", err=True)
    sys.exit(code)
