"""Parses `.env` files, in the format on which python-dotenv, docker compose and the astro command agree.

A value in quotes may span several lines. `${NAME}` and `${NAME:-default}` are replaced in double quotes and without
quotes.
"""

from __future__ import annotations

import re

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    Problem = tuple[int, str]

# `NAME=`, with more names than a shell allows: any text without blanks, quotes, `#` and `=`.
ASSIGNMENT = re.compile(r"[ \t]*(?:export[ \t]+)?([^\s=#'\"]+)[ \t]*=[ \t]*")
# Lines that set nothing: blank, a comment, or `export NAME`.
NOTHING = re.compile(r"[ \t]*(?:#.*|export[ \t]+[^\s=]+[ \t]*(?:#.*)?)?$")
REFERENCE = re.compile(r"\$\{([^}:\s]+)(?::-([^}]*))?\}")
COMMENT = re.compile(r"(?<=[ \t])#")
AFTER_QUOTE = re.compile(r"[ \t]*(?:#.*)?$")
# Escapes in double quotes; in single quotes, only the quote itself and the backslash can be escaped.
ESCAPES = {"n": "\n", "t": "\t", "r": "\r", '"': '"', "'": "'", "\\": "\\", "$": "$"}


class EnvFile:
    """The variables of one `.env` file. `problems` are warnings about lines, each with its line number; `is_cut` is
    True if a value has no closing quote."""

    def __init__(self, text: str, look_up: Callable[[str], str | None]):
        """`look_up` returns the value of a variable that no earlier line sets."""
        self.variables: dict[str, str] = {}
        self.problems: list[Problem] = []
        self.is_cut = False
        self._look_up = look_up
        # `str.splitlines` would also split at a form feed, which may be part of a value.
        self._lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
        index = 0
        while index < len(self._lines):
            index = self._read(index)

    def _read(self, index):
        """Reads the assignment that begins in this line; returns the index of the next line."""
        line = self._lines[index]
        found = ASSIGNMENT.match(line)
        if found is None or "\0" in line:
            if not NOTHING.match(line) or "\0" in line:
                self._problem(index, "is not NAME=value, and is ignored")
            return index + 1
        name, rest = found[1], line[found.end():]
        if rest[:1] in ("'", '"'):
            return self._read_quoted(index, name, found.end())
        # Keeps the blanks before the value, because a comment follows a blank: `NAME= # comment` is empty, `NAME=#1` is
        # not.
        value = COMMENT.split(line[line.index("=") + 1:], maxsplit=1)[0].strip()
        self.variables[name] = self._expand(index, value)
        return index + 1

    def _read_quoted(self, index, name, column):
        """Reads a value in quotes, which may end in a later line."""
        text = "\n".join(self._lines[index:])
        value, end = self._unquote(index, text, column)
        if value is None:
            self.is_cut = True
            self._problem(index, f"opens a {text[column]} that is closed nowhere; {name} is not set")
            return index + 1
        after = text[end:].split("\n", 1)[0]
        lines = text.count("\n", 0, end)
        if not AFTER_QUOTE.match(after):
            if lines:
                # The quote that closes the value probably opens another value.
                self.is_cut = True
                self._problem(index, f"opens a {text[column]} that is not closed before line {index + lines + 1}; {name} is not set")
                return index + 1
            self._problem(index, "has text after the closing quote, which is ignored")
        if "\0" in value:
            # The value of an environment variable cannot contain NUL.
            self._problem(index, f"begins a value that holds the character NUL; {name} is not set")
        else:
            self.variables[name] = value
        return index + lines + 1

    def _unquote(self, index, text, position):
        """Returns the text between the quotes, and the position after them; `None` without a closing quote."""
        quote, characters, position = text[position], [], position + 1
        while position < len(text):
            character = text[position]
            if character == quote:
                return "".join(characters), position + 1
            following = text[position + 1:position + 2]
            reference = REFERENCE.match(text, position) if quote == '"' and character == "$" else None
            if reference is not None:
                characters.append(self._value_of(index, reference))
                position = reference.end()
                continue
            if character == "\\" and following and following in (ESCAPES if quote == '"' else "'\\"):
                character = ESCAPES[following]
                position += 1
            characters.append(character)
            position += 1
        return None, position

    def _expand(self, index, text):
        return REFERENCE.sub(lambda reference: self._value_of(index, reference), text)

    def _value_of(self, index, reference):
        name, default = reference.groups()
        value = self.variables.get(name)
        if value is None:
            value = self._look_up(name)
        # As in a shell, `:-` also replaces an empty value.
        if default is not None and not value:
            return default
        if value is None:
            self._problem(index, f"uses ${{{name}}}, which is not set and counts as empty; single quotes keep it as it is")
        return value or ""

    def _problem(self, index, text):
        self.problems.append((index + 1, text))
