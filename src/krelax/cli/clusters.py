"""The option `--cluster` of commands that can work on many machines."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from krelax.run.cluster import Cluster


def cluster_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """Where questions are worked on."""
    text = "Work on a Dask cluster: the address of its scheduler, or local, or local:N for N workers here."
    return click.option("--cluster", metavar="ADDRESS", help=text)(function)


@contextmanager
def on_cluster(address: str | None) -> Iterator[Cluster | None]:
    """The workers at an address, if there is one."""
    if address is None:
        yield None
        return
    from krelax.run.cluster import connected

    with connected(address, _say) as cluster:
        yield cluster


def _say(line: str) -> None:
    click.echo(f"krelax: {line}", err=True)
