"""Loads `.env` files of the project and the workspace into the environment of DAG files and tasks."""

from __future__ import annotations

import os
import re
import stat
import sys
import time

# Characters; a larger file is ignored.
LARGEST = 256 * 1024
COMMENT = re.compile(r"(?<=[ \t])#")
# Prefixes of variables that the dynamic loader and the C library read only at process start.
READ_AT_START = ("GLIBC_TUNABLES", "LD_", "MALLOC_")


def load_first(roots: list[str]) -> None:
    """Loads the variables before anything that reads them is imported. Re-executes the process when one is read only at
    process start."""
    before = dict(os.environ)
    load(roots, warn=False)
    at_start = read_at_start()
    if at_start != {name: before.get(name) for name in at_start}:
        os.execve(sys.executable, sys.orig_argv, {**before, **at_start})


def read_at_start() -> dict[str, str]:
    """Returns the current variables that are read only at process start."""
    return {name: value for name, value in os.environ.items() if name.startswith(READ_AT_START)}


def load(roots: list[str], warn: bool = True) -> None:
    """Loads the `.env` files; the nearest wins, and all override existing variables."""
    zone = os.environ.get("TZ")
    read(roots, sys.stderr.write if warn else len)
    if os.environ.get("TZ") != zone:
        # The C library caches the time zone.
        time.tzset()


def read(roots, say):
    """Reads the files, the farthest first, into the environment. `say` receives warnings."""
    for root in reversed(roots):
        path = os.path.join(root, ".env")
        try:
            # Only regular files are read: a pipe may never end. A missing file is opened, too, so that the parser's
            # audit hook records that the DAGs depend on it.
            if not os.path.exists(path) or stat.S_ISREG(os.stat(path).st_mode):
                with open(path, encoding="utf-8-sig") as file:
                    text = file.read(LARGEST)
                    if file.read(1):
                        say(f"warning: ignoring {path}, which is larger than {LARGEST} characters\n")
                        continue
            else:
                continue
        except FileNotFoundError:
            continue
        except (OSError, UnicodeDecodeError) as error:
            say(f"warning: {path} cannot be read: {error}\n")
            continue
        os.environ.update(parse(text))


def parse(text):
    """Parses lines `NAME=value`, optionally after `export`. Double-quoted values may contain escapes such as `\\n`;
    single-quoted ones are literal; in unquoted ones, a `#` after a blank starts a comment."""
    variables = {}
    for line in text.splitlines():
        line = line.strip().removeprefix("export ").lstrip()
        name, equals, raw = line.partition("=")
        name, value = name.strip(), raw.strip()
        if not equals or not name or name.startswith("#") or "\0" in line or " " in name:
            continue
        if value[:1] in ("'", '"'):
            value = quoted(value)
        else:
            value = COMMENT.split(raw, maxsplit=1)[0].strip()
        variables[name] = value
    return variables


def quoted(text):
    """Returns the text between the quotes, after which a comment may follow; without a closing quote, the whole
    text."""
    quote, characters, position = text[0], [], 1
    while position < len(text):
        character = text[position]
        if character == quote:
            return "".join(characters)
        if character == "\\" and quote == '"' and position + 1 < len(text):
            position += 1
            character = {"n": "\n", "t": "\t"}.get(text[position], text[position])
        characters.append(character)
        position += 1
    return text


def python_path() -> list[str]:
    """Returns the folders of `PYTHONPATH`, which our Python processes ignore at startup (`-E`)."""
    return [os.path.abspath(folder) for folder in os.environ.get("PYTHONPATH", "").split(os.pathsep) if folder]


def own_python_first() -> None:
    """Puts the task's Python first in PATH, so that `python3` and the commands of its environment are found there."""
    folders = os.environ.get("PATH", "").split(os.pathsep)
    own_folder = os.path.dirname(sys.executable)
    if sys.prefix != sys.base_prefix:
        os.environ["VIRTUAL_ENV"] = sys.prefix
        is_first = folders[0] == own_folder
    else:
        first_python = next((path for path in (os.path.join(folder, "python3") for folder in folders) if os.access(path, os.X_OK)), "")
        is_first = os.path.realpath(first_python) == os.path.realpath(sys.executable)
    if not is_first:
        os.environ["PATH"] = os.pathsep.join(filter(None, (own_folder, os.environ.get("PATH"))))
