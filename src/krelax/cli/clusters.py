"""The option `--cluster` of commands that can work on many machines."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
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


class Spread:
    """Decides images of a run with a cluster, if it has an address: it connects when there are any to decide."""

    def __init__(self, address: str | None, model: Path, output: str | None) -> None:
        self._address, self._model, self._output = address, model, output
        self.story = ""

    def __call__(self, *asked: Any) -> None:
        """As `krelax.run.certify.decide_here`."""
        from krelax.run.certify import decide_here

        with on_cluster(self._address) as cluster:
            if cluster is None:
                decide_here(*asked)
                return
            from krelax.run.clustered import certify_on

            certify_on(cluster, self._model, self._output, *asked)
            self.story = str(cluster.story)


def _say(line: str) -> None:
    click.echo(f"krelax: {line}", err=True)
