"""Reads a YAML file so that every value still knows its line, and every complaint names file and line.

PyYAML composes the file into a graph; :class:`Node` walks it and turns values into what the caller asks for.
Nothing is constructed by PyYAML itself, for two reasons: a constructed value has lost its line, and YAML 1.1 turns
``on``, ``012`` and ``12:30`` into something its author did not write (YAML 1.1, "Boolean" and "Integer" types).
Here a word stays the word that stands in the file until a caller asks for a number or a truth value.

Every error is a :class:`~dispatcher.errors.FileError`. What a hostile file can cost is bounded: its bytes, the
values in it with every alias written out, and its depth.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import yaml

from dispatcher.errors import FileError
from dispatcher.wording import nearest, quoted

FILE_LIMIT: Final = 1024 * 1024
"""Bytes of one file."""

VALUE_LIMIT: Final = 50_000
"""Keys and values in one file, each alias counted as what it stands for."""

DURATION_LIMIT: Final = 365 * 24 * 3600
"""Seconds. A longer timeout is a mistake in its unit."""

UNITS: Final = {"days": 24 * 3600, "hours": 3600, "minutes": 60, "seconds": 1}

_TAG = "tag:yaml.org,2002:"
_MERGE = f"{_TAG}merge"
_SCALARS = frozenset(f"{_TAG}{kind}" for kind in ("str", "int", "float", "bool", "null", "timestamp", "value"))
_TRUE, _FALSE = frozenset(("true", "yes", "on")), frozenset(("false", "no", "off"))
_WHOLE = re.compile(r"0|-?[1-9][0-9]{0,8}")
_NUMBER = re.compile(r"[0-9]{1,9}(\.[0-9]{1,6})?")


@dataclass(frozen=True, slots=True)
class Keys:
    """The keys of one kind of mapping.

    :param place: what the mapping is, in a word that names its skipped keys: ``boot``. Empty at the top of a file.
    :param used: the keys that are read.
    :param skipped: the keys that LAVA knows and this tool does not use.
    :param refused: keys whose loss would change what the file means, each with what to do instead.
    :param lenient: whether a key that nobody knows is skipped too, because LAVA never looks for it.
    """

    place: str
    used: frozenset[str]
    skipped: frozenset[str] = frozenset()
    refused: Mapping[str, str] = field(default_factory=dict)
    lenient: bool = False

    @property
    def known(self) -> frozenset[str]:
        return self.used | self.skipped | frozenset(self.refused)


class Skipped:
    """Collects what is known and not used, a sentence each, so that each is told once, with its first line."""

    def __init__(self) -> None:
        self._first: dict[str, str] = {}

    def add(self, what: str, where: str) -> None:
        self._first.setdefault(what, where)

    def told(self) -> tuple[str, ...]:
        return tuple(f"{what} ({where})" for what, where in self._first.items())


@dataclass(frozen=True, slots=True)
class _Source:
    """A file. ``named_by_line`` is False where what is skipped in it is told together with another file's."""

    path: str
    skipped: Skipped
    named_by_line: bool = True
    unique_keys: bool = False


class Node:
    """One value of a file: its line, and readers that return it as what the caller needs or raise.

    :ivar line: where its key stands, or, for a value in a list, where it stands itself.
    :ivar name: what messages call it: its key, quoted.
    """

    __slots__ = ("_node", "_source", "line", "name")

    def __init__(self, node: yaml.Node, source: _Source, name: str, line: int) -> None:
        self._node = node
        self._source = source
        self.name = name
        self.line = line

    def _value(self, node: yaml.Node, key: str, line: int) -> Node:
        return Node(node, self._source, quoted(key), line)

    @property
    def where(self) -> str:
        return f"{self._source.path}:{self.line}"

    def error(self, what: str, hint: str | None = None) -> FileError:
        return FileError(what, where=self.where, hint=hint)

    def skip(self, what: str) -> None:
        """Notes that something known is not used; ``what`` is the whole sentence."""
        self._source.skipped.add(what, f"line {self.line}" if self._source.named_by_line else self.where)

    def file(self, path: Path, shown: str) -> Node:
        """The top value of another file that this value names. What is skipped there is told with the rest."""
        return read(path, self._source.skipped, shown=shown, named_at=self.where)

    # --- words ---------------------------------------------------------------------------------------------

    @property
    def is_null(self) -> bool:
        return self._is("null")

    @property
    def is_list(self) -> bool:
        return isinstance(self._node, yaml.SequenceNode)

    @property
    def is_mapping(self) -> bool:
        return isinstance(self._node, yaml.MappingNode)

    def _is(self, kind: str) -> bool:
        return self._node.tag == f"{_TAG}{kind}" and isinstance(self._node, yaml.ScalarNode)

    def text(self) -> str:
        """Any word or number, as it stands in the file; nothing (``key:``, ``null``) is the empty text."""
        if not isinstance(self._node, yaml.ScalarNode):
            raise self._wrong("a word or a number")
        if self._node.tag not in _SCALARS:
            tag = self._node.tag.removeprefix(_TAG)
            raise self.error(f"{self.name} has the unknown tag {quoted(tag)}", "write the value without a tag")
        if self.is_null:
            return ""
        text: str = self._node.value
        if "\0" in text or any("\ud800" <= char <= "\udfff" for char in text):
            raise self.error(f"{self.name} holds a NUL or half a character, which no device can be sent")
        return text

    def string(self, limit: int = 4096) -> str:
        """A word of 1 to ``limit`` characters."""
        text = self.text()
        if not text:
            raise self.error(f"{self.name} is empty")
        if len(text) > limit:
            raise self.error(f"{self.name} is longer than {limit} characters")
        return text

    def line_of_text(self, limit: int = 4096) -> str:
        """A word that is one line without control characters."""
        text = self.string(limit)
        if not text.isprintable():
            raise self.error(f"{self.name} must be one line of printable text, not {quoted(text)}")
        return text

    def choice(self, known: Iterable[str]) -> str:
        """One of a few known words."""
        text = self.string()
        known = sorted(known)
        if text not in known:
            raise self.error(f"{self.name} has the unknown value {quoted(text)}{nearest(text, known)}")
        return text

    def boolean(self) -> bool:
        """``true`` or ``false``, and YAML 1.1's ``yes``, ``no``, ``on``, ``off``."""
        text = self.text().lower()
        if text not in _TRUE | _FALSE:
            raise self._wrong("true or false")
        return text in _TRUE

    def integer(self, minimum: int, maximum: int) -> int:
        """A decimal whole number; YAML 1.1's octal ``010`` and sexagesimal ``1:30`` are refused."""
        text = self.text()
        if not _WHOLE.fullmatch(text) or not minimum <= int(text) <= maximum:
            raise self._wrong(f"a whole number from {minimum} to {maximum}")
        return int(text)

    def number(self, maximum: float) -> float:
        """A decimal number of 0 or more, with or without a fraction."""
        text = self.text()
        if not _NUMBER.fullmatch(text) or float(text) > maximum:
            raise self._wrong(f"a number from 0 to {maximum:.9g}")
        return float(text)

    def raw(self) -> str | int | bool:
        """A word, number or truth value, typed as YAML types it, for a reader that knows nothing of YAML."""
        text = self.text()
        if self._is("bool"):
            return self.boolean()
        return int(text) if self._is("int") and _WHOLE.fullmatch(text) else text

    # --- lists ---------------------------------------------------------------------------------------------

    def sequence(self, each: str | None = None) -> list[Node]:
        """The values of a list.

        :param each: what messages call one of them, where the list's own name would not do.
        """
        if not isinstance(self._node, yaml.SequenceNode):
            raise self._wrong("a list")
        name = each or self.name
        return [Node(value, self._source, name, value.start_mark.line + 1) for value in self._node.value]

    def one_or_more(self) -> list[Node]:
        """A word alone or a list of words, as LAVA allows in most places. Never empty."""
        values = self.sequence() if self.is_list else [self]
        if not values:
            raise self.error(f"{self.name} is empty")
        return values

    # --- mappings ------------------------------------------------------------------------------------------

    def items(self, *, empty: bool = False) -> list[tuple[Node, Node]]:
        """Keys and values in the file's order, ``<<`` merged in.

        Of a key that stands twice the last holds, as in LAVA, and that is told; see ``unique_keys`` of :func:`read`.

        :param empty: whether a key may be the empty text, in quotes.
        """
        if not isinstance(self._node, yaml.MappingNode):
            raise self._wrong("a mapping (key: value)")
        if self._node.tag != f"{_TAG}map":
            raise self.error(f"{self.name} has the unknown tag {quoted(self._node.tag.removeprefix(_TAG))}")
        own: dict[str, tuple[Node, Node]] = {}
        merged: dict[str, tuple[Node, Node]] = {}
        for key_node, value in self._node.value:
            line = key_node.start_mark.line + 1
            if key_node.tag == _MERGE:
                self._merge(self._value(value, "<<", line), merged)
                continue
            key = Node(key_node, self._source, "a key", line)
            word = key.word(empty=empty)
            if word in own:
                self._stands_twice(key, word, own[word][0].line)
            own[word] = key, self._value(value, word, line)
        return list({**merged, **own}.values())

    def _stands_twice(self, key: Node, word: str, before: int) -> None:
        if self._source.unique_keys:
            raise key.error(f"key {quoted(word)} stands twice: in line {before} and in line {key.line}")
        key.skip(f"key {quoted(word)} stands twice: the one in line {before} is not used")

    def word(self, *, empty: bool = False) -> str:
        """The text of a key: any scalar as it stands in the file, so that ``on`` and ``012`` may be names."""
        if not isinstance(self._node, yaml.ScalarNode) or not (self._node.value or (empty and not self.is_null)):
            raise self.error("a key must be a word", "quote a key that starts with a special character")
        text: str = self._node.value
        return text

    def _merge(self, value: Node, into: dict[str, tuple[Node, Node]]) -> None:
        for source in value.sequence() if value.is_list else [value]:
            for key, item in source.items():
                into.setdefault(key.word(), (key, item))

    def mapping(self, keys: Keys, told_as: str | None = None) -> dict[str, Node]:
        """The values of the used keys. Skipped keys are noted; a refused or unknown key is an error.

        :param told_as: the one sentence for all skipped keys, where each by itself says little.
        """
        found: dict[str, Node] = {}
        for key, value in self.items():
            word = key.word()
            if word in keys.used:
                found[word] = value
            elif word in keys.refused:
                inside = f"in {keys.place}" if keys.place else "here"
                raise key.error(f"{quoted(word)} is not supported {inside}", keys.refused[word])
            elif word in keys.skipped:
                key.skip(told_as or f"{quoted(word)}{f' in {keys.place}' if keys.place else ''} is not used")
            elif keys.lenient:
                key.skip(f"unknown key {quoted(word)} in {keys.place} is not used")
            else:
                raise key.error(f"unknown key {quoted(word)}{nearest(word, keys.known)}")
        return found

    def need(self, found: Mapping[str, Node], key: str) -> Node:
        """One value of :meth:`mapping` that must be there, and not be null."""
        if key not in found or found[key].is_null:
            raise self.error(f"{self.name} needs the key {key!r}")
        return found[key]

    def duration(self) -> float:
        """LAVA's ``{minutes: 5}`` in seconds. ``skip`` is noted as not used."""
        total = 0.0
        example = "write it as {minutes: 5}"
        if not self.is_mapping:
            raise self.error(f"{self.name} must name its unit", example)
        for key, value in self.mapping(Keys("timeout", frozenset(UNITS), frozenset(("skip",)))).items():
            total += value.number(10**6) * UNITS[key]
        if not 0 < total <= DURATION_LIMIT:
            raise self.error(f"{self.name} must be more than nothing and at most a year", example)
        return total

    def _wrong(self, wanted: str) -> FileError:
        if isinstance(self._node, yaml.ScalarNode):
            found = quoted(self._node.value) if self._node.value else "empty"
        else:
            found = "a list" if isinstance(self._node, yaml.SequenceNode) else "a mapping"
        return self.error(f"{self.name} must be {wanted}, not {found}")


class _TooMany(yaml.MarkedYAMLError):
    """The file is good YAML, but there is too much of it."""


class _Loader(yaml.SafeLoader):
    """Stops at the limit while composing, not after."""

    values = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        self.values += 1
        if self.values > VALUE_LIMIT:
            raise _TooMany(problem=f"more than {VALUE_LIMIT} values", problem_mark=self.get_mark())
        return super().compose_node(parent, index)


def read(
    path: Path,
    skipped: Skipped,
    *,
    shown: str | None = None,
    named_at: str | None = None,
    unique_keys: bool = False,
) -> Node:
    """The top value of a YAML file.

    :param path: the file.
    :param skipped: collects the keys that are known and not used.
    :param shown: the file's name in messages, where its path says little.
    :param named_at: file and line that name this file, where it is not the command line that does.
    :param unique_keys: whether a key that stands twice in one mapping is an error.
    """
    shown = shown or str(path)
    text = _text(path, shown, named_at)
    root = _compose(text, shown)
    _measure(root, shown)
    return Node(root, _Source(shown, skipped, named_at is None, unique_keys), "the file", root.start_mark.line + 1)


def _text(path: Path, shown: str, named_at: str | None) -> str:
    try:
        with path.open("rb") as stream:
            data = stream.read(FILE_LIMIT + 1)
    except OSError as error:
        what = f"{quoted(shown, 200)} cannot be read: {error.strerror or error}"
        raise FileError(what, where=named_at) from error
    if len(data) > FILE_LIMIT:
        raise FileError(f"is larger than {FILE_LIMIT // 1024} KiB", where=shown)
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        where = f"{shown}:{data.count(10, 0, error.start) + 1}"
        what = f"byte 0x{data[error.start]:02x} is not UTF-8"
        raise FileError(what, where=where, hint="save the file as UTF-8") from error


def _compose(text: str, path: str) -> yaml.Node:
    try:
        loader = _Loader(text)
        try:
            if not loader.check_node():
                raise FileError("the file is empty", where=path)
            root = loader.get_node()
            if loader.check_node():
                line = loader.peek_event().start_mark.line + 1  # type: ignore[no-untyped-call]
                raise FileError("a second document starts here", where=f"{path}:{line}", hint="remove the ---")
        except (ValueError, OverflowError) as error:
            # PyYAML's scanner lets chr() and int() fail on escapes and directives out of range.
            where = f"{path}:{loader.line + 1}"
            raise FileError("not valid YAML: a number is out of range", where=where) from error
        except RecursionError as error:
            raise FileError("values are nested too deeply", where=f"{path}:{loader.line + 1}") from error
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        raise _syntax(error, path) from error
    except yaml.reader.ReaderError as error:
        where = f"{path}:{text.count(chr(10), 0, error.position) + 1}"
        what = f"not valid YAML: the character {quoted(chr(int(error.character)))} may not stand in a file"
        raise FileError(what, where=where) from error
    assert root is not None  # noqa: S101 - check_node() said so
    return root


def _syntax(error: yaml.MarkedYAMLError, path: str) -> FileError:
    """PyYAML's account of a syntax error, which spreads over five lines, as one line and a hint."""
    problem, context = error.problem or "", error.context or ""
    if context.startswith("found") or not problem:
        problem, context = context, ""
    mark = error.problem_mark or error.context_mark
    where = f"{path}:{mark.line + 1}" if mark else path
    hint = None
    if "'\\t'" in problem:
        hint = "indent with spaces, not with tabs"
    elif context and error.context_mark:
        hint = f"{_one_line(context)} that starts in line {error.context_mark.line + 1}"
    prefix = "" if isinstance(error, _TooMany) else "not valid YAML: "
    return FileError(prefix + _one_line(problem), where=where, hint=hint)


def _one_line(text: str) -> str:
    text = "".join(char if char.isprintable() else "?" for char in text)
    return text if len(text) <= 120 else text[:119] + "…"


def _measure(root: yaml.Node, path: str) -> None:
    """Refuses a file whose aliases make it endless or enormous, without walking what they stand for twice."""
    sizes: dict[int, int] = {}
    within: set[int] = set()
    stack: list[tuple[yaml.Node, bool]] = [(root, False)]
    while stack:
        node, seen = stack.pop()
        if seen:
            within.discard(id(node))
            sizes[id(node)] = size = 1 + sum(sizes[id(child)] for child in _children(node))
            if size > VALUE_LIMIT:
                where = f"{path}:{node.start_mark.line + 1}"
                raise FileError(f"more than {VALUE_LIMIT} values with every alias written out", where=where)
        elif id(node) in within:
            where = f"{path}:{node.start_mark.line + 1}"
            raise FileError("an alias stands inside of what it stands for", where=where)
        elif id(node) not in sizes:
            within.add(id(node))
            stack.append((node, True))
            stack.extend((child, False) for child in _children(node))


def _children(node: yaml.Node) -> list[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        return [child for pair in node.value for child in pair]
    return list(node.value) if isinstance(node, yaml.SequenceNode) else []
