"""Programs that go on running after the command that started them, and how they are found and stopped again."""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from .cache import cache_key
from .core import RUN, STATE, StepError, tail, write

PIDS = RUN / "pid"
LOGS = STATE / "log"


def start_time(pid: int) -> int | None:
    """When a process started, in clock ticks since boot, or None if it does not run.

    A pid alone names nothing for long: the kernel gives it to another program. Pid and start time stay unique.
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] in "ZX" else int(fields[19])


def group_members(group: int) -> list[int]:
    members = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError, IndexError):
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
                if int(fields[2]) == group and fields[0] not in "ZX":
                    members.append(int(entry.name))
    return members


def end_processes(alive: Callable[[], list[int]], timeout: float) -> bool:
    """TERM, then KILL after `timeout`, until `alive()` is empty. Returns whether it became empty."""
    for kind, patience in ((signal.SIGTERM, timeout), (signal.SIGKILL, 5.0)):
        pids = alive()
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, kind)
        deadline = time.monotonic() + patience
        while alive():
            if time.monotonic() > deadline:
                break
            time.sleep(0.05)
        else:
            return True
    return not alive()


class Daemon:
    """One program in a session of its own: output in `STATE/log/<name>.log`, identity in `RUN/pid/<name>`."""

    def __init__(
        self,
        name: str,
        argv: Sequence[str | Path],
        env: Mapping[str, str] | None = None,
        user: str | None = None,
        cwd: Path | None = None,
        grace: float = 10,
    ) -> None:
        """`grace` is how many seconds it gets to end by itself."""
        self.name = name
        self.argv = [str(word) for word in argv]
        self.env, self.user, self.cwd, self.grace = env, user, cwd, grace
        self.log = LOGS / f"{name}.log"
        self._record = PIDS / name

    @property
    def _identity(self) -> str:
        """A digest, because arguments and environment may hold secrets that have no business in a pid file."""
        return cache_key(json.dumps([self.argv, dict(self.env or {}), self.user, str(self.cwd)]))

    def _read(self) -> dict[str, object] | None:
        try:
            record = json.loads(self._record.read_text())
        except (FileNotFoundError, ValueError):
            return None
        return record if isinstance(record, dict) else None

    def pid(self) -> int | None:
        """Its process id if it runs, whatever arguments it was started with."""
        record = self._read()
        if record is None:
            return None
        pid = int(str(record["pid"]))
        return pid if start_time(pid) == record["started"] else None

    def running(self) -> bool:
        return self.pid() is not None

    def is_current(self) -> bool:
        """Whether it runs with the arguments, environment and user that this object names."""
        record = self._read()
        return self.running() and record is not None and record.get("identity") == self._identity

    def start(self, ready: Callable[[], bool], timeout: float = 30) -> bool:
        """Start it unless it runs as named already, and wait for `ready`. Returns whether a process was started."""
        if self.is_current():
            if ready():
                return False
            # It runs and does not answer: give it the same patience as a new one, then replace it.
            if self._wait(ready, timeout / 2) is None:
                return False
        self.stop()
        self.spawn()
        problem = self._wait(ready, timeout)
        if problem:
            text = self.log.read_text(errors="replace")
            self.stop()
            raise StepError(f"{self.name} {problem}", tail(text), f"its log: {self.log}; then run the command again")
        return True

    def spawn(self) -> None:
        """Start it without waiting for it. For programs that only become ready together; else use `start`."""
        self.log.parent.mkdir(parents=True, exist_ok=True)
        if self.log.exists():
            self.log.replace(self.log.with_suffix(".log.old"))
        account = pwd.getpwnam(self.user) if self.user else None
        # Locks of this command must not outlive it in a child; Python's descriptors are closed on exec by default.
        with self.log.open("wb") as log:
            try:
                process = subprocess.Popen(
                    self.argv,
                    cwd=self.cwd or "/",
                    env={**os.environ, **(self.env or {})},
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                    user=account.pw_uid if account else None,
                    group=account.pw_gid if account else None,
                    extra_groups=[] if account else None,
                )
            except OSError as error:
                raise StepError(f"cannot start {self.name}", str(error), f"check {self.argv[0]}") from error
        record = {"pid": process.pid, "started": start_time(process.pid), "identity": self._identity}
        write(self._record, json.dumps(record), 0o600)
        _children[process.pid] = process

    def _wait(self, ready: Callable[[], bool], timeout: float) -> str | None:
        deadline = time.monotonic() + timeout
        while True:
            pid = self.pid()
            if pid is None:
                return "ended at once" if timeout else "does not run"
            if ready():
                return None
            if time.monotonic() > deadline:
                return f"did not become ready within {timeout:.0f} s"
            time.sleep(0.1)

    def wait_ready(self, ready: Callable[[], bool], timeout: float) -> None:
        """For programs started with `spawn`."""
        problem = self._wait(ready, timeout)
        if problem:
            text = self.log.read_text(errors="replace") if self.log.exists() else ""
            raise StepError(f"{self.name} {problem}", tail(text), f"its log: {self.log}; then run the command again")

    def stop(self, timeout: float | None = None) -> None:
        """End it and its process group. Nothing happens if it does not run."""
        pid = self.pid()
        patience = self.grace if timeout is None else timeout
        if pid is not None and not end_processes(lambda: group_members(pid), patience):
            raise StepError(f"{self.name} (process {pid}) does not end", "it ignores KILL", "see its state in /proc")
        if pid in _children:
            _children.pop(pid).wait()
        self._record.unlink(missing_ok=True)


_children: dict[int, subprocess.Popen[bytes]] = {}
"""What this very process started: to be waited for, or it stays a zombie until we end."""
