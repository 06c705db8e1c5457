"""`make demo`: a tenant who bought both bots, two people who talk, and what there is to see afterwards."""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
import shutil
import time
import urllib.request
from dataclasses import replace

from . import binaries, cluster, conversation, installation, postgres, product
from .base import REPO, RUN, STATE, StepError, note, sh, step, wait_until, write
from .matrix_client import MatrixClient
from .synapse import Synapse, all_names

NAMESPACE = "tenant-example"
SERVER_NAME = "tenant.example"
NAME = "demo"
ENV_FILE = REPO / ".dev" / "env"
_KINDS = {"adminbot": "adminbots", "auditbot": "auditbots"}


def homeserver() -> Synapse:
    return Synapse(NAME, SERVER_NAME)


def run() -> None:
    started = time.monotonic()
    with step("demo"):
        installation.bring_up()
        _write_env({})  # kubectl for whoever has to look why the rest fails
        server = homeserver()
        _forget_other_cluster(server)
        server.up()
        database = postgres.create_tenant_database(NAME)
        with step(f"a tenant: namespace {NAMESPACE}, its Secrets and what billing creates"):
            _apply_tenant(server, database)
        with step("wait until both bots are Ready"):
            product.wait_ready(NAMESPACE)
        marker = secrets.token_hex(3)
        with step("two people talk"), MatrixClient() as client:
            rooms = conversation.talk(client, server, [_bot_id(name) for name in _KINDS], marker)
        metrics = _metrics_urls()
        reader = reader_url(database, NAMESPACE, "auditbot", "auditbot")
        _write_env(
            {
                "HOMESERVER_URL": server.host_internal_url,
                "HOMESERVER_PUBLIC_URL": server.host_public_url,
                "SERVER_NAME": SERVER_NAME,
                "REGISTRATION_SHARED_SECRET": server.registration_shared_secret,
                "DATABASE_URL": reader,
                "METRICS_URLS": " ".join(metrics.values()),
            }
        )
        with step("what there is to see"):
            _show(server, rooms, marker, reader, metrics)
    note(f"all of it took {time.monotonic() - started:.0f} s")
    _next_steps()


def _forget_other_cluster(server: Synapse) -> None:
    """A homeserver and a database outlive the cluster, for example a reboot of this machine. The bots' accounts of then
    belong to Secrets that are gone, and no operator takes over what it did not make."""
    found = product.kubectl(
        *("get", "secrets", "--namespace", NAMESPACE, "--ignore-not-found", "--output", "name"),
        *(f"{name}-account" for name in _KINDS),
    )
    if found == "" and server.exists():
        with step("remove homeserver and database of a cluster that is gone"):
            server.wipe()
            postgres.drop_database(NAME)


def _bot_id(name: str) -> str:
    return f"@{name}:{SERVER_NAME}"


def _apply_tenant(server: Synapse, database: postgres.TenantDb) -> None:
    """The manifests of examples/tenant, with the addresses of this machine's homeserver in place of the example's."""
    folder = REPO / "examples" / "tenant"
    for name in ("namespace", "operator-access", "people-access"):
        product.kubectl("apply", "--filename", str(folder / f"{name}.yaml"))
    product.tenant_secrets(NAMESPACE, server, database)
    for name in _KINDS:
        text = (folder / f"{name}.yaml").read_text()
        for example, real in _addresses(server).items():
            text = text.replace(example, real)
        product.kubectl("apply", "--filename", "-", stdin=text)


def _addresses(server: Synapse) -> dict[str, str]:
    return {
        "http://synapse.tenant-example.svc.cluster.local:8008": server.pod_internal_url,
        "https://matrix.tenant.example": server.pod_public_url,
    }


def _metrics_urls() -> dict[str, str]:
    """Addresses of the metrics of the operator and the workers, by name. Pods are reached directly: this machine is
    the cluster's node."""
    urls = {}
    for namespace in (product.SYSTEM_NAMESPACE, NAMESPACE):
        items = product.kubectl_json("get", "pods", "--namespace", namespace)["items"]
        assert isinstance(items, list)
        for pod in items:
            address = pod["status"].get("podIP")
            if address and pod["status"].get("phase") == "Running":
                urls[pod["metadata"]["name"]] = f"http://{address}:8080/metrics"
    if not urls:
        raise StepError("no pod serves metrics", "none is running", "kubectl get pods -A")
    return urls


def _write_env(more: dict[str, str]) -> None:
    """`.dev/env`, which a person can source."""
    values = {"KUBECONFIG": str(cluster.kubeconfig_path()), "NAMESPACE": NAMESPACE, **more}
    lines = [f"export {key}='{value}'" for key, value in values.items()]
    lines.append(f'export PATH="{binaries.tools()}:{product.binary().parent}:$PATH"')
    write(ENV_FILE, "\n".join(lines) + "\n", 0o600)


def reader_url(database: postgres.TenantDb, namespace: str, children: str, schema: str) -> str:
    """URL with which a person reads the trail of a bot: the role that may select and nothing else. `children` is what
    the names of its Secrets begin with."""
    roles = product.kubectl_json("get", "secret", f"{children}-database-roles", "--namespace", namespace)["data"]
    assert isinstance(roles, dict)
    # As src/store/pg/names.rs makes it: roles belong to the whole server, so the database is part of the name.
    name = f"{schema}_{hashlib.sha256(database.name.encode()).hexdigest()[:8]}_reader"
    return replace(database, user=name, password=_decode(str(roles["reader-password"]))).url()


def _decode(text: str) -> str:
    return base64.b64decode(text).decode()


def _show(server: Synapse, rooms: list[conversation.Room], marker: str, reader: str, metrics: dict[str, str]) -> None:
    print(product.kubectl("get", "adminbots,auditbots", "--all-namespaces"))
    _show_power(server, rooms)
    _show_search(rooms, marker, reader)
    for name, plural in _KINDS.items():
        _show_status(product.kubectl_json("get", plural, name, "--namespace", NAMESPACE))
    _show_metrics(metrics)


def _show_power(server: Synapse, rooms: list[conversation.Room]) -> None:
    with step("both bots are in all rooms with power 100"):
        for room in rooms:
            for name in _KINDS:
                wait_until(
                    lambda room=room, name=name: _power(server, room.id, name) == ("join", 100),  # type: ignore[misc]
                    60,
                    f"{_bot_id(name)} to be joined with power 100 in the {room.title} {room.id}, "
                    f"it is {_power(server, room.id, name)}",
                    interval=1,
                )
            note(f"{room.title:22} {room.id}: adminbot join 100, auditbot join 100")


def _power(server: Synapse, room: str, name: str) -> tuple[str, int]:
    state = server.api("GET", f"/_synapse/admin/v1/rooms/{room}/state")["state"]
    assert isinstance(state, list)
    membership, power = "none", 0
    for event in state:
        if event["type"] == "m.room.member" and event["state_key"] == _bot_id(name):
            membership = str(event["content"]["membership"])
        if event["type"] == "m.room.power_levels":
            power = int(event["content"].get("users", {}).get(_bot_id(name), 0))
    return membership, power


def _show_search(rooms: list[conversation.Room], marker: str, reader: str) -> None:
    binary = product.binary()

    def search(text: str, *more: str) -> str:
        return sh(
            [binary, "audit", "search", text, "--schema", "auditbot", *more], env={"DATABASE_URL": reader}, timeout=30
        )

    with step("ems-bots audit search finds the plaintext of the encrypted messages"):
        for room in rooms:
            wait_until(
                lambda room=room: room.message in search(room.message, "--output", "json"),  # type: ignore[misc]
                60,
                f"the message {room.message!r} of the {room.title} to be in the trail",
                interval=0.5,
            )
        print(search(marker))


def _show_status(resource: dict[str, object]) -> None:
    status = resource["status"]
    assert isinstance(status, dict)
    with step(f"status of {resource['kind']}"):
        for kind, (state, reason, message) in product.conditions(resource).items():
            note(f"{kind:18} {state:8} {reason}: {message}")
        note(f"rooms: {json.dumps(status.get('rooms', {}))}")
        note(f"trail: {json.dumps(status.get('trail', {}))}")


def _show_metrics(metrics: dict[str, str]) -> None:
    wanted = (
        "ems_bots_operator_leader",
        "ems_bots_operator_bots",
        "ems_bots_worker_records_total",
        "ems_bots_worker_rooms",
    )
    with step("a few metrics"):
        for name, url in metrics.items():
            with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(url, timeout=10) as answer:
                for line in answer.read().decode().splitlines():
                    if line.startswith(wanted):
                        note(f"{name}: {line}")


def _next_steps() -> None:
    print(f"""
Everything is left running. What to look at next:

  source {ENV_FILE.relative_to(REPO)}
  kubectl get adminbots,auditbots -A
  kubectl describe auditbot auditbot -n {NAMESPACE}
  ems-bots audit search merger --schema auditbot
  ems-bots audit search --action message. --since 1h --output json --schema auditbot | head
  ems-bots rooms list --schema auditbot
  for url in $METRICS_URLS; do curl -s $url | grep ^ems_bots; done
  kubectl delete auditbot auditbot -n {NAMESPACE}    # and see what stays: kubectl get secrets,configmaps -n {NAMESPACE}

`make demo` again is harmless; `make down` removes all of it.
""")


def down() -> None:
    """Remove everything that the demo and the tests started, except what is in the cache."""
    with step("remove everything"):
        for name in all_names():
            Synapse(name).down()
        postgres.down()
        cluster.down()
        for folder in (STATE, RUN):  # locks of runs that were killed, too
            shutil.rmtree(folder, ignore_errors=True)
        shutil.rmtree(REPO / ".dev", ignore_errors=True)
