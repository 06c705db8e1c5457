"""Debian packages."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

from .core import RUN, StepError, file_lock, sh, step, write

_POLICY_RC = Path("/usr/sbin/policy-rc.d")


def apt_missing(*packages: str) -> list[str]:
    asked = subprocess.run(
        ["dpkg-query", "-W", "-f=${Package} ${db:Status-Status}\n", *packages], capture_output=True, text=True
    )
    present = {line.split()[0] for line in asked.stdout.splitlines() if line.endswith(" installed")}
    return [package for package in packages if package not in present]


def apt_install(*packages: str) -> None:
    """Install those of these Debian packages that are missing, without starting the services they bring."""
    missing = apt_missing(*packages)
    if not missing:
        return
    env = {"DEBIAN_FRONTEND": "noninteractive"}
    options = ["-y", "-q", "--no-install-recommends", "-o", "DPkg::Lock::Timeout=300"]
    title = f"install Debian packages: {' '.join(missing)}"
    with step(title), file_lock(RUN / "apt.lock", "apt-get"), _services_stay_down():
        try:
            sh(["apt-get", "install", *options, *missing], env=env)
        except StepError:  # the lists are often missing or stale: fetch them, then it counts
            sh(["apt-get", "update", "-q"], env=env)
            sh(["apt-get", "install", *options, *missing], env=env)


@contextlib.contextmanager
def _services_stay_down() -> Iterator[None]:
    """Forbid package scripts to start services: ours run with their own configuration, next to nobody's data."""
    before = (_POLICY_RC.read_bytes(), _POLICY_RC.stat().st_mode & 0o777) if _POLICY_RC.exists() else None
    ours = b"#!/bin/sh\n# by ems-bots dev/run, for the time of one installation\nexit 101\n"
    if before and before[0] == ours:  # left by a killed run
        before = None
    write(_POLICY_RC, ours, 0o755)
    try:
        yield
    finally:
        if before:
            write(_POLICY_RC, before[0], before[1])
        else:
            _POLICY_RC.unlink(missing_ok=True)
