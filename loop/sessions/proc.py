"""What the kernel says about processes and clocks, and the ladder that ends processes.

A process is named by pid, start time (field 22 of `/proc/PID/stat`, clock ticks since boot) and boot id: a pid
alone is reused, and a signal sent to a bare pid may hit a stranger. Standard library only, few imports: every
waiting shim carries this module in memory.
"""

from __future__ import annotations

import ctypes
import errno
import os
import signal
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

from loop.sessions import cgroup

PR_SET_CHILD_SUBREAPER = 36
#: `waitid` by machine: only the system call, not the C function, reports the usage of a child it leaves unreaped.
SYS_WAITID = {"x86_64": 247, "aarch64": 95, "riscv64": 95}
TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


class Ended(NamedTuple):
    """How an unreaped child ended; `cpu_seconds` and `max_rss_kb` cover it and the children it waited for.

    The peak counts from the fork, so it is never below the size of the process that forked.
    """

    code: int | None
    signal: int | None
    cpu_seconds: float | None
    max_rss_kb: int | None


class SpawnError(Exception):
    """A program could not be started; `code` is one of `bad_cwd`, `command_not_found`, `not_executable`,
    `argv_too_long`, `os_error`."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.code = code


class _Stat(NamedTuple):
    gone: bool  # a zombie without living threads
    parent: int
    ticks: int  # CPU of the process and of the children it waited for
    start: int


# ---------------------------------------------------------------------------------------------------- clocks


def boot_id() -> str:
    """The kernel's id of this boot. Raises OSError where /proc is not mounted."""
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        return file.read().strip()


def boottime_ns() -> int:
    """Nanoseconds on CLOCK_BOOTTIME: counts a suspended host, never steps."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


def monotonic() -> float:
    """Seconds on CLOCK_MONOTONIC: stands still while the host is suspended."""
    return time.clock_gettime(time.CLOCK_MONOTONIC)


def wall_now() -> str:
    """The wall clock as ISO-8601 UTC with microseconds and a `Z`."""
    seconds, rest = divmod(time.time_ns(), 1_000_000_000)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds))}.{rest // 1000:06d}Z"


# ------------------------------------------------------------------------------------------------- processes


def start_time(pid: int) -> int | None:
    """Start time of `pid` in clock ticks since boot; None if there is no such process."""
    try:
        return _stat(pid).start
    except OSError:
        return None


def alive(pid: int, start: int, boot: str) -> bool:
    """False only when it is certain that the process has ended; whatever cannot be read counts as alive."""
    try:
        if boot_id() != boot:
            return False
        stat = _stat(pid)
    except (FileNotFoundError, ProcessLookupError):
        return _signalable(pid)  # a missing /proc is not a missing process
    except OSError:
        return True
    return stat.start == start and not stat.gone


def descendants(pid: int) -> list[int]:
    """Every living process below `pid`, in no particular order; zombies are not listed."""
    children: dict[int, list[int]] = {}
    gone: set[int] = set()
    for each in _pids():
        try:
            stat = _stat(each)
        except OSError:
            continue
        children.setdefault(stat.parent, []).append(each)
        if stat.gone:
            gone.add(each)
    found: list[int] = []
    todo = [pid]
    while todo:
        below = children.pop(todo.pop(), [])
        found += below
        todo += below
    return [each for each in found if each not in gone]


def marked(run_dir: str, exclude: Iterable[int] = ()) -> list[int]:
    """Every process of the session that `run_dir` is named after, wherever it sits in the tree.

    Its environment says exactly `LOOP_SESSION=<session>`, or it is in the session's control group. It finds what left
    the tree, the process group and the lock. One whose `LOOP_RUN_DIR` is another directory belongs to the same session
    in a copy of this store, and is not found; nor are processes of other users, which cannot be read.
    """
    marker = b"\0LOOP_SESSION=" + os.fsencode(os.path.basename(run_dir)) + b"\0"
    skip = set(exclude)
    found = [pid for pid, environ in _with_variable(marker, skip) if not _is_of_copy(environ, run_dir)]
    skip.update(found)
    return found + [pid for pid in cgroup.members(run_dir) if pid not in skip and not _is_zombie(pid)]


def _is_zombie(pid: int) -> bool:
    try:
        return _stat(pid).gone
    except OSError:
        return True


def _is_of_copy(environ: bytes, run_dir: str) -> bool:
    _, _, rest = environ.partition(b"\0LOOP_RUN_DIR=")
    named = os.fsdecode(rest.partition(b"\0")[0])
    if not named or named == run_dir:
        return False
    try:
        theirs = os.stat(named)
    except OSError:
        return False  # the project was moved meanwhile, perhaps
    try:
        return not os.path.samestat(theirs, os.stat(run_dir))
    except OSError:
        return True


def of_runs(runs_dir: str) -> list[int]:
    """Every process of a session, whichever, whose run directory is or was below `runs_dir`; found as by `marked`."""
    return [pid for pid, _ in _with_variable(b"\0LOOP_RUN_DIR=" + os.fsencode(runs_dir) + b"/", ())]


def _with_variable(needle: bytes, exclude: Iterable[int]) -> list[tuple[int, bytes]]:
    """The processes in whose environment `needle` is, each with that, every variable between two NULs."""
    skip = set(exclude)
    found: list[tuple[int, bytes]] = []
    for pid in _pids():
        if pid in skip:
            continue
        try:
            with open(f"/proc/{pid}/environ", "rb", buffering=0) as file:
                environ = b"\0" + file.readall() + b"\0"
        except OSError:
            continue
        if needle in environ:
            found.append((pid, environ))
    return found


def cpu_ticks(pids: Iterable[int]) -> int:
    """CPU time of `pids` and of the children they waited for, in clock ticks; those that are gone count 0."""
    total = 0
    for pid in pids:
        try:
            total += _stat(pid).ticks
        except OSError:
            continue
    return total


def send(pid: int, start: int, number: int) -> bool:
    """Signal exactly the process (pid, start); False if it is gone or must not be signalled by this user."""
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return False
    except OSError:
        fd = -1  # no pidfds here: a start time checked just before is the second best
    try:
        if start_time(pid) != start:
            return False
        if fd >= 0:
            signal.pidfd_send_signal(fd, number)
        else:
            os.kill(pid, number)
    except OSError:
        return False
    finally:
        if fd >= 0:
            os.close(fd)
    return True


def end_all(find: Callable[[], list[int]], grace: float) -> int:
    """End every process that `find` returns: TERM, `grace` seconds, KILL, until two passes in a row find nobody.

    Two passes, because a process forked during one sweep is missed by it. Returns how many different processes
    were found. Does not return while one of them cannot be ended (uninterruptible, or another user's): whoever
    waits here must not believe that the session is over.
    """
    seen: set[tuple[int, int]] = set()
    kill_at = monotonic() + grace
    nap = 0.005
    empty = 0
    while empty < 2:
        found = {(pid, start) for pid in find() if (start := start_time(pid)) is not None}
        killing = monotonic() >= kill_at
        for pid, start in found if killing else found - seen:
            send(pid, start, signal.SIGKILL if killing else signal.SIGTERM)
        seen |= found
        empty = 0 if found else empty + 1
        if found:
            time.sleep(nap if killing else max(0.001, min(nap, kill_at - monotonic())))
            nap = min(nap * 1.5, 0.5)
    return len(seen)


# -------------------------------------------------------------------------------------------------- children


def become_subreaper() -> None:
    """Make orphans of this process's descendants its own children. Raises OSError if the kernel refuses."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), "prctl(PR_SET_CHILD_SUBREAPER)")


def give_back_memory() -> None:
    """Return to the kernel what imports and compiling have left free; without effect where libc cannot."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def spawn(
    argv: Sequence[str], cwd: str, env: Mapping[str, str], out: int, err: int, *,
    group: str | None = None, new_session: bool = False,
) -> int:  # fmt: skip
    """Start a program and return its pid once it runs. Raises SpawnError; then no process is left of it.

    Standard input is empty, output goes to the descriptors `out` and `err`, signals are as at login, and only
    inheritable descriptors pass. It leads its own process group, or with `new_session` its own session, and is born
    into the control group `group`, if it can be. A name without a slash is looked up in the PATH of `env`.
    """
    told, tell = os.pipe()
    null = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
    try:
        pid = os.fork()
        if pid == 0:
            _become(argv, cwd, env, (null, out, err), tell, group, new_session)
    except OSError as error:
        os.close(told)
        raise SpawnError("os_error", f"cannot fork: {error}") from None
    finally:
        os.close(tell)
        os.close(null)
    with open(told, "rb") as pipe:
        words = pipe.read().decode().split()  # ends when the program runs, which closes the pipe, or dies
    if not words:
        return pid
    os.waitpid(pid, 0)
    number = int(words[1])
    why = os.strerror(number) if number else "an argument or variable has a NUL character"
    if words[0] == "cwd":
        raise SpawnError("bad_cwd", f"cannot change to {cwd}: {why}")
    code = {
        errno.ENOENT: "command_not_found",
        errno.ENOTDIR: "command_not_found",
        errno.EACCES: "not_executable",
        errno.ENOEXEC: "not_executable",
        errno.E2BIG: "argv_too_long",
    }.get(number, "os_error")
    raise SpawnError(code, f"cannot run {argv[0] if argv else 'an empty command'}: {why}")


def _become(
    argv: Sequence[str], cwd: str, env: Mapping[str, str], fds: tuple[int, int, int], tell: int,
    group: str | None, new_session: bool,
) -> None:  # fmt: skip
    """The child's part of `spawn`: never returns, and says on the descriptor `tell` what failed."""
    step = "setup"
    try:
        if new_session:
            os.setsid()
        else:
            os.setpgid(0, 0)
        if group is not None:
            cgroup.try_enter(group)
        for number in signal.valid_signals():
            if signal.getsignal(number) not in (signal.SIG_DFL, None):
                signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        for target, fd in enumerate(fds):
            os.dup2(fd, target)
        step = "cwd"
        os.chdir(cwd)
        step = "exec"
        found = errno.ENOENT
        name = argv[0] if argv else ""
        places = [""] if "/" in name else env.get("PATH", os.defpath).split(":")
        for place in places if name else ():
            try:
                os.execve(os.path.join(place, name), list(argv), dict(env))
            except OSError as error:
                if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.EACCES):
                    raise
                # Found but not executable says more than not found further on.
                found = errno.EACCES if error.errno == errno.EACCES else found
        raise OSError(found, os.strerror(found))
    except OSError as error:
        os.write(tell, f"{step} {error.errno or errno.EIO}".encode())
    except BaseException:
        os.write(tell, f"{step} 0".encode())
    finally:
        os._exit(127)


def peek(pid: int) -> Ended | None:
    """How the child `pid` ended, leaving it unreaped; None while it runs. Raises ChildProcessError if not ours."""
    info = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    if info is None:
        return None
    cpu, rss = _usage(pid)
    if info.si_code == os.CLD_EXITED:
        return Ended(info.si_status, None, cpu, rss)
    return Ended(None, info.si_status, cpu, rss)


def reap(keep: int = 0) -> bool:
    """Reap every ended child but `keep`; False when this process has no children left at all."""
    while True:
        try:
            info = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            if info is None or info.si_pid == keep:
                return True
            os.waitpid(info.si_pid, 0)
        except ChildProcessError:
            return False


def _usage(pid: int) -> tuple[float | None, int | None]:
    """CPU seconds and peak resident KiB of an ended, unreaped child; None for what this machine cannot say."""
    number = SYS_WAITID.get(os.uname().machine)
    if number is not None:
        info, usage = ctypes.create_string_buffer(128), (ctypes.c_long * 18)()
        flags = os.WEXITED | os.WNOHANG | os.WNOWAIT
        if ctypes.CDLL(None).syscall(ctypes.c_long(number), os.P_PID, pid, info, flags, usage) == 0:
            # struct rusage: user seconds, microseconds, system seconds, microseconds, peak resident KiB
            return usage[0] + usage[2] + (usage[1] + usage[3]) / 1e6, usage[4]
    ticks = cpu_ticks([pid])
    return ticks / TICKS_PER_SECOND, None


def _pids() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdecimal()]


def _stat(pid: int) -> _Stat:
    with open(f"/proc/{pid}/stat", "rb", buffering=0) as file:
        data = file.readall()
    # The command name may hold spaces and parentheses; nothing after its closing parenthesis does.
    fields = data.rpartition(b")")[2].split()
    if len(fields) < 20:
        raise ProcessLookupError(pid)
    # A leader that has exited while its threads run on shows as a zombie, too: it is not gone.
    gone = fields[0] in (b"Z", b"X") and int(fields[17]) <= 1
    return _Stat(gone, int(fields[1]), sum(map(int, fields[11:15])), int(fields[19]))


def _signalable(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
