"""What the test services have in common: addresses, ports, secrets, certificates."""

from __future__ import annotations

import ipaddress
import json
import os
import secrets
import socket
import sys
from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path

from .base import BRIDGE_IP, RUN, STATE, StepError, apt_install, cache_key, cached, file_lock, sh, write

LOOPBACK = "127.0.0.1"
TLS = STATE / "service-tls"
CA_FILE = TLS / "ca.crt"
"""The private CA of the test services: no public one signs for them, which is the case to be tested."""

_FIRST_PORT, _LAST_PORT = 18000, 18998


def need_root(what: str) -> None:
    if os.geteuid() != 0:
        raise StepError(f"cannot start {what}", "it has its data in /var/lib", "run this as root, or with sudo -E")


def bridge_present() -> bool:
    """Whether the cluster's bridge has its address. Asked by binding: needs no program and no parsing."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        try:
            probe.bind((BRIDGE_IP, 0))
        except OSError:
            return False
    return True


def listen_addresses(held: Iterable[str] = ()) -> list[str]:
    """Loopback, and the bridge where it exists.

    `held` is what a running process listens on: a socket survives the removal of its address and serves again when the
    address is back, so a bridge that went away is no reason to restart anything.
    """
    return [LOOPBACK, BRIDGE_IP] if bridge_present() or BRIDGE_IP in held else [LOOPBACK]


def kept_secret(path: Path, size: int = 24) -> str:
    """A random secret that stays the same once it was made."""
    with file_lock(RUN / "secrets.lock", "make a secret"):
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            write(path, secrets.token_urlsafe(size), 0o600)
    return path.read_text()


def free_ports(count: int, taken: Iterable[int]) -> list[int]:
    """Ports that nobody was given (`taken`) and nobody listens on."""
    given, found = set(taken), []
    for port in range(_FIRST_PORT, _LAST_PORT):
        if port in given:
            continue
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("", port))
            except OSError:
                continue
        found.append(port)
        if len(found) == count:
            return found
    raise StepError(
        f"no {count} free ports between {_FIRST_PORT} and {_LAST_PORT}",
        f"{len(given)} belong to test servers",
        "wipe test servers that nobody needs: dev/run synapse list, dev/run synapse wipe NAME",
    )


def read_json(path: Path) -> dict[str, object]:
    try:
        value = json.loads(path.read_text())
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise StepError(f"{path} is not JSON", str(error), "delete it, then run the command again") from error
    return value if isinstance(value, dict) else {}


def python_environment(name: str, requirements: Path) -> Path:
    """A virtual environment with exactly these packages; returns its Python."""

    def build(folder: Path) -> None:
        if find_spec("ensurepip") is None:
            apt_install("python3-venv")
        sh([sys.executable, "-m", "venv", folder], timeout=120)
        sh(
            [
                folder / "bin/python",
                "-m",
                "pip",
                "install",
                "-q",
                "--disable-pip-version-check",
                "--no-deps",
                "--only-binary",
                ":all:",
                "-r",
                requirements,
            ],
            timeout=900,
        )

    return cached(name, cache_key(requirements, sys.version), build) / "bin/python"


def certificate(name: str, names: Iterable[str]) -> tuple[Path, Path]:
    """The files of a server certificate for these names and addresses, signed by the private CA, and of its key."""
    folder, wanted = TLS / name, list(names)
    cert, key, made_for = folder / "server.crt", folder / "server.key", folder / "names"
    with file_lock(RUN / "service-tls.lock", "make certificates"):
        _ensure_ca()
        text = "\n".join([cache_key(CA_FILE), *wanted])
        if cert.exists() and key.exists() and made_for.exists() and made_for.read_text() == text:
            return cert, key
        folder.mkdir(parents=True, exist_ok=True)
        alternatives = ",".join(f"{'IP' if _is_address(n) else 'DNS'}:{n}" for n in wanted)
        request, extensions = folder / "server.csr", folder / "extensions"
        write(extensions, f"subjectAltName={alternatives}\nextendedKeyUsage=serverAuth\nbasicConstraints=CA:FALSE\n")
        _openssl(
            "req",
            "-new",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
            "-subj",
            f"/CN={name}",
            "-keyout",
            key,
            "-out",
            request,
        )
        _openssl(
            "x509",
            "-req",
            "-in",
            request,
            "-CA",
            CA_FILE,
            "-CAkey",
            TLS / "ca.key",
            "-CAcreateserial",
            "-days",
            "3650",
            "-extfile",
            extensions,
            "-out",
            cert,
        )
        write(made_for, text)
    return cert, key


def _ensure_ca() -> None:
    if CA_FILE.exists() and (TLS / "ca.key").exists():
        return
    TLS.mkdir(parents=True, exist_ok=True)
    _openssl(
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
        "-days",
        "3650",
        "-subj",
        "/CN=ems-bots test services",
        "-keyout",
        TLS / "ca.key",
        "-out",
        CA_FILE,
        "-addext",
        "keyUsage=critical,keyCertSign,cRLSign",
    )


def _openssl(*arguments: str | Path) -> None:
    if not any(os.access(Path(place) / "openssl", os.X_OK) for place in os.get_exec_path()):
        apt_install("openssl")
    sh(["openssl", *arguments], timeout=60)


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
