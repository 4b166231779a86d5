"""How messages show what a user wrote, and name what may have been meant."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def quoted(text: str, limit: int = 60) -> str:
    """A user's text as a message shows it: in quotes, on one line, cut where it is long."""
    return repr(text if len(text) <= limit else text[: limit - 1] + "…")


def nearest(word: str, known: Iterable[str]) -> str:
    """The end of an error about an unknown word: which known one is the nearest. Empty if there is none at all."""
    # Ratio 0 lets difflib return the best of a bad lot: the nearest word is named even where it is far.
    best = difflib.get_close_matches(word[:100], sorted(known), n=1, cutoff=0)
    return f"; did you mean {quoted(best[0])}?" if best else ""
