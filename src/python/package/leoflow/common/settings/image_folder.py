"""Shows the project's folder at the path that it has in a container image, such as `/opt/airflow`, to this process and the
processes that it starts. This is a mount namespace of an unprivileged user namespace (user_namespaces(7)): other processes do
not see it, and no root is needed."""

from __future__ import annotations

import os
import stat

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# Flags of unshare(2), mount(2), umount2(2) and capset(2).
CLONE_NEWNS, CLONE_NEWUSER = 0x00020000, 0x10000000
MS_RDONLY, MS_REMOUNT, MS_BIND, MS_REC, MS_PRIVATE, MNT_DETACH = 1, 0x20, 0x1000, 0x4000, 0x40000, 2
LINUX_CAPABILITY_VERSION_3 = 0x20080522
# Ubuntu allows a user namespace without any rights in it: https://ubuntu.com/blog/ubuntu-23-10-restricted-unprivileged-user-namespaces
APPARMOR = "/proc/sys/kernel/apparmor_restrict_unprivileged_userns"

# Where the folder of this process's project is shown, and the project's folder.
_shown: tuple[str, str] | None = None
# The `image_folder` of the project, and why the project's folder cannot be shown there.
problem: tuple[str, str] | None = None


class NotPossible(Exception):
    """Why a folder cannot be shown; a part of a sentence for the user."""


def show_if(settings: dict[str, Any] | None) -> None:
    """Shows the working directory, the project's, at `image_folder` of the settings. Call it before the user's code runs, while
    the process has one thread. A failure is kept for warnings and hints: most of the project may work without it."""
    global _shown, problem
    folder = (settings or {}).get("image_folder")
    if not folder or _shown:
        return
    project = os.getcwd()
    try:
        show(folder, project)
        _shown = os.path.normpath(folder), project
    except (NotPossible, OSError) as error:
        problem = folder, getattr(error, "strerror", None) or str(error)


def is_in_use() -> bool:
    """True if the settings have an `image_folder`."""
    return bool(_shown or problem)


def warnings() -> list[str]:
    """Returns a warning about a project whose folder cannot be shown."""
    return [f"image_folder {folder} has no effect on this machine: {reason}" for folder, reason in filter(None, [problem])]


def in_project(path: str) -> str:
    """Returns the path of the project for a path below the shown folder, which other processes do not see."""
    if _shown and (path == _shown[0] or path.startswith(_shown[0] + os.sep)):
        return _shown[1] + path[len(_shown[0]):]
    return path


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


def show(folder: str, project: str) -> None:
    """Raises NotPossible or an OSError. What can be checked is checked before this process gets its namespaces."""
    if not hasattr(os, "O_PATH"):
        raise NotPossible("only Linux can show a folder to one task")
    project = os.path.realpath(project)
    if (os.path.realpath(folder) + os.sep).startswith(project + os.sep):
        raise NotPossible(f"{folder} is in the project")
    covered = None if os.path.isdir(folder) else folder_to_cover(folder)
    if covered is None and (os.path.ismount(folder) or os.listdir(folder)):
        raise NotPossible(f"{folder} exists here and has files of its own")
    if os.geteuid() != 0 and os.path.exists(APPARMOR):
        with open(APPARMOR) as file:
            if file.read().strip() != "0":
                raise NotPossible("AppArmor forbids it (kernel.apparmor_restrict_unprivileged_userns)")
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)

    def call(function, *arguments):
        if getattr(libc, function)(*arguments) != 0:
            number = ctypes.get_errno()
            raise OSError(number, f"{function}() failed: {os.strerror(number)}")

    def mount(source, target, kind, flags):
        data = b"mode=755" if kind == "tmpfs" else None
        call("mount", os.fsencode(source), os.fsencode(target), kind and kind.encode(), ctypes.c_ulong(flags), data)

    uid, gid = os.geteuid(), os.getegid()
    call("unshare", CLONE_NEWUSER | CLONE_NEWNS)
    # The same ids, so that files have the same owners. A group can be mapped without privileges only after this `deny`.
    for name, text in (("setgroups", "deny"), ("uid_map", f"{uid} {uid} 1"), ("gid_map", f"{gid} {gid} 1")):
        with open(f"/proc/self/{name}", "w") as file:
            file.write(text)
    mount("none", "/", None, MS_REC | MS_PRIVATE)
    shown = os.open(project, os.O_PATH | os.O_DIRECTORY)
    try:
        if covered:
            cover(covered, mount)
            os.makedirs(folder)
        mount(f"/proc/self/fd/{shown}", folder, None, MS_BIND | MS_REC)
        if covered:
            # A file that a task creates beside the covered entries would be lost: refused instead.
            mount("none", covered, None, MS_REMOUNT | MS_BIND | MS_RDONLY)
    except OSError:
        if covered:
            libc.umount2(os.fsencode(covered), MNT_DETACH)
        raise
    finally:
        os.close(shown)
    # The old working directory may be below the covered folder.
    os.chdir(project)
    if uid != 0:
        # The first process of a user namespace has all capabilities in it, and could write to the user's read-only files.
        call("capset", (ctypes.c_uint32 * 2)(LINUX_CAPABILITY_VERSION_3, 0), (ctypes.c_uint32 * 6)())


def folder_to_cover(folder):
    """Returns the nearest folder above that exists."""
    covered = os.path.dirname(os.path.normpath(folder))
    while not os.path.isdir(covered):
        covered = os.path.dirname(covered)
    if covered == "/":
        raise NotPossible(f"{folder} would be a new folder in /")
    for kept in (os.path.expanduser("~"), "/tmp", "/var/tmp", "/dev/shm"):
        # Programs create files there.
        if os.path.realpath(covered) == os.path.realpath(kept):
            raise NotPossible(f"{folder} would be a new folder in {covered}")
    return covered


def cover(folder, mount):
    """Mounts an empty file system over a folder, in which new folders can be created, and the folder's entries in it."""
    original = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        below = f"/proc/self/fd/{original}"
        names = os.listdir(original)
        mount("leoflow", folder, "tmpfs", 0)
        for name in names:
            source, target = f"{below}/{name}", os.path.join(folder, name)
            try:
                mode = os.lstat(source).st_mode
            except OSError:
                # Nor can this user reach it otherwise.
                continue
            if stat.S_ISLNK(mode):
                os.symlink(os.readlink(source), target)
                continue
            if stat.S_ISDIR(mode):
                os.mkdir(target)
            else:
                os.close(os.open(target, os.O_CREAT | os.O_WRONLY))
            mount(source, target, None, MS_BIND | MS_REC)
    finally:
        os.close(original)
