"""Test homeservers: any number of Synapse instances by name, each with a public side in front of it."""

from __future__ import annotations

import base64
import json
import os
import secrets
import shutil
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

from . import postgres, proxy
from .base import BRIDGE_IP, REPO, RUN, STATE, Daemon, StepError, cache_key, file_lock, note, step, write
from .service_common import (
    CA_FILE,
    LOOPBACK,
    certificate,
    free_ports,
    kept_secret,
    listen_addresses,
    need_root,
    python_environment,
    read_json,
)
from .synapse_admin import Admin, http_json

HOME = STATE / "synapse"
REQUIREMENTS = REPO / "dev/emsdev/requirements-synapse.txt"
MODULE = REPO / "synapse-module"
_NO_LIMIT = {"per_second": 100_000, "burst_count": 100_000}


@dataclass
class Options:
    """What an instance was asked to be. Kept, so that a later `up` without options restores the same server."""

    server_name: str
    internal_port: int
    public_port: int
    tls_port: int
    database: str = "postgres"  # or "sqlite"
    limits: bool = True
    password_login: bool = True
    federates: bool = False
    extra: dict[str, object] = field(default_factory=dict)


class Synapse(Admin):
    """One homeserver. `Synapse("demo").up()` is enough: ports and names are chosen once and kept."""

    def __init__(
        self,
        name: str,
        server_name: str | None = None,
        internal_port: int | None = None,
        public_port: int | None = None,
    ) -> None:
        if not name.replace("-", "").isalnum() or not name.islower() or len(name) > 30:
            raise StepError(f"{name!r} cannot be a test homeserver's name", "", "use a-z, 0-9 and -, at most 30")
        super().__init__(HOME / name)
        self.name = name
        self._wanted = {"server_name": server_name, "internal_port": internal_port, "public_port": public_port}

    @property
    def options(self) -> Options:
        """As kept; made now if this instance is new."""
        file = self.folder / "instance.json"
        with file_lock(RUN / "synapse-ports.lock", "choose ports for a homeserver"):
            known = read_json(file)
            if not known:
                taken = [
                    int(str(port))
                    for one in HOME.glob("*/instance.json")
                    for key, port in read_json(one).items()
                    if key.endswith("_port")
                ]
                internal, public, tls = free_ports(3, taken)
                known = {
                    "server_name": f"{self.name}.internal",
                    "internal_port": internal,
                    "public_port": public,
                    "tls_port": tls,
                }
            options = Options(**{**known, **{k: v for k, v in self._wanted.items() if v is not None}})  # type: ignore[arg-type]
            write(file, json.dumps(asdict(options), indent=1))
        return options

    # The names that pods use. Give them to the cluster's DNS with the address `BRIDGE_IP`.
    @property
    def pod_names(self) -> list[str]:
        return [f"synapse.{self.name}.internal", f"matrix.{self.name}.internal"]

    @property
    def host_internal_url(self) -> str:
        return f"http://{LOOPBACK}:{self.options.internal_port}"

    @property
    def pod_internal_url(self) -> str:
        return f"http://{self.pod_names[0]}:{self.options.internal_port}"

    @property
    def host_public_url(self) -> str:
        return f"http://{LOOPBACK}:{self.options.public_port}"

    @property
    def pod_public_url(self) -> str:
        return f"http://{self.pod_names[1]}:{self.options.public_port}"

    @property
    def registration_shared_secret(self) -> str:
        return kept_secret(self.folder / "registration-secret")

    def env(self) -> dict[str, object]:
        """Everything that a test needs to know, as `dev/run synapse up --json` prints it."""
        options = self.options
        return {
            "name": self.name,
            "server_name": options.server_name,
            "host_internal_url": self.host_internal_url,
            "pod_internal_url": self.pod_internal_url,
            "host_internal_tls_url": f"https://{LOOPBACK}:{options.tls_port}",
            "pod_internal_tls_url": f"https://{self.pod_names[0]}:{options.tls_port}",
            "ca_file": str(CA_FILE),
            "host_public_url": self.host_public_url,
            "pod_public_url": self.pod_public_url,
            "pod_names": self.pod_names,
            "pod_address": BRIDGE_IP,
            "registration_shared_secret": self.registration_shared_secret,
            "database": options.database,
            "limits": options.limits,
            "password_login": options.password_login,
            "running": self.running(),
        }

    def up(
        self,
        *,
        database: str | None = None,
        limits: bool | None = None,
        password_login: bool | None = None,
        federates: bool = False,
        extra: dict[str, object] | None = None,
        restart: bool = False,
    ) -> None:
        """Start it, or restart it if its configuration changed. An option that is None stays as it was."""
        need_root(f"homeserver {self.name}")
        with file_lock(RUN / f"synapse-{self.name}.lock", f"start homeserver {self.name}"):
            if federates:
                self._federate()
            self._keep(database, limits, password_login, extra)
            if self.options.database == "postgres":
                postgres.up()
            python = python_environment("synapse", REQUIREMENTS)
            started = time.monotonic()
            with step(f"homeserver {self.name} ({self.options.server_name})"):
                self.folder.chmod(0o700)
                held = (
                    read_json(self.folder / "listening.json").get("addresses", []) if self._daemon().running() else []
                )
                addresses = listen_addresses(held if isinstance(held, list) else [])
                self._write_config(addresses)
                if restart:
                    self._daemon().stop()
                if self._daemon(python).start(self._healthy, 120):
                    note(f"it answered after {time.monotonic() - started:.1f} s")
                write(self.folder / "listening.json", json.dumps({"addresses": addresses}))
                self._proxy(addresses).start(self._public_healthy, 20)

    def down(self) -> None:
        """Stop it; its data stay."""
        with file_lock(RUN / f"synapse-{self.name}.lock", f"stop homeserver {self.name}"):
            self._proxy().stop()
            self._daemon().stop(timeout=20)

    def wipe(self) -> None:
        """Stop it and delete all it has: users, rooms, keys. Its ports become free."""
        if not self.exists():
            return
        self.down()
        if self.options.database == "postgres" and (self.folder / "homeserver.yaml").exists():
            postgres.drop_database(self._database)  # starts Postgres: else a new server would meet the old one's users
        shutil.rmtree(self.folder)

    def exists(self) -> bool:
        return (self.folder / "instance.json").exists()

    def running(self) -> bool:
        return self._daemon().running() and self._healthy()

    @property
    def _database(self) -> str:
        return f"synapse-{self.name}"

    def _keep(
        self, database: str | None, limits: bool | None, password_login: bool | None, extra: dict[str, object] | None
    ) -> None:
        options = self.options
        if database not in (None, options.database):
            if (self.folder / "homeserver.yaml").exists():
                raise StepError(
                    f"homeserver {self.name} has its data in {options.database}",
                    "",
                    f"dev/run synapse wipe {self.name}, then start it with the other database",
                )
            options.database = str(database)
        options.limits = options.limits if limits is None else limits
        options.password_login = options.password_login if password_login is None else password_login
        options.extra = options.extra if extra is None else extra
        write(self.folder / "instance.json", json.dumps(asdict(options), indent=1))

    def _federate(self) -> None:
        """Its name is its address, as other homeservers on this machine reach it: nobody has to be asked for it."""
        options = self.options
        name = f"{LOOPBACK}:{options.tls_port}"
        if (self.folder / "homeserver.yaml").exists() and options.server_name != name:
            raise StepError(
                f"homeserver {self.name} is called {options.server_name}, and no homeserver changes its name",
                "",
                f"dev/run synapse wipe {self.name}, then start it with --federates",
            )
        options.federates, options.server_name = True, name
        write(self.folder / "instance.json", json.dumps(asdict(options), indent=1))

    def _write_config(self, addresses: list[str]) -> None:
        options, folder = self.options, self.folder
        signing_key = folder / "signing.key"
        if not signing_key.exists():
            seed = base64.b64encode(os.urandom(32)).decode().rstrip("=")
            write(signing_key, f"ed25519 a_{secrets.token_hex(2)} {seed}\n", 0o600)
        config: dict[str, object] = {
            "server_name": options.server_name,
            "public_baseurl": f"{self.host_public_url}/",
            "listeners": [
                {
                    "port": options.internal_port,
                    "bind_addresses": addresses,
                    "type": "http",
                    "tls": False,
                    "x_forwarded": True,
                    "resources": [
                        {"names": ["client", *(["federation"] if options.federates else [])], "compress": False}
                    ],
                }
            ],
            "database": self._database_config(),
            "media_store_path": str(folder / "media"),
            "pid_file": str(folder / "synapse.pid"),
            "signing_key_path": str(signing_key),
            "log_config": str(folder / "log.yaml"),
            "registration_shared_secret": self.registration_shared_secret,
            "macaroon_secret_key": kept_secret(folder / "macaroon-secret"),
            "form_secret": kept_secret(folder / "form-secret"),
            # Without this no login token can be made for a bot, and with the question nobody could answer it for one.
            "login_via_existing_session": {"enabled": True, "require_ui_auth": False},
            "password_config": {"enabled": options.password_login},
            # The least that there is: nobody guesses these passwords, and hashes were a good part of the tests' work.
            "bcrypt_rounds": 4,
            "enable_registration": False,
            **(self._loopback_federation() if options.federates else {"federation_domain_whitelist": []}),
            "trusted_key_servers": [],
            "suppress_key_server_warning": True,
            "report_stats": False,
            "url_preview_enabled": False,
            **({} if options.limits else self._no_limits()),
            **options.extra,
        }
        # JSON is YAML.
        write(folder / "homeserver.yaml", json.dumps(config, indent=1), 0o600)
        write(
            folder / "log.yaml",
            json.dumps(
                {
                    "version": 1,
                    "disable_existing_loggers": False,
                    "formatters": {"f": {"format": "%(asctime)s %(levelname)s %(name)s %(request)s %(message)s"}},
                    "filters": {"context": {"()": "synapse.logging.context.LoggingContextFilter", "request": ""}},
                    "handlers": {"out": {"class": "logging.StreamHandler", "formatter": "f", "filters": ["context"]}},
                    "loggers": {"synapse.access": {"level": "INFO"}},
                    "root": {"level": "WARNING", "handlers": ["out"]},
                },
                indent=1,
            ),
        )

    def _database_config(self) -> dict[str, object]:
        if self.options.database == "sqlite":
            return {"name": "sqlite3", "args": {"database": str(self.folder / "homeserver.db")}}
        db = postgres.create_tenant_database(self._database)
        return {
            "name": "psycopg2",
            "args": {
                "user": db.user,
                "password": db.password,
                "dbname": db.name,
                "host": LOOPBACK,
                "port": db.port,
                "cp_min": 1,
                "cp_max": 8,
            },
        }

    @staticmethod
    def _loopback_federation() -> dict[str, object]:
        """Others on this machine are reached, whose certificates are the private CA's."""
        return {"ip_range_blacklist": [], "federation_custom_ca_list": [str(CA_FILE)]}

    @staticmethod
    def _no_limits() -> dict[str, object]:
        return {
            "rc_message": _NO_LIMIT,
            "rc_registration": _NO_LIMIT,
            "rc_room_creation": _NO_LIMIT,
            "rc_admin_redaction": _NO_LIMIT,
            "rc_joins_per_room": _NO_LIMIT,
            "rc_3pid_validation": _NO_LIMIT,
            "rc_key_requests": _NO_LIMIT,
            "rc_reports": _NO_LIMIT,
            "rc_presence": {"per_user": _NO_LIMIT},
            "rc_joins": {"local": _NO_LIMIT, "remote": _NO_LIMIT},
            "rc_login": {"address": _NO_LIMIT, "account": _NO_LIMIT, "failed_attempts": _NO_LIMIT},
            "rc_invites": {"per_room": _NO_LIMIT, "per_user": _NO_LIMIT, "per_issuer": _NO_LIMIT},
        }

    def _daemon(self, python: Path | None = None) -> Daemon:
        config = [p for p in (self.folder / "homeserver.yaml", self.folder / "log.yaml") if p.exists()]
        return Daemon(
            f"synapse-{self.name}",
            [python or "", "-m", "synapse.app.homeserver", "-c", self.folder / "homeserver.yaml"],
            env={"EMS_CONFIG": cache_key(*config), **self._module_path()},
            cwd=self.folder if self.folder.exists() else None,
        )

    def _module_path(self) -> dict[str, str]:
        """Where a configuration names modules, those of this checkout can be loaded. A change of them is a restart."""
        if not self.options.extra.get("modules"):
            return {}
        return {"PYTHONPATH": str(MODULE), "EMS_MODULES": cache_key(*sorted(MODULE.rglob("*.py")))}

    def _proxy(self, addresses: list[str] | None = None) -> Daemon:
        name = f"synapse-proxy-{self.name}"
        if addresses is None:
            return Daemon(name, [])
        options = self.options
        cert, key = certificate(f"synapse-{self.name}", [*self.pod_names, "localhost", LOOPBACK, BRIDGE_IP])
        words: list[str | Path] = [
            sys.executable,
            str(proxy.__file__),
            "--port",
            str(options.public_port),
            "--tls-port",
            str(options.tls_port),
            "--tls-cert",
            cert,
            "--tls-key",
            key,
            "--upstream",
            f"{LOOPBACK}:{options.internal_port}",
            "--public-url",
            self.host_public_url,
        ]
        for address in addresses:
            words += ["--address", address]
        for known in (self.pod_names[1], options.server_name, "localhost", LOOPBACK, BRIDGE_IP):
            words += ["--name", known]
        return Daemon(name, words, env={"EMS_CONFIG": cache_key(Path(str(proxy.__file__)), cert)})

    def _healthy(self) -> bool:
        return http_json("GET", f"{self.host_internal_url}/_matrix/client/versions", timeout=3)[0] == 200

    def _public_healthy(self) -> bool:
        return http_json("GET", f"{self.host_public_url}/_matrix/client/versions", timeout=3)[0] == 200


def all_names() -> list[str]:
    """The instances that exist, running or not."""
    return sorted(file.parent.name for file in HOME.glob("*/instance.json"))
