"""Shows the project's folder at the path that it has in a container image, such as `/opt/airflow`, to this process and the
processes that it starts. This is a mount namespace of an unprivileged user namespace (user_namespaces(7)): other processes do
not see it, and no root is needed."""

from __future__ import annotations

import os
import stat

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# Flags of unshare(2), mount(2) and umount2(2).
CLONE_NEWNS, CLONE_NEWUSER = 0x00020000, 0x10000000
MS_BIND, MS_REC, MS_PRIVATE, MNT_DETACH = 0x1000, 0x4000, 0x40000, 2

# Why the folder of this process's project could not be shown.
problem: str | None = None


def show_if(settings: dict[str, Any] | None) -> None:
    """Shows the working directory, the project's, at `image_folder` of the settings. Call it before the user's code runs, while
    the process has one thread. A failure is kept for the hint of a missing file: most of the project may work without it."""
    global problem
    folder = (settings or {}).get("image_folder")
    if not folder or _is_shown(folder):
        return
    try:
        show(folder, os.getcwd())
    except OSError as error:
        problem = error.strerror or str(error)


def obstacle(folder: str, project: str) -> str | None:
    """Tries in a child process; returns why it is not possible, or None."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        text = ""
        try:
            show(folder, project)
        except Exception as error:
            text = getattr(error, "strerror", None) or str(error) or type(error).__name__
        finally:
            os.write(writer, text.encode())
            os._exit(0)
    os.close(writer)
    with open(reader, "rb") as pipe:
        text = pipe.read().decode()
    os.waitpid(child, 0)
    return text or None


def _is_shown(folder: str) -> bool:
    try:
        return os.path.samefile(folder, ".")
    except OSError:
        return False


def show(folder: str, project: str) -> None:
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)

    def call(function, *arguments):
        if getattr(libc, function)(*arguments) != 0:
            number = ctypes.get_errno()
            raise OSError(number, f"{function}: {os.strerror(number)}")

    def mount(source, target, kind, flags):
        data = b"mode=755" if kind == "tmpfs" else None
        call("mount", os.fsencode(source), os.fsencode(target), kind and kind.encode(), ctypes.c_ulong(flags), data)

    project = os.path.realpath(project)
    uid, gid = os.geteuid(), os.getegid()
    call("unshare", CLONE_NEWUSER | CLONE_NEWNS)
    # The same ids, so that files have the same owners. A group can be mapped without privileges only after this `deny`.
    for name, text in (("setgroups", "deny"), ("uid_map", f"{uid} {uid} 1"), ("gid_map", f"{gid} {gid} 1")):
        with open(f"/proc/self/{name}", "w") as file:
            file.write(text)
    mount("none", "/", None, MS_REC | MS_PRIVATE)
    source = os.open(project, os.O_PATH | os.O_DIRECTORY)
    covered = None
    try:
        if not os.path.isdir(folder):
            covered = _existing_parent(folder)
            _cover(covered, mount)
            os.makedirs(folder)
        mount(f"/proc/self/fd/{source}", folder, None, MS_BIND | MS_REC)
    except OSError:
        if covered:
            libc.umount2(os.fsencode(covered), MNT_DETACH)
        raise
    finally:
        os.close(source)
    # The old working directory may be below the covered folder.
    os.chdir(project)


def _existing_parent(folder):
    while not os.path.isdir(folder):
        folder = os.path.dirname(folder)
    if folder == "/":
        raise OSError(0, "it is a new folder in /")
    return folder


def _cover(folder, mount):
    """Mounts an empty file system over a folder, in which new folders can be created, and the folder's entries in it."""
    original = os.open(folder, os.O_PATH | os.O_DIRECTORY)
    try:
        below = f"/proc/self/fd/{original}"
        names = os.listdir(below)
        mount("leoflow", folder, "tmpfs", 0)
        for name in names:
            there, here = f"{below}/{name}", os.path.join(folder, name)
            mode = os.lstat(there).st_mode
            if stat.S_ISLNK(mode):
                os.symlink(os.readlink(there), here)
                continue
            if stat.S_ISDIR(mode):
                os.mkdir(here)
            else:
                os.close(os.open(here, os.O_CREAT | os.O_WRONLY))
            mount(there, here, None, MS_BIND | MS_REC)
    finally:
        os.close(original)
