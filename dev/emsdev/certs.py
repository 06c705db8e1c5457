"""The certificates of the cluster, and the kubeconfig files that carry them."""

from __future__ import annotations

import base64
import json
from pathlib import Path

from .base import BRIDGE_IP, cache_key, sh, step, write
from .layout import API_URL, CONFIG, DOMAIN, KUBECONFIG, NODE, PKI, SERVICE_API_IP

_DAYS = "3650"
_NEW_KEY = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]

_API_SANS = [
    "DNS:localhost",
    "DNS:kubernetes",
    "DNS:kubernetes.default",
    "DNS:kubernetes.default.svc",
    f"DNS:kubernetes.default.svc.{DOMAIN}",
    "IP:127.0.0.1",
    f"IP:{SERVICE_API_IP}",
    f"IP:{BRIDGE_IP}",
]

# file name: (subject, names of a server or none)
_CERTIFICATES: dict[str, tuple[str, list[str]]] = {
    "apiserver": ("/CN=kube-apiserver", _API_SANS),
    "admin": ("/O=system:masters/CN=ems-bots-dev-admin", []),
    "controller-manager": ("/CN=system:kube-controller-manager", []),
    "scheduler": ("/CN=system:kube-scheduler", []),
    "proxy": ("/CN=system:kube-proxy", []),
    "dns": ("/CN=ems-bots-dev-dns", []),
    "kubelet": (f"/O=system:nodes/CN=system:node:{NODE}", [f"DNS:{NODE}", f"IP:{BRIDGE_IP}"]),
}


def _issue(name: str, subject: str, sans: list[str]) -> None:
    usage = "serverAuth,clientAuth" if sans else "clientAuth"
    extensions = ["-addext", "basicConstraints=critical,CA:FALSE", "-addext", f"extendedKeyUsage={usage}"]
    if sans:
        extensions += ["-addext", f"subjectAltName={','.join(sans)}"]
    sh(
        [
            "openssl",
            "req",
            "-x509",
            "-CA",
            PKI / "ca.crt",
            "-CAkey",
            PKI / "ca.key",
            *_NEW_KEY,
            "-days",
            _DAYS,
            "-subj",
            subject,
            *extensions,
            "-keyout",
            PKI / f"{name}.key",
            "-out",
            PKI / f"{name}.crt",
        ]
    )


def ensure() -> str:
    """Make what is missing or named differently now. Returns a digest that changes with the certificates."""
    wanted = cache_key(json.dumps(_CERTIFICATES), _DAYS, API_URL)
    done = PKI / "made-for"
    if not done.is_file() or done.read_text() != wanted:
        with step("make certificates"):
            PKI.mkdir(parents=True, exist_ok=True)
            PKI.chmod(0o700)
            sh(
                [
                    "openssl",
                    "req",
                    "-x509",
                    *_NEW_KEY,
                    "-days",
                    _DAYS,
                    "-subj",
                    "/CN=ems-bots-dev",
                    "-addext",
                    "keyUsage=critical,keyCertSign,cRLSign",
                    "-keyout",
                    PKI / "ca.key",
                    "-out",
                    PKI / "ca.crt",
                ]
            )
            for name, (subject, sans) in _CERTIFICATES.items():
                _issue(name, subject, sans)
            sh(["openssl", "genrsa", "-out", PKI / "service-accounts.key", "2048"])
            sh(["openssl", "rsa", "-in", PKI / "service-accounts.key", "-pubout", "-out", PKI / "service-accounts.pub"])
            write(done, wanted)
    for name in ("controller-manager", "scheduler", "proxy", "dns", "kubelet"):
        _kubeconfig(CONFIG / f"{name}.kubeconfig", name)
    _kubeconfig(KUBECONFIG, "admin")
    return cache_key(PKI / "ca.crt", PKI / "service-accounts.pub")


def _kubeconfig(path: Path, name: str) -> None:
    def inline(file: str) -> str:
        return base64.b64encode((PKI / file).read_bytes()).decode()

    config = {  # JSON is YAML
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": NODE,
        "contexts": [{"name": NODE, "context": {"cluster": NODE, "user": name}}],
        "clusters": [{"name": NODE, "cluster": {"server": API_URL, "certificate-authority-data": inline("ca.crt")}}],
        "users": [
            {
                "name": name,
                "user": {"client-certificate-data": inline(f"{name}.crt"), "client-key-data": inline(f"{name}.key")},
            }
        ],
    }
    write(path, json.dumps(config, indent=2) + "\n", 0o600)
