"""Two runs about the same images: what became of them between two versions of a network, or of a method."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from krelax.errors import InputError
from krelax.report.html import Html, element, join
from krelax.report.results import VERDICTS, Results

# What both runs must have asked. Networks, methods and limits of time may differ: these are what is compared.
_ASKED = ("images", "eps", "region", "norm", "clip", "semantics", "layout", "mean", "std")
# How many images are named one by one.
MOST_NAMED = 100


@dataclass(frozen=True)
class Comparison:
    """Results of the same images `before` and `after`, in the same order; `missing` are images that held before and
    have no result after."""

    before: Results
    after: Results
    missing: tuple[int, ...] = ()

    @classmethod
    def of(cls, names: tuple[str, str], before: Results, after: Results) -> Comparison:
        """Of the images that both have. Raises InputError, which names the files, unless both asked the same."""
        for key in _ASKED:
            there, here = (run.settings.get(key, "real" if key == "semantics" else None) for run in (before, after))
            if there != here:
                what = "is about other images" if key == "images" else f"was asked something else ({key} differs)"
                raise InputError(f"{names[0]}: {what} than {names[1]}; compare runs that differ in their network only")
        shared = before.indices & after.indices
        if not shared:
            raise InputError(f"{names[0]}: has no image in common with {names[1]}; compare runs about the same images")
        held = (int(r["index"]) for r in before.records if r["verdict"] == "holds")
        return cls(before.only(shared), after.only(shared), tuple(sorted({*held} - after.indices)))

    @property
    def moves(self) -> list[tuple[int, str, str]]:
        """Index, verdict before and verdict after of every image."""
        pairs = zip(self.before.records, self.after.records, strict=True)
        return [(int(a["index"]), str(a["verdict"]), str(b["verdict"])) for a, b in pairs]

    @property
    def lost(self) -> list[int]:
        """Images that held before and do not now: a regression."""
        return [i for i, a, b in self.moves if a == "holds" != b]

    @property
    def gained(self) -> list[int]:
        """Images that hold now and did not before."""
        return [i for i, a, b in self.moves if b == "holds" != a]

    def __str__(self) -> str:
        lost, gained = self.lost, self.gained
        unknown = f"; {len(self.missing)} held before and have no result now{_which(self.missing)}"
        return (
            f"compared on {len(self.after.records)} images: {len(lost)} held before and do not now{_which(lost)}, "
            f"{len(gained)} hold now and did not before{unknown * bool(self.missing)}"
        )


def _which(indices: Sequence[int]) -> str:
    """The first of them, if there are any."""
    return f" (images {', '.join(map(str, indices[:10]))}{', ...' * (len(indices) > 10)})" if indices else ""


def comparison_section(found: Comparison, name: str, linked: bool = True) -> Html:
    """What a page says of a comparison with the results called `name`; images are links to their rows if `linked`."""
    total, counts = len(found.after.records), Counter((a, b) for _, a, b in found.moves)
    head = element("tr", element("th", "before"), *(element("th", f"{v} now", scope="col") for v in VERDICTS))
    rows = [
        element("tr", element("th", a, scope="row"), *(element("td", str(counts[a, b])) for b in VERDICTS))
        for a in VERDICTS
    ]
    share = [100 * run.counts["holds"] / total for run in (found.before, found.after)]
    return join(
        element("h2", "Compared with before"),
        element(
            "p",
            f"{total} images are in both runs. Of these {share[0]:.1f} % were certified in {name}, "
            f"and {share[1]:.1f} % are now. What is lost need not be less robust: it may only be harder to prove.",
            class_="note",
        ),
        element("table", head, *rows, class_="moves"),
        _named("Held before, and do not now", found.lost, found, linked),
        _named("Hold now, and did not before", found.gained, found, linked),
        element("p", f"Held before, and have no result now: {len(found.missing)}.") if found.missing else Html(""),
    )


def _named(title: str, indices: list[int], found: Comparison, linked: bool) -> Html:
    """Images one by one, with what they are now."""
    if not indices:
        return element("p", f"{title}: none.")
    now = {int(r["index"]): str(r["verdict"]) for r in found.after.records}
    items = [
        element("li", element("a", str(i), href=f"#image-{i}") if linked else str(i), f" {now[i]}", class_=now[i])
        for i in indices[:MOST_NAMED]
    ]
    more = element("li", f"and {len(indices) - MOST_NAMED} more") if len(indices) > MOST_NAMED else ""
    return join(element("p", f"{title}: {len(indices)}."), element("ul", *items, more, class_="named"))
