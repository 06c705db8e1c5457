"""A Postgres of our own: Debian's program, our data, on a port that no other cluster uses."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import re
import secrets
import shutil
import time
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import quote

from .base import BRIDGE_IP, RUN, STATE, Daemon, StepError, apt_install, cache_key, file_lock, sh, step, succeeds, write
from .service_common import CA_FILE, LOOPBACK, certificate, kept_secret, listen_addresses, need_root

PORT = 55432
BOUNCER_PORT = 56432
HOME = STATE / "postgres"
DATA = HOME / "data"
SECRETS = STATE / "postgres-secrets"
SOCKETS = RUN / "postgres"
_NAME = re.compile(r"[a-z][a-z0-9_-]{0,47}")
_USER = "postgres"

# Roles are looked up in Postgres itself (auth_query), so those that a test makes later are known too.
_BOUNCER_CONFIG = f"""[databases]
* = host={LOOPBACK} port={PORT} auth_user={_USER}
[pgbouncer]
listen_addr = {{addresses}}
listen_port = {BOUNCER_PORT}
unix_socket_dir = {SOCKETS}
auth_type = scram-sha-256
auth_file = {{users}}
auth_query = SELECT usename, passwd FROM pg_shadow WHERE usename = $1
pool_mode = transaction
default_pool_size = 10
max_client_conn = 400
ignore_startup_parameters = extra_float_digits,search_path
"""


@dataclass(frozen=True)
class TenantDb:
    """A database and the role that owns it, as the host and as pods reach it."""

    name: str
    user: str
    password: str
    can_create_roles: bool
    port: int = PORT

    def url(self, host: str = LOOPBACK) -> str:
        return f"postgresql://{quote(self.user)}:{quote(self.password)}@{host}:{self.port}/{quote(self.name)}"

    def secret(self, host: str = BRIDGE_IP) -> dict[str, str]:
        """The data of a Secret in the format that CloudNativePG gives an application."""
        return {
            "dbname": self.name,
            "host": host,
            "port": str(self.port),
            "user": self.user,
            "username": self.user,
            "password": self.password,
            "uri": self.url(host),
            "pgpass": f"{host}:{self.port}:{self.name}:{self.user}:{self.password}\n",
        }

    def as_json(self) -> dict[str, object]:
        return {
            "name": self.name,
            "user": self.user,
            "password": self.password,
            "host_url": self.url(),
            "pod_url": self.url(BRIDGE_IP),
            "ca_file": str(CA_FILE),
            "can_create_roles": self.can_create_roles,
            "secret": self.secret(),
        }


def up() -> None:
    """Start it unless it runs. Restarts it only when the cluster's bridge appeared after it was started."""
    need_root("Postgres")
    if _is_fine():
        return
    with file_lock(RUN / "postgres.lock", "start Postgres"):
        if _is_fine():
            return
        with step("start Postgres"):
            if not _programs():
                apt_install("postgresql")
            _init()
            _configure()
            _start()


def down() -> None:
    with file_lock(RUN / "postgres.lock", "stop Postgres"):
        _bouncer().stop()
        _stop()


def running() -> bool:
    return bool(_programs()) and _daemon().running() and _answers()


def admin_url() -> str:
    """The superuser's URL, as the host reaches it."""
    password = kept_secret(SECRETS / "superuser")
    return f"postgresql://{_USER}:{quote(password)}@{LOOPBACK}:{PORT}/postgres"


def test_environment() -> dict[str, str]:
    """What the integration tests want to know, as environment variables; starts what they need."""
    up()
    pgbouncer_up(TenantDb("postgres", _USER, "", False))
    return {
        "TEST_DATABASE_URL": admin_url(),
        "TEST_DATABASE_CA_FILE": str(CA_FILE),
        "TEST_PGBOUNCER_PORT": str(BOUNCER_PORT),
    }


def create_tenant_database(name: str) -> TenantDb:
    """A database and its owner, who may create roles but is no superuser. Again: the same one."""
    return _ensure_database(name, "CREATEROLE")


def create_limited_database(name: str) -> TenantDb:
    """A database whose owner may not create roles: writer and reader must be given to the operator."""
    return _ensure_database(name, "NOCREATEROLE")


def create_role(name: str) -> str:
    """A role that may only log in (a writer or reader that somebody else made); returns its password."""
    return _ensure_role(name, "NOCREATEROLE")


def pgbouncer_up(db: TenantDb) -> TenantDb:
    """The same database behind PgBouncer in transaction pooling mode, where session state does not last."""
    up()
    with file_lock(RUN / "postgres.lock", "start PgBouncer"):
        apt_install("pgbouncer")
        folder = HOME / "pgbouncer"
        folder.mkdir(exist_ok=True)
        config, users, listening = folder / "pgbouncer.ini", folder / "users.txt", folder / "listen"
        addresses = listen_addresses(_lines(listening) if _bouncer().running() else [])
        write(users, f'"{_USER}" "{kept_secret(SECRETS / "superuser")}"\n', 0o600)
        write(config, _BOUNCER_CONFIG.format(addresses=",".join(addresses), users=users))
        write(listening, "\n".join(addresses))
        _own(folder)
        probe: list[str | Path] = [_program("pg_isready"), *f"-q -h {LOOPBACK} -p {BOUNCER_PORT} -t 2".split()]
        _bouncer(cache_key(config, users)).start(lambda: succeeds(probe), 15)
    return replace(db, port=BOUNCER_PORT)


def drop_database(name: str) -> None:
    """Drop a database and its owner, connected or not. Roles that the owner made are the owner's business."""
    _checked(name)
    sql(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE);')
    sql(f'DROP ROLE IF EXISTS "{name}";')
    (SECRETS / f"role-{name}").unlink(missing_ok=True)


def sql(text: str, database: str = "postgres") -> str:
    """Run statements as the superuser; the rows, columns separated by `|`. They go by stdin: they may hold secrets."""
    up()
    kept_secret(SECRETS / "superuser")
    passfile = SECRETS / "pgpass"
    write(passfile, f"*:{PORT}:*:{_USER}:{(SECRETS / 'superuser').read_text()}\n", 0o600)
    options = f"-X -q -A -t -v ON_ERROR_STOP=1 -h {LOOPBACK} -p {PORT} -U {_USER} -d {database} -f -".split()
    env = {"PGPASSFILE": str(passfile), "PGCONNECT_TIMEOUT": "10"}
    return sh([_program("psql"), *options], env=env, input=text, timeout=120).strip()


def _ensure_database(name: str, attribute: str) -> TenantDb:
    password = _ensure_role(name, attribute)
    with file_lock(RUN / f"database-{name}.lock", f"create database {name}"):
        if sql(f"SELECT 1 FROM pg_database WHERE datname = '{name}';") != "1":
            sql(f'CREATE DATABASE "{name}" OWNER "{name}";')
    return TenantDb(name, name, password, attribute == "CREATEROLE")


def _ensure_role(name: str, attribute: str) -> str:
    file = SECRETS / f"role-{_checked(name)}"
    with file_lock(RUN / f"database-{name}.lock", f"create role {name}"):
        attributes = f"LOGIN NOSUPERUSER NOCREATEDB {attribute}"
        exists = sql(f"SELECT 1 FROM pg_roles WHERE rolname = '{name}';") == "1"
        known = file.exists()
        password = kept_secret(file)
        if not exists:
            sql(f'CREATE ROLE "{name}" {attributes};')
        elif known:  # a password that is set again gets another salt, and PgBouncer's logins fail for a moment
            sql(f'ALTER ROLE "{name}" {attributes};')
        if not (exists and known):
            # The verifier is made here: a failure writes the statement's text to the server's log.
            sql(f"ALTER ROLE \"{name}\" {attributes} PASSWORD '{_scram(password)}';")
    return password


def _scram(password: str) -> str:
    salt, rounds = secrets.token_bytes(16), 4096
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), salt, rounds)
    stored = hashlib.sha256(hmac.digest(salted, b"Client Key", "sha256")).digest()
    server = hmac.digest(salted, b"Server Key", "sha256")
    text = [base64.b64encode(part).decode() for part in (salt, stored, server)]
    return f"SCRAM-SHA-256${rounds}:{text[0]}${text[1]}:{text[2]}"


def _checked(name: str) -> str:
    if not _NAME.fullmatch(name) or name in ("postgres", "template0", "template1"):
        raise StepError(
            f"{name!r} cannot be a test database's name", "", "use a-z, 0-9, _ and -, a letter first, at most 48"
        )
    return name


def _programs() -> Path | None:
    found = [p for p in Path("/usr/lib/postgresql").glob("*/bin/postgres")]
    if (DATA / "PG_VERSION").exists():  # data of one major version is opened only by that version
        version = (DATA / "PG_VERSION").read_text().strip()
        found = [p for p in found if p.parts[-3] == version]
    return max(found, key=lambda p: int(p.parts[-3])).parent if found else None


def _program(name: str) -> Path:
    folder = _programs()
    if folder is None:
        raise StepError(
            f"no Postgres program fits the data in {DATA}",
            "",
            f"install that version, or delete {HOME} and start again",
        )
    return folder / name


def _is_fine() -> bool:
    held = _lines(HOME / "listen")
    return running() and listen_addresses(held) == held


def _answers() -> bool:
    return succeeds([_program("pg_isready"), "-q", "-h", LOOPBACK, "-p", str(PORT), "-t", "2"])


def _init() -> None:
    HOME.mkdir(parents=True, exist_ok=True)
    SECRETS.mkdir(parents=True, exist_ok=True)
    SECRETS.chmod(0o700)
    if (DATA / "PG_VERSION").exists():
        return
    shutil.rmtree(DATA, ignore_errors=True)  # of an interrupted initdb
    password_file = HOME / "initial-password"
    write(password_file, kept_secret(SECRETS / "superuser"), 0o600)
    _own(HOME)
    building = HOME / "data.new"
    shutil.rmtree(building, ignore_errors=True)
    # Locale C is what CloudNativePG gives a database, and what Synapse asks for.
    options = f"-D {building} -E UTF8 --locale=C -U {_USER} -A scram-sha-256 --pwfile={password_file}".split()
    sh(["runuser", "-u", _USER, "--", _program("initdb"), *options], cwd=HOME, timeout=120)
    password_file.unlink()
    building.rename(DATA)


def _configure() -> None:
    held = _lines(HOME / "listen") if _daemon().running() else []
    addresses = listen_addresses(held)
    cert, key = certificate("postgres", ["localhost", "postgres.internal", LOOPBACK, BRIDGE_IP])
    for file in (cert, key):
        write(HOME / file.name, file.read_bytes(), 0o600)
    settings = {
        "data_directory": DATA,
        "hba_file": HOME / "pg_hba.conf",
        "listen_addresses": ",".join(addresses),
        "port": PORT,
        "unix_socket_directories": SOCKETS,
        "max_connections": 200,
        "password_encryption": "scram-sha-256",
        "ssl": "on",
        "ssl_cert_file": HOME / "server.crt",
        "ssl_key_file": HOME / "server.key",
        # Figures are measured here: what makes commits durable stays at its default (fsync, synchronous_commit).
        "shared_buffers": "512MB",
        "max_wal_size": "4GB",
        "max_locks_per_transaction": 256,
        "random_page_cost": "1.1",
        "timezone": "UTC",
        "log_timezone": "UTC",
        "lc_messages": "C",
    }
    write(HOME / "postgresql.conf", "".join(f"{k} = '{v}'\n" for k, v in settings.items()))
    write(
        HOME / "pg_hba.conf",
        "".join(
            f"{kind} all all {where} {method}\n"
            for kind, where, method in (
                ("local", "", "scram-sha-256"),
                ("host", f"{LOOPBACK}/32", "scram-sha-256"),
                ("host", "10.244.0.0/16", "scram-sha-256"),
            )
        ),
    )
    SOCKETS.mkdir(parents=True, exist_ok=True)
    _own(HOME, SOCKETS)
    write(HOME / "listen", "\n".join(addresses))


def _start() -> None:
    daemon = _daemon()
    for attempt in (1, 2, 3):
        if not daemon.is_current() or not _answers():
            _stop()
        try:
            daemon.start(_answers, 60)
            return
        except StepError:
            # After a kill -9 the old one's children hold its shared memory for a moment.
            if attempt == 3:
                raise
            time.sleep(1)


def _stop() -> None:
    # Its children are not in its process group, and TERM alone waits for every client: so ask for a fast shutdown.
    daemon = _daemon()
    if daemon.running() and (DATA / "postmaster.pid").exists():
        with contextlib.suppress(StepError):  # the daemon is ended in any case
            stop = f"stop -s -m fast -w -t 30 -D {DATA}".split()
            sh(["runuser", "-u", _USER, "--", _program("pg_ctl"), *stop], cwd=HOME, timeout=40)
    daemon.stop()


def _daemon() -> Daemon:
    if _programs() is None:  # nothing to start; whatever runs under this name can still be asked for and ended
        return Daemon("postgres", [])
    config = [p for p in (HOME / "postgresql.conf", HOME / "pg_hba.conf", HOME / "server.crt") if p.exists()]
    return Daemon(
        "postgres",
        [_program("postgres"), "-D", DATA, f"--config-file={HOME}/postgresql.conf"],
        env={"EMS_CONFIG": cache_key(*config)},
        user=_USER,
        cwd=HOME,
    )


def _bouncer(config: str = "") -> Daemon:
    argv: list[str | Path] = ["/usr/sbin/pgbouncer", HOME / "pgbouncer/pgbouncer.ini"]
    return Daemon("pgbouncer", argv, env={"EMS_CONFIG": config}, user=_USER, cwd=HOME)


def _own(*folders: Path) -> None:
    """Give folders and the files in them to the server's user; the data are that user's from the start."""
    for folder in folders:
        for path in (folder, *(p for p in folder.iterdir() if p.is_file())):
            shutil.chown(path, _USER, _USER)


def _lines(path: Path) -> list[str]:
    return path.read_text().split() if path.exists() else []


def status() -> dict[str, object]:
    alive = running()
    return {
        "running": alive,
        "port": PORT,
        "listen": _lines(HOME / "listen"),
        "ca_file": str(CA_FILE),
        "version": sql("SHOW server_version;") if alive else None,
    }
