"""Names, addresses and places of the local cluster."""

from __future__ import annotations

from .core import BRIDGE_IP, REPO, RUN, STATE

NODE = "ems-bots-dev"
BRIDGE = "cni0"
POD_CIDR = "10.244.0.0/24"
SERVICE_CIDR = "10.96.0.0/16"
SERVICE_API_IP = "10.96.0.1"
SERVICE_DNS_IP = "10.96.0.10"
DOMAIN = "cluster.local"

# Next to the usual ports, not on them: an etcd or a Kubernetes that is already on this machine is left in peace.
API_PORT = 16443
ETCD_PORT = 12379
ETCD_PEER_PORT = 12380
KUBELET_PORT = 10250
KUBELET_HEALTH_PORT = 20248
PROXY_METRICS_PORT = 20249
PROXY_HEALTH_PORT = 20256
CONTROLLER_MANAGER_PORT = 20257
SCHEDULER_PORT = 20259
DNS_HEALTH_PORT = 20280
DNS_READY_PORT = 20281
API_URL = f"https://{BRIDGE_IP}:{API_PORT}"

TEMPLATES = REPO / "dev" / "cluster"
PKI = STATE / "pki"
CONFIG = STATE / "config"
DNS = STATE / "dns"
VOLUMES = STATE / "volumes"
KUBELET = STATE / "kubelet"
POD_LOGS = STATE / "log" / "pods"
KUBECONFIG = STATE / "kubeconfig"
AUDIT_LOG = STATE / "log" / "audit.log"
"""Every write to the API server, by whom; without the objects themselves."""
CONTAINERD = STATE / "containerd"
CONTAINERD_RUN = RUN / "containerd"
CONTAINERD_SOCKET = CONTAINERD_RUN / "containerd.sock"
CNI_RUN = RUN / "cni"
CGROUP = NODE
"""Every pod's processes are below this control group: how they are found again when their parents were killed."""
