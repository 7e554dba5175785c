"""Options and small printing helpers that several commands share."""

from __future__ import annotations

import math
import re
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, fields
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import CompletionItem

if TYPE_CHECKING:
    from krelax.network.graph import Network
    from krelax.problem.images import Images
    from krelax.problem.scaling import Scaling
    from krelax.run.certificates import Certificates


class _File(click.Path):
    """A path. Nothing, such as an unset variable of a shell, would be the current folder."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if value == "":
            self.fail("the path is empty; give a file or a folder", param, ctx)
        return super().convert(value, param, ctx)


FILE = _File(path_type=Path)
_CERTIFICATES = "Write a certificate of everything that holds to DIR, for `krelax check`."
# How the reason of an answer begins whose certificate was not accepted.
REFUSED = "certificate not accepted"
BUNDLED_EPS = 0.06


def program_began() -> float:
    """When the program began, as `time.perf_counter()` reads."""
    began = click.get_current_context().find_root().obj
    return began if isinstance(began, float) else time.perf_counter()


def method_option(function: Callable[..., Any]) -> Callable[..., Any]:
    return click.option(
        "--method",
        default="auto",
        show_default=True,
        metavar="NAME",
        help="auto, or one method; see `krelax supports --methods`.",
    )(function)


def device_option(function: Callable[..., Any]) -> Callable[..., Any]:
    choice = click.Choice(["cpu", "cuda"])
    return click.option("--device", type=choice, default="cpu", show_default=True, help="Where bounds are computed.")(
        function
    )


def timeout_option(text: str, default: float | None = None) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    return click.option("--timeout", type=Positive(), metavar="S", default=default, show_default=True, help=text)


def deterministic_option(function: Callable[..., Any]) -> Callable[..., Any]:
    text = "Count work instead of time, on one core: the same answers each time on the same machine, however busy."
    return click.option("--deterministic", is_flag=True, help=text)(function)


def certificate_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Where proofs of what holds are written, and what they are about."""
    return semantics_option(proof_options(function))


def proof_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Where proofs of what holds are written."""
    return check_option(click.option("--certificates", type=FILE, metavar="DIR", help=_CERTIFICATES)(function))


def check_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """Whether certificates are checked."""
    text = "Check every certificate; what is not accepted is unknown."
    return click.option("--check", is_flag=True, help=text)(function)


def semantics_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """What certificates are about."""
    return click.option(
        "--semantics",
        type=Semantics(),
        default="real",
        show_default=True,
        metavar="[real|float32|float32:N]",
        help="What holds: of the function of real numbers, or of every execution in float32 (which is checked); "
        "with :N if functions like sigmoid are computed to within N units in the last place.",
    )(function)


def journal_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Options `--jsonl`, and `--resume` or `--overwrite` for a file that has results."""
    for option in (
        click.option("--overwrite", is_flag=True, help="Delete the results of an earlier run in the --jsonl file."),
        click.option("--resume", is_flag=True, help="Go on where an interrupted run with the same --jsonl stopped."),
        click.option("--jsonl", type=FILE, metavar="FILE", help="Write every result to FILE as it comes."),
    ):
        function = option(function)
    return function


def check_journal(jsonl: Path | None, resume: bool, overwrite: bool) -> None:
    """Raises InputError for options of a journal that contradict each other."""
    from krelax.errors import InputError

    if resume and overwrite:
        raise InputError("--resume keeps the results that --overwrite deletes; give one of them")
    for name, given in (("--resume", resume), ("--overwrite", overwrite)):
        if given and jsonl is None:
            raise InputError(f"{name} needs the --jsonl file of the earlier run")


def kept(certificates: Path | None, check: bool, semantics: str) -> dict[str, Any]:
    """What a journal says of certificates. InputError for a check without any."""
    from krelax.errors import InputError

    if certificates is None and (check or semantics != "real"):
        raise InputError(
            "--check and --semantics are about certificates: say with --certificates, or --certificate, where they go"
        )
    if certificates is None:
        return {}
    return {"certificates": "checked" if check else "written", "semantics": semantics}


def networks_option(text: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """The files of networks, by the names that a query has for them."""
    return click.option("--network", "networks", multiple=True, required=True, metavar="[NAME=]FILE", help=text)


def named(networks: tuple[str, ...]) -> dict[str | None, Path]:
    """The files of networks by their names. Raises InputError for a name that is given twice."""
    from krelax.errors import InputError

    files = dict(map(name_and_file, networks))
    if len(files) < len(networks):
        raise InputError("--network is given twice for one name; give NAME=FILE, each name once")
    return files


def name_and_file(network: str) -> tuple[str | None, Path]:
    """The name and the file of `NAME=FILE`; a file that is there has no name, whatever it is called."""
    name, _, file = network.partition("=")
    if file and name.isidentifier() and not Path(network).exists():
        return name, Path(file)
    return None, Path(network)


def output_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """Which output of the network is meant."""
    text = "Which output of the network, by name, if it has several."
    return click.option("--output", metavar="NAME", help=text)(function)


@cache
def tell(model: Path | str, notes: tuple[str, ...]) -> None:
    """Say on stderr, once, what was chosen of a network, and what was left out."""
    from krelax.errors import one_line

    for note in notes:
        click.echo(f"krelax: {model}: {one_line(note)}", err=True)


def warn(name: str, reason: str) -> None:
    """Say on stderr what should be reported: bugs, and certificates that the checker does not accept."""
    from krelax.errors import failed

    if reason.startswith(REFUSED) or failed(reason):
        click.echo(f"krelax: {name}: {reason}; please report this", err=True)


def warn_of_obstacle(certificates: Certificates | None) -> None:
    """Say beforehand that nothing will hold because no certificate can be accepted, and why."""
    obstacle = None if certificates is None else certificates.obstacle()
    if obstacle is not None:
        model = certificates.model.name if certificates is not None else ""
        click.echo(
            f"krelax: no certificate about {model} can be accepted, so what holds is unknown: {obstacle}", err=True
        )


def region_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """How far the adversary may go."""
    text = "Radius of the perturbation on the scale of the images, as 8/255."
    return click.option("--eps", type=Exact(), metavar="E", help=text)(ball_options(function))


def ball_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Which balls there are, but for their radius."""
    for option in (
        click.option(
            "--clip",
            type=Interval(),
            default="0:1",
            show_default=True,
            metavar="LOW:HIGH",
            help="Range of pixel values, or none.",
        ),
        click.option("--norm", type=click.Choice(["linf", "l2", "l1"]), default="linf", show_default=True),
    ):
        function = option(function)
    return function


def data_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """How labelled images are read, and what the model is given for them."""
    for option in (
        click.option(
            "--std", type=Exacts(), metavar="S,S,...", help="Divided by this: one number, or one for each channel."
        ),
        click.option(
            "--mean",
            type=Exacts(),
            metavar="M,M,...",
            help="What is subtracted before the model: one, or for channels.",
        ),
        click.option("--classes", type=FILE, metavar="FILE", help="Names of the classes in their order, one a line."),
        click.option(
            "--labels",
            metavar="FILE",
            help="Labels of the images (.csv, .npy, .npz), or the column of a CSV with them.",
        ),
        layout_option,
    ):
        function = option(function)
    return function


def layout_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """Where the channels of the images are."""
    choice = click.Choice(["nchw", "nhwc"])
    text = "Layout of the images: channels first or last. Found by trying the labels, if it is not the network's."
    return click.option("--layout", type=choice, help=text)(function)


@dataclass(frozen=True)
class Asked:
    """What the options say of the data: a file of labels, or its column, names of classes, layout and scaling."""

    layout: str | None = None
    labels: str | None = None
    classes: Path | None = None
    mean: tuple[Fraction, ...] | None = None
    std: tuple[Fraction, ...] | None = None

    @classmethod
    def taken(cls, options: dict[str, Any]) -> Asked:
        """Of the options of a command, from which they are taken away."""
        return cls(**{f.name: options.pop(f.name, None) for f in fields(cls)})

    @property
    def scaling(self) -> Scaling | None:
        """What the model is given for pixels; None if that is the pixels."""
        if self.mean is None and self.std is None:
            return None
        from krelax.problem.scaling import Scaling

        return Scaling(self.mean or (Fraction(0),), self.std or (Fraction(1),))

    @property
    def files(self) -> list[Path]:
        """Files beside that of the images."""
        given = [None if self.labels is None else Path(self.labels), self.classes]
        return [path for path in given if path is not None and path.is_file()]

    def load(self, images: Path, network: Network) -> Images:
        """The images in a file or folder, for a network; what was understood without being told is said on stderr."""
        from math import prod

        from krelax.problem.images import load_images
        from krelax.problem.labels import read_names
        from krelax.run.certify import agreement

        names = None if self.classes is None else read_names(self.classes)
        agree, outputs = agreement(network, self.scaling), prod(network.output_shape)
        found = load_images(images, network.input_shape, outputs, self.layout, self.labels, names, agree)
        for note in found.notes:
            click.echo(f"krelax: {note}", err=True)
        return found

    def facts(self, images: Path, data: Images) -> dict[str, Any]:
        """What a journal says of the data."""
        from krelax.run.journal import digest_of_data

        return {"images": digest_of_data(images, self.files), **data.reading}


class Semantics(click.ParamType[str]):
    """What certificates say holds."""

    name = "semantics"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        from krelax.certificate.format.semantics import units_of
        from krelax.errors import InputError

        try:
            units_of(str(value))
        except InputError as error:
            self.fail(str(error), param, ctx)
        return str(value)

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        return [CompletionItem(word) for word in ("real", "float32") if word.startswith(incomplete)]


class NonNegative(click.ParamType[float]):
    """A finite number that is not negative."""

    name = "number"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        try:
            number = float(value)
        except ValueError:
            self.fail(f"{value!r} is not a number", param, ctx)
        if not (math.isfinite(number) and self.allowed(number)):
            self.fail(f"{value!r} must be a finite number {self.wanted}", param, ctx)
        return number

    wanted = ">= 0"

    @staticmethod
    def allowed(number: float) -> bool:
        return number >= 0


class Positive(NonNegative):
    """A finite number above zero."""

    wanted = "> 0"

    @staticmethod
    def allowed(number: float) -> bool:
        return number > 0


class Exacts(click.ParamType[tuple[Fraction, ...]]):
    """Finite numbers with commas between them, exactly as they are written."""

    name = "numbers"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[Fraction, ...]:
        if isinstance(value, tuple):
            return value
        numbers = [exactly(part) for part in str(value).split(",")]
        if any(number is None for number in numbers):
            self.fail(f"{value!r} is not a number, or numbers with commas between them", param, ctx)
        return tuple(number for number in numbers if number is not None)


_DECIMAL = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]{1,3})?")
_MOST_CHARACTERS = 400


def exactly(text: str) -> Fraction | None:
    """The number that is written, a decimal or a fraction of two; None if it is not one that float64 can be near to."""
    parts = [part.strip() for part in text.split("/")]
    if len(text) > _MOST_CHARACTERS or len(parts) > 2 or not all(map(_DECIMAL.fullmatch, parts)):
        return None
    whole, *divisor = map(Fraction, parts)
    if divisor == [0]:
        return None
    number = whole / divisor[0] if divisor else whole
    return number if number == 0 or math.ulp(0.0) <= abs(number) <= sys.float_info.max else None


class Exact(click.ParamType[Fraction]):
    """A finite number that is not negative, or `positive`, exactly as it is written."""

    name = "number"

    def __init__(self, positive: bool = False) -> None:
        self._positive = positive

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Fraction:
        number = value if isinstance(value, Fraction) else exactly(str(value))
        if number is None:
            self.fail(f"{value!r} is not a finite decimal number, or too small for float64", param, ctx)
        if number < 0 or (self._positive and not number):
            self.fail(f"{value!r} must be a finite number {'>' if self._positive else '>='} 0", param, ctx)
        return number


class Share(click.ParamType[Fraction]):
    """A share, as a number or in per cent."""

    name = "share"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Fraction:
        if isinstance(value, Fraction):
            return value
        text = str(value).strip()
        number = exactly(text.removesuffix("%"))
        if number is None or number <= 0:
            self.fail(f"{value!r} is not a positive share, such as 1% or 0.01", param, ctx)
        return number / 100 if text.endswith("%") else number


class Interval(click.ParamType[tuple[Fraction, Fraction] | None]):
    """`LOW:HIGH`, exactly as they are written, or none."""

    name = "interval"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[Fraction, Fraction] | None:
        if value is None or isinstance(value, tuple) or value == "none":
            return None if value == "none" else value
        first, _, last = value.partition(":")
        low, high = exactly(first), exactly(last)
        if low is None or high is None:
            self.fail(f"{value!r} is not LOW:HIGH or none", param, ctx)
        if not low < high:
            self.fail(f"{value!r} is empty", param, ctx)
        return low, high


class Range(click.ParamType[slice]):
    """`A:B`, the images A to B - 1, either end may be missing; or one index."""

    name = "range"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> slice:
        if isinstance(value, slice):
            return value
        parts = value.split(":")
        try:
            ends = [int(part) if part else None for part in parts]
        except ValueError:
            ends = []
        if len(ends) not in {1, 2} or any(e is not None and e < 0 for e in ends) or ends == [None]:
            self.fail(f"{value!r} is not A:B with whole numbers >= 0", param, ctx)
        return slice(ends[0], ends[0] + 1 if len(ends) == 1 and ends[0] is not None else ends[-1])


def chosen(selection: slice | None, count: int) -> range:
    """The images of a `--range`; InputError if there are none."""
    from krelax.errors import InputError

    result = range(count)[selection or slice(None)]
    if not result:
        raise InputError(f"--range selects none of the {count} images")
    return result


def bundled(name: str) -> Path:
    """Path of a bundled file."""
    from importlib.resources import files  # slow to import, and few commands need it

    return Path(str(files("krelax") / "data" / name))
