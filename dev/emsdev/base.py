"""What every part of the development tools stands on, from one place."""

from .cache import cache_key, cached
from .core import (
    BRIDGE_IP,
    CACHE,
    REPO,
    RUN,
    STATE,
    StepError,
    exclusive,
    file_lock,
    note,
    sh,
    step,
    succeeds,
    tail,
    wait_until,
    write,
)
from .daemon import Daemon
from .packages import apt_install, apt_missing

__all__ = [
    "BRIDGE_IP",
    "CACHE",
    "REPO",
    "RUN",
    "STATE",
    "Daemon",
    "StepError",
    "apt_install",
    "apt_missing",
    "cache_key",
    "cached",
    "exclusive",
    "file_lock",
    "note",
    "sh",
    "step",
    "succeeds",
    "tail",
    "wait_until",
    "write",
]
