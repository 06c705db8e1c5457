"""etcd, the API server, the controller manager and the scheduler."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from .api import Api, http_ok
from .base import BRIDGE_IP, STATE, Daemon, cache_key, write
from .layout import (
    API_PORT,
    AUDIT_LOG,
    CONFIG,
    CONTROLLER_MANAGER_PORT,
    ETCD_PEER_PORT,
    ETCD_PORT,
    NODE,
    PKI,
    SCHEDULER_PORT,
    SERVICE_CIDR,
    TEMPLATES,
)

_EXTRA_FLAGS = CONFIG / "apiserver-flags.json"


def etcd(programs: Path) -> Daemon:
    peers = f"http://127.0.0.1:{ETCD_PEER_PORT}"
    clients = f"http://127.0.0.1:{ETCD_PORT}"
    return Daemon(
        "etcd",
        [
            programs / "etcd",
            "--name=ems-bots-dev",
            f"--data-dir={STATE / 'etcd'}",
            f"--listen-client-urls={clients}",
            f"--advertise-client-urls={clients}",
            f"--listen-peer-urls={peers}",
            f"--initial-advertise-peer-urls={peers}",
            f"--initial-cluster=ems-bots-dev={peers}",
            # Nothing here has to survive a power cut; without it every write waits for the disk.
            "--unsafe-no-fsync",
            "--log-level=warn",
        ],
    )


def etcd_is_ready() -> bool:
    return http_ok(ETCD_PORT, "/health")


def extra_flags() -> list[str]:
    return list(json.loads(_EXTRA_FLAGS.read_text())) if _EXTRA_FLAGS.exists() else []


def set_extra_flags(flags: Sequence[str]) -> bool:
    """Flags for the API server beyond our own, for example `--audit-webhook-config-file=...`. They stay until changed
    or until `down`. Returns whether that changed anything; the API server takes them when it is started again."""
    return write(_EXTRA_FLAGS, json.dumps(list(flags)))


def apiserver(programs: Path, certificates: str) -> Daemon:
    extra, policy = extra_flags(), TEMPLATES / "audit-policy.yaml"
    # A file that a flag names is read at start only, so its contents are part of what the process was started with.
    pairs = [flag.partition("=")[::2] for flag in extra]
    files = [Path(value) for name, value in pairs if name.endswith(("file", "config")) and Path(value).is_file()]
    return Daemon(
        "kube-apiserver",
        [
            programs / "kube-apiserver",
            f"--etcd-servers=http://127.0.0.1:{ETCD_PORT}",
            # Only where pods and this host reach it, not on the machine's other networks.
            f"--bind-address={BRIDGE_IP}",
            f"--advertise-address={BRIDGE_IP}",
            f"--secure-port={API_PORT}",
            f"--service-cluster-ip-range={SERVICE_CIDR}",
            "--authorization-mode=Node,RBAC",
            "--enable-admission-plugins=NodeRestriction",
            f"--client-ca-file={PKI / 'ca.crt'}",
            f"--tls-cert-file={PKI / 'apiserver.crt'}",
            f"--tls-private-key-file={PKI / 'apiserver.key'}",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={PKI / 'service-accounts.pub'}",
            f"--service-account-signing-key-file={PKI / 'service-accounts.key'}",
            f"--kubelet-client-certificate={PKI / 'admin.crt'}",
            f"--kubelet-client-key={PKI / 'admin.key'}",
            f"--kubelet-certificate-authority={PKI / 'ca.crt'}",
            # By address: the node's name is not in anybody's DNS.
            "--kubelet-preferred-address-types=InternalIP",
            "--allow-privileged=true",
            "--shutdown-delay-duration=0s",
            f"--audit-policy-file={policy}",
            f"--audit-log-path={AUDIT_LOG}",
            "--audit-log-maxsize=200",  # MB
            "--audit-log-maxbackup=1",
            *extra,
        ],
        env={"EMS_CONFIG": cache_key(certificates, policy, *files)},
        grace=2,  # it would wait for the end of every watch; what it has to keep is in etcd
    )


def controller_manager(programs: Path, certificates: str) -> Daemon:
    config = CONFIG / "controller-manager.kubeconfig"
    return Daemon(
        "kube-controller-manager",
        [
            programs / "kube-controller-manager",
            f"--kubeconfig={config}",
            f"--authentication-kubeconfig={config}",
            f"--authorization-kubeconfig={config}",
            "--bind-address=127.0.0.1",
            f"--secure-port={CONTROLLER_MANAGER_PORT}",
            "--leader-elect=false",
            "--use-service-account-credentials=true",
            f"--root-ca-file={PKI / 'ca.crt'}",
            f"--service-account-private-key-file={PKI / 'service-accounts.key'}",
            "--kube-api-qps=200",
            "--kube-api-burst=400",
        ],
        env={"EMS_CONFIG": certificates},
    )


def controller_manager_is_ready() -> bool:
    return http_ok(CONTROLLER_MANAGER_PORT, "/healthz", tls=True)


def scheduler(programs: Path, certificates: str) -> Daemon:
    config = CONFIG / "scheduler.kubeconfig"
    return Daemon(
        "kube-scheduler",
        [
            programs / "kube-scheduler",
            f"--kubeconfig={config}",
            f"--authentication-kubeconfig={config}",
            f"--authorization-kubeconfig={config}",
            "--bind-address=127.0.0.1",
            f"--secure-port={SCHEDULER_PORT}",
            "--leader-elect=false",
            "--kube-api-qps=200",
            "--kube-api-burst=400",
        ],
        env={"EMS_CONFIG": certificates},
    )


def scheduler_is_ready() -> bool:
    return http_ok(SCHEDULER_PORT, "/healthz", tls=True)


def apiserver_is_ready() -> bool:
    return Api().is_ready()


def node_is_ready() -> bool:
    node = Api().get_or_none(f"/api/v1/nodes/{NODE}")
    if node is None:
        return False
    return any(c["type"] == "Ready" and c["status"] == "True" for c in node.get("status", {}).get("conditions", []))
