"""What the commands print: results on stdout."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from krelax.run.certificates import Certificates
    from krelax.run.certify import CertifyOptions, Summary


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Aligned columns: the first to the left, numbers to the right."""
    widths = [max(len(row[i]) for row in (header, *rows)) for i in range(len(header))]

    def line(row: Sequence[str]) -> str:
        cells = (c.ljust(w) if i == 0 else c.rjust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True)))
        return "  ".join(cells).rstrip()

    rule = "  ".join("-" * w for w in widths)
    return "\n".join([line(header), rule, *(line(row) for row in rows)])


def _why_unknown(summary: Summary) -> str:
    """The reasons of what is unknown, the commonest first; those that differ in their particulars with an example."""
    reasons = [summary.reasons[index] for index, verdict in summary.verdicts.items() if verdict == "unknown"]
    kinds: dict[str, list[str]] = {}
    for reason in reasons:
        kinds.setdefault(reason.partition(": ")[0], []).append(reason)
    told = [f"{len(kind)} {kind[0]}" for kind in sorted(kinds.values(), key=len, reverse=True)]
    return ": " + ", ".join(told) if told else ""


def so_many(count: int, thing: str = "image") -> str:
    """A number of things."""
    return f"{count} {thing}" if count == 1 else f"{count} {thing}s"


def certificates_line(keeper: Certificates) -> None:
    """Where certificates are."""
    click.echo(f"  certificates in {keeper.folder}" + (", checked as they were written" if keeper.checks else ""))


def certify_summary(model: Path, images: Path, options: CertifyOptions, summary: Summary) -> None:
    """The outcome of a data-set run."""
    total, counts = len(summary.verdicts), summary.counts
    wrong = sum(1 for reason in summary.reasons.values() if reason == "misclassified")
    by: dict[str, int] = {}
    for index, verdict in summary.verdicts.items():
        if verdict == "holds":
            by[summary.reasons[index]] = by.get(summary.reasons[index], 0) + 1
    how = ", ".join(f"{count} by {name}" for name, count in by.items())
    rows = [
        ("holds", "proven robust against any adversary" + (f": {how}" if how else "")),
        ("violated", f"a counterexample was replayed ({wrong} misclassified as they are)"),
        ("unknown", "neither proven nor refuted" + _why_unknown(summary)),
    ]
    largest = max(options.eps) if isinstance(options.eps, tuple) else options.eps
    ball = f"{options.norm} ball of radius {float(largest):g}" + " at most" * isinstance(options.eps, tuple)
    if options.region is not None:
        ball = str(options.region) + f", and {ball}" * bool(largest)
    click.echo(f"{model.name} on {images.name}: {so_many(total)}, {ball}, method {options.method}")
    for name, meaning in rows:
        count = counts.get(name, 0)
        click.echo(f"  {name:<9}{count:>6}  {100 * count / total:5.1f} %   {meaning}")
    fresh = total - summary.resumed
    each = f", {1000 * summary.seconds / fresh:.1f} ms an image" if fresh else ""
    click.echo(f"  {summary.seconds:.2f} s{each}" + (f"; {summary.resumed} resumed" if summary.resumed else ""))
