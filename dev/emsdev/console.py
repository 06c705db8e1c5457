"""The console on the local cluster: its database, and an API server that reports to it."""

from __future__ import annotations

import base64
import json

from . import cluster, postgres, product
from .base import STATE, step, wait_until, write
from .layout import CONFIG
from .service_common import kept_secret

_SERVICE = f"ems-bots-console.{product.SYSTEM_NAMESPACE}.svc"
_ADDRESS = "10.96.0.20"
"""As in dev/cluster/values.yaml."""
_CERTIFICATE = "ems-bots-console-tls"


def _token() -> str:
    return kept_secret(STATE / "console" / "token", 32)


def prepare() -> None:
    """What has to be there before the chart is installed."""
    with step("the console's database and the token of the API server"):
        database = postgres.create_tenant_database("console")
        namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": product.SYSTEM_NAMESPACE}}
        product.kubectl("apply", "--server-side", "--filename", "-", stdin=json.dumps(namespace))
        product.secret(product.SYSTEM_NAMESPACE, "ems-bots-console-database", database.secret())
        product.secret(product.SYSTEM_NAMESPACE, "ems-bots-console-caller", {"token": _token()})


def connect() -> None:
    """Have the API server prove itself to the console, and send it audit events. Restarts it when that is new."""
    authority = _authority()
    audit = CONFIG / "console-audit.kubeconfig"
    webhook = CONFIG / "console-webhook.kubeconfig"
    admission = CONFIG / "admission-config.json"
    server = {
        "server": f"https://{_ADDRESS}/intake/audit",
        "tls-server-name": _SERVICE,
        "certificate-authority-data": authority,
    }
    user = {"name": "apiserver", "user": {"token": _token()}}
    context = {"name": "console", "context": {"cluster": "console", "user": "apiserver"}}
    head = {"apiVersion": "v1", "kind": "Config"}
    write(
        audit,
        json.dumps(
            {
                **head,
                "clusters": [{"name": "console", "cluster": server}],
                "users": [user],
                "contexts": [context],
                "current-context": "console",
            }
        ),
        0o600,
    )
    names = (_SERVICE, f"{_SERVICE}:443")
    write(webhook, json.dumps({**head, "users": [{**user, "name": name} for name in names]}), 0o600)
    group = "apiserver.config.k8s.io/v1"
    plugin = {
        "name": "ValidatingAdmissionWebhook",
        "configuration": {"apiVersion": group, "kind": "WebhookAdmissionConfiguration", "kubeConfigFile": str(webhook)},
    }
    write(admission, json.dumps({"apiVersion": group, "kind": "AdmissionConfiguration", "plugins": [plugin]}))
    cluster.set_apiserver_flags(
        [
            f"--admission-control-config-file={admission}",
            f"--audit-webhook-config-file={audit}",
            "--audit-webhook-batch-max-wait=1s",
            "--audit-webhook-truncate-enabled",
        ]
    )


def _authority() -> str:
    """The certificate of the console's own authority, as a kubeconfig has it."""
    found: list[str] = []

    def look() -> bool:
        words = ("get", "secret", _CERTIFICATE, "--namespace", product.SYSTEM_NAMESPACE, "--ignore-not-found")
        text = product.kubectl(*words, "--output", "jsonpath={.data.ca\\.crt}").strip()
        found[:] = [text] if text else []
        return bool(found)

    wait_until(look, 60, f"Secret {_CERTIFICATE}", interval=0.5)
    return base64.b64encode(base64.b64decode(found[0])).decode()
