"""What makes this machine a node: the kubelet and kube-proxy, and the control group that pods live in."""

from __future__ import annotations

import contextlib
from pathlib import Path
from string import Template

from .api import http_ok
from .base import BRIDGE_IP, Daemon, cache_key, write
from .layout import (
    CGROUP,
    CONFIG,
    CONTAINERD_SOCKET,
    DNS,
    DOMAIN,
    KUBELET,
    KUBELET_HEALTH_PORT,
    KUBELET_PORT,
    NODE,
    PKI,
    POD_CIDR,
    POD_LOGS,
    PROXY_HEALTH_PORT,
    PROXY_METRICS_PORT,
    SERVICE_DNS_IP,
    TEMPLATES,
)

PACKAGES = ("iproute2", "iptables", "nftables", "conntrack", "ethtool", "socat", "util-linux", "mount")
_CGROUPS = Path("/sys/fs/cgroup")


def cgroup_folders() -> list[Path]:
    """Our control group in each hierarchy of cgroup v1, or the one of v2, whether it is there or not."""
    if (_CGROUPS / "cgroup.controllers").exists():
        return [_CGROUPS / CGROUP]
    return [hierarchy / CGROUP for hierarchy in _CGROUPS.iterdir() if hierarchy.is_dir() and not hierarchy.is_symlink()]


def ensure_cgroup() -> None:
    if (_CGROUPS / "cgroup.controllers").exists():
        for controller in (_CGROUPS / "cgroup.controllers").read_text().split():
            with contextlib.suppress(OSError):  # one that cannot be handed down is not needed by pods either
                (_CGROUPS / "cgroup.subtree_control").write_text(f"+{controller}")
    for folder in cgroup_folders():
        with contextlib.suppress(OSError):
            folder.mkdir(exist_ok=True)
        for name in ("cpuset.cpus", "cpuset.mems"):  # of v1: a new group has none, and then takes no process
            file = folder / name
            with contextlib.suppress(OSError):
                if file.exists() and not file.read_text().strip():
                    file.write_text((folder.parent / name).read_text())


def kubelet(programs: Path, certificates: str) -> Daemon:
    text = Template((TEMPLATES / "kubelet.yaml").read_text()).substitute(
        bridge_ip=BRIDGE_IP,
        port=KUBELET_PORT,
        health_port=KUBELET_HEALTH_PORT,
        containerd_socket=CONTAINERD_SOCKET,
        cgroup=CGROUP,
        dns_ip=SERVICE_DNS_IP,
        domain=DOMAIN,
        resolv_conf=DNS / "resolv.conf",
        pod_logs=POD_LOGS,
        pki=PKI,
        volume_plugins=KUBELET / "volume-plugins",
    )
    write(CONFIG / "kubelet.yaml", text)
    # The search domains of this machine are none of a pod's business.
    write(DNS / "resolv.conf", f"nameserver {BRIDGE_IP}\n")
    return Daemon(
        "kubelet",
        [
            programs / "kubelet",
            f"--config={CONFIG / 'kubelet.yaml'}",
            f"--kubeconfig={CONFIG / 'kubelet.kubeconfig'}",
            f"--root-dir={KUBELET}",
            f"--hostname-override={NODE}",
            f"--node-ip={BRIDGE_IP}",
        ],
        env={"EMS_CONFIG": cache_key(text, certificates)},
    )


def kubelet_is_ready() -> bool:
    return http_ok(KUBELET_HEALTH_PORT, "/healthz")


def proxy(programs: Path, certificates: str) -> Daemon:
    return Daemon(
        "kube-proxy",
        [
            programs / "kube-proxy",
            f"--kubeconfig={CONFIG / 'proxy.kubeconfig'}",
            "--proxy-mode=nftables",
            f"--cluster-cidr={POD_CIDR}",
            f"--hostname-override={NODE}",
            "--oom-score-adj=0",
            # The tables of connections are the machine's, not ours to size.
            "--conntrack-max-per-core=0",
            "--conntrack-tcp-timeout-established=0",
            "--conntrack-tcp-timeout-close-wait=0",
            f"--healthz-bind-address=127.0.0.1:{PROXY_HEALTH_PORT}",
            f"--metrics-bind-address=127.0.0.1:{PROXY_METRICS_PORT}",
        ],
        env={"EMS_CONFIG": certificates},
    )


def proxy_is_ready() -> bool:
    return http_ok(PROXY_HEALTH_PORT, "/livez")
