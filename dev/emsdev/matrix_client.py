"""People with a Matrix client that is not ours: matrix-js-sdk in a Node process, driven by JSON lines."""

from __future__ import annotations

import contextlib
import itertools
import json
import queue
import subprocess
import threading
import time
from pathlib import Path
from types import TracebackType

from .base import STATE, StepError, tail
from .node import client_argv


class MatrixClient:
    """One driver process with any number of signed-in users. Use it in a `with` block; calls may come from threads.

    The operations are described in dev/client/README.md.
    """

    def __init__(self, log: Path | None = None) -> None:
        self.log = log or STATE / "log/client.log"
        self.log.parent.mkdir(parents=True, exist_ok=True)
        self._ids = itertools.count(1)
        self._waiting: dict[int, queue.Queue[dict[str, object]]] = {}
        self._lock = threading.Lock()
        with self.log.open("wb") as log_file:
            self._process = subprocess.Popen(
                client_argv(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log_file, text=True, bufsize=1
            )
        threading.Thread(target=self._read, daemon=True).start()

    def __enter__(self) -> MatrixClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def call(self, op: str, timeout: float = 60, **args: object) -> object:
        """One operation; its result, or a StepError with what the client said."""
        number = next(self._ids)
        answers: queue.Queue[dict[str, object]] = queue.Queue(1)
        # The driver gives up a little earlier, so that its message, which knows the reason, is the one that is seen.
        request = {"id": number, "op": op, "timeoutMs": int(max(timeout - 2, timeout * 0.8) * 1000), **args}
        about = " ".join(str(args[key]) for key in ("user", "room", "event") if key in args)
        with self._lock:
            self._waiting[number] = answers
            try:
                assert self._process.stdin is not None
                self._process.stdin.write(json.dumps(request) + "\n")
                self._process.stdin.flush()
            except (BrokenPipeError, ValueError) as error:
                self._waiting.pop(number, None)
                raise self._ended(op, about) from error
        deadline = time.monotonic() + timeout
        try:
            while True:
                try:
                    answer = answers.get(timeout=0.5)
                    break
                except queue.Empty:
                    if self._process.poll() is not None:
                        raise self._ended(op, about) from None
                    if time.monotonic() > deadline:
                        raise StepError(
                            f"test client: {op} {about} took more than {timeout:.0f} s", "", f"its log: {self.log}"
                        ) from None
        finally:
            self._waiting.pop(number, None)
        if not answer.get("ok"):
            said = answer.get("error")
            why = " ".join(str(part) for part in said.values()) if isinstance(said, dict) else str(said)
            raise StepError(f"test client: {op} {about} failed", why, f"its log: {self.log}")
        return answer.get("result")

    def close(self) -> None:
        """End the process. Its devices stay on the homeserver, as those of a phone that was switched off."""
        if self._process.stdin is not None and not self._process.stdin.closed:
            with contextlib.suppress(BrokenPipeError):
                self._process.stdin.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(5)

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            try:
                answer = json.loads(line)
            except ValueError:
                continue
            waiting = self._waiting.get(answer.get("id"))
            if waiting is not None:
                waiting.put(answer)

    def _ended(self, op: str, about: str) -> StepError:
        text = self.log.read_text(errors="replace")
        return StepError(
            f"test client: its process ended before it answered {op} {about}", tail(text), f"its log: {self.log}"
        )
