"""`.env` of a project and of the workspace: what their DAG files and tasks find in the environment."""

from __future__ import annotations

import os
import re
import stat
import sys
import time

LARGEST = 256 * 1024
# Read by the loader and the C library when a process begins, so that only a process that begins with them has them.
COMMENT = re.compile(r"(?<=[ \t])#")
READ_AT_START = ("GLIBC_TUNABLES", "LD_", "MALLOC_")


def load_first(roots: list[str]) -> None:
    """Before anything is imported that reads variables. Where it is too late for that, this process begins again."""
    before = dict(os.environ)
    load(roots, warn=False)
    at_start = read_at_start()
    if at_start != {name: before.get(name) for name in at_start}:
        os.execve(sys.executable, sys.orig_argv, {**before, **at_start})


def read_at_start() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name.startswith(READ_AT_START)}


def load(roots: list[str], warn: bool = True) -> None:
    """The nearest counts; all of them count more than what was there."""
    zone = os.environ.get("TZ")
    read(roots, sys.stderr.write if warn else len)
    if os.environ.get("TZ") != zone:
        # The C library keeps the time zone that it has read.
        time.tzset()


def read(roots, say):
    for root in reversed(roots):
        path = os.path.join(root, ".env")
        try:
            # Of a pipe nobody knows when it ends. One that is not there is asked for all the same: so it is noted
            # that it would count.
            if not os.path.exists(path) or stat.S_ISREG(os.stat(path).st_mode):
                with open(path, encoding="utf-8-sig") as file:
                    text = file.read(LARGEST)
                    if file.read(1):
                        say(f"warning: {path} is larger than {LARGEST} characters; it is not read\n")
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
    """`NAME=value` a line, also after `export`. A value may be in quotes: in double ones `\\n` is a new line, in
    single ones all is as it stands; without any, a `#` behind a blank begins a comment."""
    found = {}
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
        found[name] = value
    return found


def quoted(text):
    """What stands between the quotes; a comment may follow them. Without an end it is taken as it stands."""
    mark, characters, at = text[0], [], 1
    while at < len(text):
        one = text[at]
        if one == mark:
            return "".join(characters)
        if one == "\\" and mark == '"' and at + 1 < len(text):
            at += 1
            one = {"n": "\n", "t": "\t"}.get(text[at], text[at])
        characters.append(one)
        at += 1
    return text


def python_path() -> list[str]:
    """The folders of `PYTHONPATH`. Python itself reads it when it begins, and for our processes it is told not to."""
    return [os.path.abspath(folder) for folder in os.environ.get("PYTHONPATH", "").split(os.pathsep) if folder]


def own_python_first() -> None:
    """A command `python3` of a task is the Python that runs the task, and what its environment brings are commands of its own."""
    folders = os.environ.get("PATH", "").split(os.pathsep)
    own = os.path.dirname(sys.executable)
    if sys.prefix != sys.base_prefix:
        os.environ["VIRTUAL_ENV"] = sys.prefix
        is_first = folders[0] == own
    else:
        found = next((path for path in (os.path.join(one, "python3") for one in folders) if os.access(path, os.X_OK)), "")
        is_first = os.path.realpath(found) == os.path.realpath(sys.executable)
    if not is_first:
        os.environ["PATH"] = os.pathsep.join(filter(None, (own, os.environ.get("PATH"))))
