"""Removes what a cluster leaves behind, orderly ended or killed: processes, mounts, network, control groups, files."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import shutil
import signal
import time
from pathlib import Path

from . import network
from .base import RUN, STATE, Daemon, StepError, note, sh, succeeds
from .daemon import LOGS, PIDS, end_processes, start_time
from .kubelet import cgroup_folders
from .layout import (
    BRIDGE,
    CNI_RUN,
    CONFIG,
    CONTAINERD,
    CONTAINERD_RUN,
    CONTAINERD_SOCKET,
    DNS,
    KUBECONFIG,
    KUBELET,
    PKI,
    POD_LOGS,
    VOLUMES,
)

DAEMONS = (  # in the order in which they are ended: first those that would start something again
    "volume-recycler",
    "kubelet",
    "kube-proxy",
    "coredns",
    "kube-scheduler",
    "kube-controller-manager",
    "kube-apiserver",
    "etcd",
    "containerd",
)
_FOLDERS = (CONFIG, PKI, DNS, VOLUMES, KUBELET, CONTAINERD, STATE / "etcd", POD_LOGS, CONTAINERD_RUN, CNI_RUN)
_MNT_DETACH = 2


def everything() -> None:
    """End the cluster and remove all but the cache. Fine to run at any time, also when nothing is there."""
    for name in DAEMONS:
        Daemon(name, []).stop(timeout=3)
    _end_containers()
    _unmount()
    _remove_network()
    _remove_cgroups()
    for folder in _FOLDERS:
        _remove_tree(folder)
    _remove_fixed_places()
    KUBECONFIG.unlink(missing_ok=True)
    for name in DAEMONS:
        for log in (LOGS / f"{name}.log", LOGS / f"{name}.log.old"):
            log.unlink(missing_ok=True)
    for folder in (LOGS, STATE, PIDS):
        with contextlib.suppress(OSError):  # not empty: other services of ours are there
            folder.rmdir()


def leftovers() -> list[str]:
    """What there is of ours on this machine: nothing after `down`."""
    found = [str(folder) for folder in (STATE, RUN) if folder.exists()]
    found += [f"mount {point}" for point in _mounts_below(*_FOLDERS)]
    found += [f"process {pid}" for pid in (*_shims(), *_contained())]
    found += [f"bridge {BRIDGE}"] if Path("/sys/class/net", BRIDGE).exists() else []
    return found + [f"nft table {family} {table}" for family, table in _nft_tables()]


def kill_suddenly() -> None:
    """End the cluster's daemons as a power cut does, and leave all that they made."""
    for name in DAEMONS:
        if (pid := Daemon(name, []).pid()) is not None:
            os.kill(pid, signal.SIGKILL)


def _shims() -> list[int]:
    """The shims of our containerd, known by its socket in their arguments; those of others are left alone."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                words = (entry / "cmdline").read_bytes().split(b"\0")
                if b"containerd-shim" in words[0] and os.fsencode(CONTAINERD_SOCKET) in words:
                    found.append(int(entry.name))
    return [pid for pid in found if start_time(pid) is not None]


def _contained() -> list[int]:
    """Every process in a pod."""
    found: set[int] = set()
    for folder in cgroup_folders():
        for file in folder.rglob("cgroup.procs"):
            with contextlib.suppress(OSError):
                found.update(int(pid) for pid in file.read_text().split())
    return [pid for pid in found if pid and start_time(pid) is not None]


def _end_containers() -> None:
    # Shims first: they would report the end of their container to a containerd that is not there, and linger.
    for what, alive in (("shims", _shims), ("pods' processes", _contained)):
        if not end_processes(alive, timeout=1):
            raise StepError(f"some of the {what} do not end: {alive()}", "", "/proc/<pid>/stack says where they hang")


def _mounts_below(*roots: Path) -> list[str]:
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    points = [line.split()[4].encode().decode("unicode_escape") for line in lines]
    return [point for point in points if any(point.startswith(f"{root}/") or point == str(root) for root in roots)]


def _unmount() -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    for _ in range(3):  # mounts lie on mounts: what one round uncovers the next one takes
        for point in reversed(_mounts_below(*_FOLDERS)):
            libc.umount2(os.fsencode(point), _MNT_DETACH)
    left = _mounts_below(*_FOLDERS)
    if left:
        raise StepError("cannot unmount what the cluster mounted", "\n".join(left), "do it by hand, then try again")


def _nft_tables() -> list[tuple[str, str]]:
    ours = (("ip", "kube-proxy"), ("ip6", "kube-proxy"), ("ip", network.NFT_TABLE))
    return [table for table in ours if shutil.which("nft") and succeeds(["nft", "list", "table", *table])]


def _remove_network() -> None:
    for family, table in _nft_tables():
        sh(["nft", "delete", "table", family, table])
    if Path("/sys/class/net", BRIDGE, "bridge").exists():
        # Each pair ends with its namespace, but that takes the kernel a while.
        for port in Path("/sys/class/net", BRIDGE, "brif").iterdir():
            with contextlib.suppress(StepError):
                sh(["ip", "link", "del", port.name])
        sh(["ip", "link", "del", BRIDGE])
    settings, _ = network.before()
    network.set_kernel(settings)


def _remove_cgroups() -> None:
    deadline = time.monotonic() + 5
    while True:
        left = []
        for top in cgroup_folders():
            for folder in sorted([top, *(p for p in top.rglob("*") if p.is_dir())], reverse=True):
                try:
                    folder.rmdir()
                except FileNotFoundError:
                    pass
                except OSError:
                    left.append(folder)
        if not left:
            return
        if time.monotonic() > deadline:
            note(f"control groups that are still in use stay until the next run: {left[0]} and {len(left) - 1} more")
            return
        time.sleep(0.1)


def _remove_tree(path: Path) -> None:
    try:
        shutil.rmtree(path)
    except FileNotFoundError:
        pass
    except OSError as error:
        raise StepError(f"cannot remove {path}", str(error), "`lsof +D` says who uses it") from error


def _remove_fixed_places() -> None:
    """What the kubelet and the CNI library keep at places that cannot be configured."""
    ours: set[str] = set()
    results = Path("/var/lib/cni/results")
    for file in results.glob(f"{network.CNI_NETWORK}-*"):
        with contextlib.suppress(OSError, ValueError):
            ours.add(json.loads(file.read_text())["containerId"])
        file.unlink(missing_ok=True)
    for container in ours:
        for file in results.glob(f"*{container}*"):
            file.unlink(missing_ok=True)
    for link in Path("/var/log/containers").glob("*"):
        if link.is_symlink() and link.readlink().is_relative_to(POD_LOGS):
            link.unlink()
    _, folders = network.before()
    for folder in folders:
        if folder.is_dir():
            _remove_tree(folder)
    network.forget_before()
