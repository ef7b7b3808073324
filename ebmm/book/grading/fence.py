"""Runs a command with fewer rights than the one who starts it has, as far as that can be done without root.

    python fence.py RIGHTS COMMAND...

On Linux 5.13 and newer, Landlock lets the command and all that it starts read and write only where RIGHTS, as JSON,
say so; newer kernels also keep it from TCP connections (6.7) and from sending signals to others (6.12). Memory, files
and processes are limited by setrlimit, where there is one; a filter of system calls keeps it from the limits of
others. The calls of Landlock are those of the kernel's documentation, userspace-api/landlock.rst.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import json
import os
import platform
import struct
import sys
from collections.abc import Iterable
from pathlib import Path

CREATE_RULESET, ADD_RULE, RESTRICT_SELF = 444, 445, 446  # system calls, the same on every processor
NO_NEW_PRIVILEGES, DROP_CAPABILITY, SET_FILTER = 38, 24, 22  # of prctl
PRLIMIT = {"x86_64": (0xC000003E, 302), "aarch64": (0xC00000B7, 261)}  # how a processor is told, and the call's number
# Rights by their bits: execute, write, read a file, list a folder, and then those that make and remove things.
EXECUTE, WRITE, READ, LIST, TRUNCATE = (1 << bit for bit in (0, 1, 2, 3, 14))
OF_FILES = EXECUTE | WRITE | READ | TRUNCATE
BITS = {1: 13, 2: 14, 3: 15, 4: 15}  # how many of them each version of Landlock knows; from 5 on 16
TCP, SIGNALS_AND_SOCKETS = 0b11, 0b11
DEVICES = ("/dev/null", "/dev/zero", "/dev/urandom", "/dev/random")
FILE_BYTES = 2**28
PROCESSES = 256  # more than there are


def fenced(
    command: list[str], writable: Iterable[Path], readable: Iterable[Path], hidden: list[Path], memory: int
) -> list[str]:
    """The command that runs another one in a fence; on Windows, which has none, that one.

    Args:
        command: to be run.
        writable: folders to which it may write.
        readable: folders that it may read although they lie in hidden ones.
        hidden: files and folders that it may not read; all others may be read.
        memory: bytes of data that each process may hold.

    Example:
        >>> fenced(["python"], [], [], [], memory=2**32)[-1]
        'python'
    """
    if sys.platform == "win32":
        return command
    seen = {path for folder in (Path("/"), *readable) for path in around(folder, hidden)}
    rights = {
        "writable": [str(path.resolve()) for path in writable],
        "readable": sorted(map(str, seen)),
        "listable": [path for path in sys.path if os.path.isdir(path)],
        "memory": memory,
    }
    return [sys.executable, "-I", __file__, json.dumps(rights), *command]


def around(folder: Path, hidden: list[Path]) -> list[Path]:
    """The largest parts of a folder in which nothing is hidden; links are left out, since what they lead to counts.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp()).resolve()
        >>> for name in ("a/b", "a/c", "d"):
        ...     (folder / name).mkdir(parents=True)
        >>> [str(path.relative_to(folder)) for path in around(folder, [folder / "a" / "b"])]
        ['a/c', 'd']
    """
    if folder in hidden:
        return []
    if not any(folder in path.parents for path in hidden):
        return [folder]
    with contextlib.suppress(OSError):
        entries = sorted(entry for entry in folder.iterdir() if not entry.is_symlink())
        return [part for entry in entries for part in around(entry, hidden)]
    return []


def landlock_version() -> int:
    """Which version of Landlock this kernel has; 0 for none.

    Example:
        >>> landlock_version() in range(99)
        True
    """
    if not sys.platform.startswith("linux"):
        return 0
    return max(0, int(ctypes.CDLL(None).syscall(CREATE_RULESET, None, 0, 1)))


def protections() -> str:
    """What a student's process cannot do on this machine, in a sentence.

    Example:
        >>> protections().startswith("A notebook")
        True
    """
    version = landlock_version()
    if not version:
        return (
            "A notebook can write and read wherever you can, since this machine has no Landlock (Linux 5.13): grade in "
            "a container."
        )
    more = [" opens no TCP connection"] * (version >= 4) + [" sends no signal to others"] * (version >= 6)
    return f"A notebook writes to a folder of its own only, cannot read the others{''.join(f',{one}' for one in more)}."


def enclose(writable: list[str], readable: list[str], listable: list[str]) -> None:
    """Take all rights to other files from this process and those that it starts; nothing gives them back."""
    version = landlock_version()
    kernel = ctypes.CDLL(None, use_errno=True)
    every = (1 << BITS.get(version, 16)) - 1
    handled = struct.pack("QQQ", every, TCP, SIGNALS_AND_SOCKETS)[: 8 if version < 4 else 16 if version < 6 else 24]
    rules = _called(kernel, CREATE_RULESET, handled, len(handled), 0)
    for paths, rights in (
        (readable, EXECUTE | READ | LIST),
        (listable, LIST),
        (writable, every),
        (DEVICES, READ | WRITE),
    ):
        for path in paths:
            _allow(kernel, rules, path, rights & every)
    for capability in range(64):  # what makes root more than the owner of its files
        kernel.prctl(DROP_CAPABILITY, capability, 0, 0, 0)
    _called(kernel, None, NO_NEW_PRIVILEGES, 1, 0, 0, 0)
    _leave_limits_of_others(kernel)
    _called(kernel, RESTRICT_SELF, rules, 0)
    os.close(rules)


def _leave_limits_of_others(kernel: ctypes.CDLL) -> None:
    """Refuse prlimit for other processes by a filter of system calls, which Landlock lets pass; see seccomp(2)."""
    if platform.machine() not in PRLIMIT:
        return
    processor, prlimit = PRLIMIT[platform.machine()]
    load, equal, at_least, end = 0x20, 0x15, 0x35, 0x06
    steps = [  # what to do, how many steps to leave out if it holds and if not, and a place or a number
        (load, 0, 0, 4), (equal, 0, 5, processor),
        (load, 0, 0, 0), (at_least, 3, 0, 0x40000000), (equal, 0, 3, prlimit),  # above: calls of another kind, x32
        (load, 0, 0, 16), (equal, 1, 0, 0),  # the process: 0 is the one that asks
        (end, 0, 0, 0x50000 | errno.EPERM), (end, 0, 0, 0x7FFF0000),
    ]  # fmt: skip
    program = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in steps))
    with contextlib.suppress(OSError):  # a kernel without such filters
        _called(kernel, None, SET_FILTER, 2, struct.pack("HP", len(steps), ctypes.addressof(program)))


def _allow(kernel: ctypes.CDLL, rules: int, path: str, rights: int) -> None:
    try:
        place = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:  # it has gone, or nobody here may open it
        return
    rights &= ~0 if os.path.isdir(path) else OF_FILES
    rule = struct.pack("=Qi", rights, place)
    if rights:
        _called(kernel, ADD_RULE, rules, 1, rule, 0)
    os.close(place)


def _called(kernel: ctypes.CDLL, call: int | None, *arguments: bytes | int) -> int:
    """A system call, or prctl where none is named; OSError where it fails."""
    given = [ctypes.c_char_p(one) if isinstance(one, bytes) else ctypes.c_long(one) for one in arguments]
    result = int(kernel.prctl(*given) if call is None else kernel.syscall(ctypes.c_long(call), *given))
    if result < 0:
        raise OSError(ctypes.get_errno(), f"the fence could not be built: {os.strerror(ctypes.get_errno())}")
    return result


def limit(memory: int) -> None:
    """What this process and each that it starts may hold; for root, whom no number of processes stops, less of it."""
    import resource

    started = len([path for path in Path("/proc").glob("[0-9]*/task/*") if _owner(path) == os.getuid()])
    limits = {
        "RLIMIT_DATA": memory,
        "RLIMIT_FSIZE": FILE_BYTES,
        "RLIMIT_CORE": 0,
        "RLIMIT_NPROC": started + PROCESSES if started else -1,
    }
    for name, most in limits.items():
        if most >= 0:
            kind = getattr(resource, name)
            hard = resource.getrlimit(kind)[1]
            most = most if hard == resource.RLIM_INFINITY else min(most, hard)
            resource.setrlimit(kind, (most, most))


def _owner(path: Path) -> int | None:
    with contextlib.suppress(OSError):
        return path.stat().st_uid
    return None


def main() -> None:
    """Build the fence, then become the command."""
    rights = json.loads(sys.argv[1])
    limit(rights.pop("memory"))
    if landlock_version():
        enclose(**rights)
    os.execv(sys.argv[2], sys.argv[2:])


if __name__ == "__main__":
    main()
