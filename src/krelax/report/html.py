"""Markup that cannot be broken by what it shows: every plain string is text and is escaped."""

from __future__ import annotations

from html import escape

Attribute = str | int | float | bool | None


class Html(str):
    """A string that is markup already."""

    __slots__ = ()


def join(*parts: str) -> Html:
    """Parts one after the other; those that are not markup are escaped."""
    return Html("".join(part if isinstance(part, Html) else escape(part) for part in parts))


def element(tag: str, /, *content: str, **attributes: Attribute) -> Html:
    """An element. Attributes that are None or False are left out, True stands alone; `class_` is `class`, and
    `data_index` is `data-index`."""
    words = [tag]
    for key, value in attributes.items():
        spelling = key.rstrip("_").replace("_", "-")
        if value is True:
            words.append(spelling)
        elif value is not None and value is not False:
            words.append(f'{spelling}="{escape(str(value))}"')
    opening = f"<{' '.join(words)}>"
    return Html(opening) if tag in {"img", "input"} else Html(f"{opening}{join(*content)}</{tag}>")
