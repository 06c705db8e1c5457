"""CoreDNS on this host: names of the cluster, and names that are given to servers on this host."""

from __future__ import annotations

import ipaddress
from pathlib import Path
from string import Template

from .api import Api, http_ok
from .base import BRIDGE_IP, RUN, Daemon, StepError, cache_key, file_lock, write
from .layout import CONFIG, DNS, DNS_HEALTH_PORT, DNS_READY_PORT, DOMAIN, SERVICE_DNS_IP, TEMPLATES

_HOSTS = DNS / "hosts"
_HEAD = "# Names that pods can use besides those of Services. Written by `dns.set_host`.\n"


def hosts() -> dict[str, str]:
    """The names that were given, with their addresses."""
    if not _HOSTS.exists():
        return {}
    lines = [line.split() for line in _HOSTS.read_text().splitlines() if line and not line.startswith("#")]
    return {name: ip for ip, name in lines}


def set_host(name: str, ip: str | None = BRIDGE_IP) -> None:
    """Let pods resolve `name` to `ip`, which is this host unless said otherwise; None takes the name away.

    Seen by pods within a second. May be called before the cluster is up; `down` forgets the names.
    """
    try:
        address = None if ip is None else str(ipaddress.ip_address(ip))
    except ValueError as error:
        raise StepError(f"cannot give the name {name} to {ip}", str(error), "pass an IP address") from error
    with file_lock(RUN / "dns.lock", "change of names"):
        names = hosts()
        if address is None:
            names.pop(name, None)
        else:
            names[name] = address
        write(_HOSTS, _HEAD + "".join(f"{ip} {name}\n" for name, ip in sorted(names.items())))


def daemon(kube: Path, certificates: str) -> Daemon:
    if not _HOSTS.exists():
        write(_HOSTS, _HEAD)
    kubeconfig = CONFIG / "dns.kubeconfig"
    text = Template((TEMPLATES / "Corefile").read_text()).substitute(
        bridge_ip=BRIDGE_IP,
        health_port=DNS_HEALTH_PORT,
        ready_port=DNS_READY_PORT,
        hosts=_HOSTS,
        domain=DOMAIN,
        kubeconfig=kubeconfig,
    )
    write(CONFIG / "Corefile", text)
    return Daemon(
        "coredns", [kube / "coredns", "-conf", CONFIG / "Corefile"], env={"EMS_CONFIG": cache_key(text, certificates)}
    )


def is_ready() -> bool:
    return http_ok(DNS_READY_PORT, "/ready")


def apply(api: Api) -> None:
    """The Service `kube-dns`, which leads to this host, and what CoreDNS may read."""
    name = "ems-bots-dev-dns"
    rbac = "rbac.authorization.k8s.io"
    api.apply(
        f"/apis/{rbac}/v1/clusterroles/{name}",
        {
            "apiVersion": f"{rbac}/v1",
            "kind": "ClusterRole",
            "metadata": {"name": name},
            "rules": [
                {"apiGroups": [""], "resources": ["services", "namespaces"], "verbs": ["list", "watch"]},
                {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": ["list", "watch"]},
            ],
        },
    )
    api.apply(
        f"/apis/{rbac}/v1/clusterrolebindings/{name}",
        {
            "apiVersion": f"{rbac}/v1",
            "kind": "ClusterRoleBinding",
            "metadata": {"name": name},
            "roleRef": {"apiGroup": rbac, "kind": "ClusterRole", "name": name},
            "subjects": [{"apiGroup": rbac, "kind": "User", "name": name}],
        },
    )
    ports = [{"name": "dns", "port": 53, "protocol": "UDP"}, {"name": "dns-tcp", "port": 53, "protocol": "TCP"}]
    api.apply(
        "/api/v1/namespaces/kube-system/services/kube-dns",
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "kube-dns", "labels": {"k8s-app": "kube-dns", "kubernetes.io/name": "CoreDNS"}},
            "spec": {"clusterIP": SERVICE_DNS_IP, "ports": ports},
        },
    )
    api.apply(
        "/apis/discovery.k8s.io/v1/namespaces/kube-system/endpointslices/kube-dns-host",
        {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "addressType": "IPv4",
            "metadata": {"name": "kube-dns-host", "labels": {"kubernetes.io/service-name": "kube-dns"}},
            "endpoints": [{"addresses": [BRIDGE_IP], "conditions": {"ready": True}}],
            "ports": ports,
        },
    )
