"""Places, errors, steps, programs that run to their end, files and locks."""

from __future__ import annotations

import contextlib
import fcntl
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

_XDG_CACHE = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
CACHE = Path(os.environ.get("EMS_BOTS_CACHE") or Path(_XDG_CACHE) / "ems-bots")
"""Everything that was built; survives `down`."""

STATE = Path("/var/lib/ems-bots-dev")
"""Data, logs and configuration of what runs. One per machine, because a cluster is: its bridge, sockets, nft tables."""

RUN = Path("/run/ems-bots-dev")
"""Sockets, pid files, locks. Short, because the path of a unix socket is limited to 108 bytes."""

REPO = Path(__file__).resolve().parents[2]
BRIDGE_IP = "10.244.0.1"
"""The host as pods see it: the address of the bridge that their network hangs on."""

_TAIL_LINES = 25


class StepError(Exception):
    """Something failed: what happened and to which object, why, and what the reader can do next."""

    def __init__(self, what: str, why: str = "", hint: str = "") -> None:
        super().__init__(what)
        self.what, self.why, self.hint = what, why.strip(), hint.strip()

    def __str__(self) -> str:
        parts = [self.what]
        if self.why:
            parts.append("\n".join(f"  | {line}" for line in self.why.splitlines()))
        if self.hint:
            parts.append(f"  -> {self.hint}")
        return "\n".join(parts)


_depth = 0


def _say(text: str) -> None:
    """On standard error: standard output is for what a command was asked for."""
    print(text, file=sys.stderr, flush=True)


@contextlib.contextmanager
def step(title: str) -> Iterator[None]:
    """Print `title` now and, at the end of the block, how long it took or that it failed.

    The reason of a failure is printed once, where the error is caught: see `__main__`.
    """
    global _depth
    indent = "    " * _depth
    _say(f"{indent}==> {title}")
    started = time.monotonic()
    _depth += 1
    try:
        yield
    except BaseException as error:
        name = "" if isinstance(error, StepError) else f" ({type(error).__name__})"
        _say(f"{indent}    FAILED after {time.monotonic() - started:.1f} s: {title}{name}")
        raise
    else:
        _say(f"{indent}    done in {time.monotonic() - started:.1f} s")
    finally:
        _depth -= 1


def note(text: str) -> None:
    """Print a line that belongs to the step in progress."""
    _say("    " * _depth + text)


def tail(text: str, lines: int = _TAIL_LINES) -> str:
    return "\n".join(text.strip().splitlines()[-lines:])


def sh(
    argv: Sequence[str | Path],
    *,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    input: str | None = None,
    log: Path | None = None,
    timeout: float | None = None,
) -> str:
    """Run a program to its end and return its standard output.

    `env` is added to this process's environment. With `log` all output goes to that file and "" is returned. A failure
    names the program and shows the tail of what it printed, not its arguments or input: those can be secrets.
    """
    words = [str(word) for word in argv]
    program = Path(words[0]).name
    full_env = None if env is None else {**os.environ, **env}
    try:
        if log is None:
            done = subprocess.run(
                words,
                cwd=cwd,
                env=full_env,
                input=input,
                timeout=timeout,
                text=True,
                capture_output=True,
                stdin=subprocess.DEVNULL if input is None else None,
            )
            output, shown = done.stdout, done.stderr or done.stdout
        else:
            log.parent.mkdir(parents=True, exist_ok=True)
            with log.open("w") as file:
                done = subprocess.run(
                    words,
                    cwd=cwd,
                    env=full_env,
                    input=input,
                    timeout=timeout,
                    text=True,
                    stdout=file,
                    stderr=subprocess.STDOUT,
                    stdin=subprocess.DEVNULL if input is None else None,
                )
            output, shown = "", log.read_text(errors="replace") if done.returncode else ""
    except FileNotFoundError as error:
        missing = f"the folder {cwd}" if cwd is not None and not cwd.is_dir() else f"the program {words[0]}"
        raise StepError(f"cannot run {program}", f"{missing} does not exist", "install it, then try again") from error
    except subprocess.TimeoutExpired as error:
        raise StepError(
            f"{program} did not finish within {timeout:.0f} s", "", f"see {log}" if log else "try again by hand"
        ) from error
    if done.returncode:
        raise StepError(
            f"{program} failed with exit code {done.returncode}", tail(shown), f"the whole output: {log}" if log else ""
        )
    return output


def succeeds(argv: Sequence[str | Path], timeout: float = 10) -> bool:
    """Whether a program that only asks something ends with exit code 0."""
    try:
        sh(argv, timeout=timeout)
    except StepError:
        return False
    return True


def wait_until(predicate: Callable[[], bool], timeout: float, what: str, interval: float = 0.1) -> None:
    """Ask `predicate` until it is true; `what` completes the sentence "waited for ..."."""
    deadline = time.monotonic() + timeout
    while not predicate():
        if time.monotonic() > deadline:
            raise StepError(f"waited {timeout:.0f} s for {what}", "", f"the logs are in {STATE / 'log'}")
        time.sleep(interval)


def write(path: Path, text: str | bytes, mode: int = 0o644) -> bool:
    """Write a file through a rename, so that no reader sees half of it. Returns whether the contents changed."""
    data = text.encode() if isinstance(text, str) else text
    if path.is_file() and path.read_bytes() == data:
        path.chmod(mode)
        return False
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
        Path(name).chmod(mode)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    return True


@contextlib.contextmanager
def file_lock(path: Path, what: str) -> Iterator[None]:
    """Hold a lock file. The kernel releases it with its holder, so a killed run blocks nobody."""
    waiting = False
    while True:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            file = path.open("a")
        except FileNotFoundError:  # the folder went between the two lines above
            continue
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if not waiting:
                note(f"waiting for another run that is at: {what}")
            waiting = True
            fcntl.flock(file, fcntl.LOCK_EX)
        # The holder before us removed the file: what we hold then is the lock of a file that nobody else will find.
        with contextlib.suppress(FileNotFoundError):
            if path.stat().st_ino == os.fstat(file.fileno()).st_ino:
                break
        file.close()
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        file.close()


_exclusive_depth = 0


@contextlib.contextmanager
def exclusive(what: str) -> Iterator[None]:
    """Only one run at a time changes what runs on this machine. May be nested within one process."""
    global _exclusive_depth
    if os.geteuid() != 0:
        raise StepError(f"cannot start: {what}", "this needs root", "run it as root, or with sudo -E")
    with contextlib.ExitStack() as stack:
        if _exclusive_depth == 0:
            stack.enter_context(file_lock(RUN / "lock", what))
        _exclusive_depth += 1
        try:
            yield
        finally:
            _exclusive_depth -= 1
    with contextlib.suppress(OSError):  # after the end of everything the lock was the last file
        RUN.rmdir()
