"""What a page may ask: one function for each name, numbers in and numbers out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache, cached_property
from threading import Lock, Thread
from typing import Any

from krelax.bounds.instance import OutOfTime
from krelax.errors import InputError
from krelax.explore import small, textbook
from krelax.explore.model import Question, attacked, ladder, layers
from krelax.looks import LOOKS

Said = Callable[[str], None]


class Answers:
    """Answers about one question. What takes long is computed once, when it is first asked for."""

    def __init__(self, question: Question) -> None:
        self.question = question
        self._ladder: dict[str, Any] = {"rows": [], "done": False, "attack": None}
        self._climber: Thread | None = None
        self._lock = Lock()
        self._certify = cache(textbook.certify)
        self._functions: dict[str, Callable[..., dict[str, Any]]] = {
            "neuron": small.neuron,
            "group": small.group,
            "network": self.network,
            "layers": self.layers,
            "ladder": self.climb,
        }

    def answer(self, name: str, given: Mapping[str, Any]) -> dict[str, Any]:
        """The answer to a request. Raises InputError for one that makes no sense, KeyError for an unknown name."""
        function = self._functions[name]
        try:
            return function(**given)
        except (TypeError, ValueError, ArithmeticError, LookupError, RecursionError) as error:
            why = " ".join(str(error).split())[:200]
            raise InputError(f"{name}: this request has no answer ({why or type(error).__name__})") from None

    def knows(self, name: str) -> bool:
        """Whether there are answers of this name."""
        return name in self._functions

    def network(self, chosen: list[list[int]]) -> dict[str, Any]:
        """The textbook's network with these groups."""
        return self._certify(tuple(tuple(members) for members in chosen))

    def layers(self) -> dict[str, Any]:
        """The layers of the question's network, and their groups."""
        with self._lock:
            return self._layers

    @cached_property
    def _layers(self) -> dict[str, Any]:
        return layers(self.question)

    def climb(self) -> dict[str, Any]:
        """As much of the ladder as is known; the first call starts it in the background."""
        with self._lock:
            if self._climber is None:
                self._climber = Thread(target=self._climb, daemon=True)
                self._climber.start()
        return self._ladder | {"rows": list(self._ladder["rows"])}

    def _climb(self, say: Said = lambda _: None) -> None:
        try:
            self._ladder["attack"] = attacked(self.question)
            for row in ladder(self.question):
                self._ladder["rows"].append(row)
                say(LOOKS[row["method"]].label)
        except OutOfTime:
            pass  # the page is closed
        finally:
            self._ladder["done"] = True

    def close(self, patience: float = 5.0) -> None:
        """Stop what is computed in the background."""
        self.question.instance.cancelled.set()
        if self._climber is not None:
            self._climber.join(patience)

    def everything(self, say: Said) -> dict[str, Any]:
        """All answers that a page without a server has to bring along; `say` is told what has been done."""
        networks = {}
        for chosen in textbook.choices():
            networks[key(chosen)] = self._certify(chosen)
        say("small network")
        found = {"network": networks, "layers": self.layers()}
        say("groups")
        self._climb(say)
        return found | {"ladder": self._ladder}


def key(chosen: tuple[tuple[int, ...], ...]) -> str:
    """A choice of groups as a word: `01|12`."""
    return "|".join("".join(map(str, members)) for members in chosen)
