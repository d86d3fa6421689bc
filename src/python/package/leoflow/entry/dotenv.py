"""`.env` of a project and of the workspace: what their DAG files and tasks find in the environment."""

from __future__ import annotations

import os
import stat
import sys

LARGEST = 256 * 1024


def load(roots: list[str]) -> None:
    """The nearest counts; all of them count more than what was there."""
    for root in reversed(roots):
        path = os.path.join(root, ".env")
        try:
            # Of a pipe nobody knows when it ends. One that is not there is asked for all the same: so it is noted
            # that it would count.
            if not os.path.exists(path) or stat.S_ISREG(os.stat(path).st_mode):
                with open(path, encoding="utf-8-sig") as file:
                    text = file.read(LARGEST)
                    if file.read(1):
                        sys.stderr.write(f"warning: {path} is larger than {LARGEST} characters; it is not read\n")
                        continue
            else:
                continue
        except FileNotFoundError:
            continue
        except (OSError, UnicodeDecodeError) as error:
            sys.stderr.write(f"warning: {path} cannot be read: {error}\n")
            continue
        os.environ.update(parse(text))


def parse(text):
    """`NAME=value` a line, also after `export`. A value may be in quotes: in double ones `\\n` is a new line, in
    single ones all is as it stands; without any, ` #` begins a comment."""
    found = {}
    for line in text.splitlines():
        line = line.strip().removeprefix("export ").lstrip()
        name, equals, value = line.partition("=")
        name, value = name.strip(), value.strip()
        if not equals or not name or name.startswith("#") or "\0" in line or " " in name:
            continue
        if value[:1] in ("'", '"'):
            value = quoted(value)
        else:
            value = value.split(" #", 1)[0].rstrip()
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
