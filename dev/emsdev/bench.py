"""`make bench`: the figures of docs/performance.md, measured on the local cluster. Prints them; writes nothing."""

from __future__ import annotations

import json
import os
import secrets
import statistics
import subprocess
import time
from collections import Counter
from pathlib import Path
from typing import Any

from . import image, installation, postgres, product
from .base import StepError, note, sh, step, wait_until
from .conversation import PEOPLE
from .demo import reader_url
from .layout import AUDIT_LOG
from .matrix_client import MatrixClient
from .synapse import Synapse

NAMESPACE = "bench"
_ROUNDS = 5
_MESSAGES = 200
_IDLE_SECONDS = 600
# Every account is looked at every two minutes, and once more after a change was seen.
_SETTLE_SECONDS = 300


def run(idle_seconds: int = _IDLE_SECONDS) -> None:
    installation.bring_up()
    server = Synapse("bench")
    _clean(server)  # of what a run that failed left for people to look at
    server.up()
    database = postgres.create_tenant_database("bench")
    _namespace()
    product.tenant_secrets(NAMESPACE, server, database)
    figures: dict[str, str] = {}
    with step(f"custom resource applied to Ready, both bots, {_ROUNDS} times"):
        times = [_time_to_ready(server, number) for number in range(_ROUNDS)]
        figures["applied to Ready, both bots"] = f"median {statistics.median(times):.1f} s of {_seconds(times)}"
    trails = {name: _trail(database, kind, name) for kind, name in _names(_ROUNDS - 1).items()}
    with step(f"{_MESSAGES} encrypted messages"):
        bot = f"auditbot{_ROUNDS - 1}"
        url = trails[bot]["DATABASE_URL"]
        taken, searchable = _message_latencies(server, url, bot)
        figures["message sent to taken by the homeserver"] = _percentiles(taken)
        figures["message sent to searchable"] = _percentiles(searchable)
        ratio = statistics.median(searchable) / statistics.median(taken)
        figures["searchable / taken, medians"] = f"{ratio:.1f}"
    with step("resident memory and size"):
        for name, megabytes in _resident().items():
            figures[f"resident memory of {name}"] = f"{megabytes:.0f} MB"
        archive = image.archive_for(product.binary())
        figures["image (development profile)"] = f"{archive.stat().st_size / 1e6:.0f} MB"
    with step(f"until the bots have found what happened so far, {_SETTLE_SECONDS} s"):
        _wait(_SETTLE_SECONDS)
    with step(f"writes to the API server in {idle_seconds} idle seconds"):
        ends = {name: _records(trail, 1)[0]["seq"] for name, trail in trails.items()}
        for who, count in sorted(_idle_writes(idle_seconds).items()):
            figures[f"idle writes: {who}"] = str(count)
        for name, trail in trails.items():
            new = [str(record["content"]["text"]) for record in _records(trail, 100) if record["seq"] > ends[name]]
            figures[f"idle records: {name}"] = "; ".join([str(len(new)), *new])
    _clean(server)
    for name, value in figures.items():
        print(f"{name:45} {value}")


def _clean(server: Synapse) -> None:
    product.kubectl("delete", "adminbots,auditbots", "--all", "--namespace", NAMESPACE, timeout=300)
    product.kubectl("delete", "namespace", NAMESPACE, "--ignore-not-found", timeout=300)
    server.wipe()
    postgres.drop_database("bench")


def _namespace() -> None:
    product.kubectl("create", "namespace", NAMESPACE)
    account = f"{product.SYSTEM_NAMESPACE}:ems-bots-operator"
    binding = ("create", "rolebinding", "ems-bots", "--namespace", NAMESPACE)
    product.kubectl(*binding, "--clusterrole", "ems-bots-tenant", "--serviceaccount", account)


def _names(number: int) -> dict[str, str]:
    """Names of the bots of a round, by kind."""
    return {kind: f"{kind.lower()}{number}" for kind in ("AdminBot", "AuditBot")}


def _trail(database: postgres.TenantDb, kind: str, name: str) -> dict[str, str]:
    """Environment in which `ems-bots audit` reads the trail of a bot."""
    url = reader_url(database, NAMESPACE, f"{kind.lower()}-{name}", name)
    return {"DATABASE_URL": url, "EMS_DATABASE_SCHEMA": name}


def _records(trail: dict[str, str], limit: int) -> list[dict[str, Any]]:
    """The latest records of a trail, latest first."""
    command = [product.binary(), "audit", "search", "--output", "json", "--limit", str(limit)]
    return [json.loads(line) for line in sh(command, env=trail, timeout=30).splitlines()]


def _bot(kind: str, name: str, server: Synapse) -> dict[str, object]:
    """A bot with an account and a schema of its own, so that each round starts from nothing."""
    homeserver = {
        "serverName": server.options.server_name,
        "url": server.pod_internal_url,
        "publicURL": server.pod_public_url,
        "plan": "Gold",
    }
    return {
        "apiVersion": "ems.element.io/v1alpha1",
        "kind": kind,
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {"homeserver": homeserver, "username": name, "database": {"schema": name}},
    }


def _time_to_ready(server: Synapse, number: int) -> float:
    if number > 0:
        product.kubectl("delete", "adminbots,auditbots", "--all", "--namespace", NAMESPACE, timeout=300)
    bots = [_bot(kind, name, server) for kind, name in _names(number).items()]
    text = "\n---\n".join(json.dumps(bot) for bot in bots)
    product.kubectl("apply", "--server-side", "--filename", "-", stdin=text)
    started = time.monotonic()
    product.kubectl(
        *("wait", "--namespace", NAMESPACE, "--for=condition=Ready", "--timeout=180s"),
        *(f"{bot['kind']}/{bot['metadata']['name']}".lower() for bot in bots),  # type: ignore[index]
        timeout=200,
    )
    seconds = time.monotonic() - started
    note(f"round {number + 1}: {seconds:.1f} s")
    return seconds


class _Sql:
    """One session that stays open: starting psql takes longer than what is measured."""

    def __init__(self, url: str) -> None:
        self._process = subprocess.Popen(
            ["psql", "--no-psqlrc", "--quiet", "--tuples-only", "--no-align"],
            env={**os.environ, "PGSERVICEFILE": "/dev/null", **_pg_environment(url)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
        )

    def number(self, query: str) -> int:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(query + ";\n")
        line = self._process.stdout.readline()
        if not line:
            raise StepError("the database answers nothing", query, "see the lines above")
        return int(line)

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(10)


def _pg_environment(url: str) -> dict[str, str]:
    """The parts of a URL as psql's variables: a password does not belong on a command line."""
    credentials, _, place = url.removeprefix("postgresql://").rpartition("@")
    user, _, password = credentials.partition(":")
    address, _, name = place.partition("/")
    host, _, port = address.partition(":")
    return {"PGUSER": user, "PGPASSWORD": password, "PGHOST": host, "PGPORT": port, "PGDATABASE": name}


def _message_latencies(server: Synapse, url: str, bot: str) -> tuple[list[float], list[float]]:
    """Seconds from the call that sends a message to the homeserver's answer, and to its being found by a search in the
    trail. The first is the baseline: nobody else can see the message before."""
    alice = PEOPLE[0]
    _, password, _ = server.register_user(alice)
    taken, searchable = [], []
    sql = _Sql(url)
    with MatrixClient() as client:
        client.call("login", user=alice, password=password, homeserver=server.host_public_url)
        made = client.call("createRoom", user=alice, name="Latency", encrypted=True)
        assert isinstance(made, dict)
        room = made["room"]
        target = f"@{bot}:{server.options.server_name}"
        client.call("waitForMember", user=alice, room=room, target=target, membership="join")
        for number in range(_MESSAGES):
            word = f"w{secrets.token_hex(6)}"
            query = f"SELECT count(*) FROM {bot}.content WHERE words @@ to_tsquery('simple', '{word}')"
            started = time.monotonic()
            client.call("send", user=alice, room=room, body=f"message {number} {word}")
            taken.append(time.monotonic() - started)
            wait_until(lambda query=query: sql.number(query) > 0, 30, f"{word} in the trail", interval=0.005)  # type: ignore[misc]
            searchable.append(time.monotonic() - started)
    sql.close()
    return taken, searchable


def _percentiles(values: list[float]) -> str:
    ordered = sorted(values)

    def at(share: float) -> float:
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))] * 1000

    return f"p50 {at(0.5):.0f} ms, p99 {at(0.99):.0f} ms, max {ordered[-1] * 1000:.0f} ms of {len(ordered)}"


def _seconds(values: list[float]) -> str:
    return ", ".join(f"{value:.1f}" for value in values)


def _resident() -> dict[str, float]:
    """The largest resident set of each process of ours, in MB, by subcommand."""
    largest: dict[str, float] = {}
    for entry in Path("/proc").iterdir():
        try:
            words = (entry / "cmdline").read_bytes().split(b"\0") if entry.name.isdigit() else []
            if len(words) < 2 or not words[0].endswith(b"/ems-bots"):
                continue
            status = (entry / "status").read_text()
        except OSError:
            continue  # it ended while we looked
        kilobytes = int(status.split("VmRSS:")[1].split()[0])
        name = words[1].decode()
        largest[name] = max(largest.get(name, 0.0), kilobytes / 1000)
    return largest


def _idle_writes(seconds: int) -> Counter[str]:
    """Writes by user and resource while nobody does anything, as the API server's audit log counts them."""
    start = AUDIT_LOG.stat().st_size
    _wait(seconds)
    counts: Counter[str] = Counter()
    with AUDIT_LOG.open() as lines:
        lines.seek(start)
        for line in lines:
            event = json.loads(line)
            user, object_ = event["user"]["username"], event.get("objectRef", {})
            writes = event["verb"] in ("create", "update", "patch", "delete", "deletecollection")
            if writes and user.startswith("system:serviceaccount:") and "bot" in user:
                resource = "/".join(filter(None, (object_.get("resource"), object_.get("subresource"))))
                counts[f"{user.removeprefix('system:serviceaccount:')} {event['verb']} {resource}"] += 1
    return counts


def _wait(seconds: int) -> None:
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0:
        note(f"{left:.0f} s left")
        time.sleep(min(left, 120))
