"""What tests ask of a homeserver beside what the product asks: accounts, tokens, exemptions from rate limits."""

from __future__ import annotations

import hashlib
import hmac
import http.client
import json
import secrets
import urllib.error
import urllib.request
from pathlib import Path
from urllib.parse import quote

from .base import RUN, StepError, file_lock, write
from .service_common import read_json

_ADMIN = "dev-admin"


def http_json(
    method: str, url: str, body: object | None = None, token: str | None = None, timeout: float = 30
) -> tuple[int, dict[str, object]]:
    """Status and JSON body; status 0 if nothing answered."""
    headers = {"Content-Type": "application/json"}
    if token:
        headers["Authorization"] = f"Bearer {token}"
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data=data, headers=headers, method=method)
    # Never through a proxy of the environment: these are servers on this machine.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=timeout) as answer:
            status, text = answer.status, answer.read()
    except urllib.error.HTTPError as error:
        with error:
            status, text = error.code, error.read()
    except (OSError, http.client.HTTPException) as error:
        return 0, {"error": str(error)}
    try:
        value = json.loads(text)
    except ValueError:
        value = {"error": text[:200].decode(errors="replace")}
    return status, value if isinstance(value, dict) else {"value": value}


class Admin:
    """The part of a test homeserver that talks to its running process. Made for `Synapse`, which knows the rest."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def host_internal_url(self) -> str:
        raise NotImplementedError

    @property
    def registration_shared_secret(self) -> str:
        raise NotImplementedError

    def register_user(self, name: str, admin: bool = False, comfortable: bool = True) -> tuple[str, str, str]:
        """(user id, password, access token) of an account that is made now or was made before.

        `comfortable` takes the account's own rate limits away, so that a test can do in a second what a person does in
        an hour; the server's limits for everybody else stay. A kept token that no longer works is replaced by a login.
        """
        account = self.account(name, admin, comfortable)
        return account["user_id"], account["password"], account["access_token"]

    def account(self, name: str, admin: bool = False, comfortable: bool = True) -> dict[str, str]:
        """As `register_user`, with the device of the token too."""
        with file_lock(RUN / f"synapse-users-{self.folder.name}.lock", "register a user"):
            file = self.folder / "users.json"
            users = read_json(file)
            kept = users.get(name)
            if isinstance(kept, dict):
                account = {str(k): str(v) for k, v in kept.items()}
                status, _ = http_json(
                    "GET", self._url("/_matrix/client/v3/account/whoami"), token=account["access_token"]
                )
                if status == 401:
                    account |= self._log_in(name, account["password"])
            else:
                account = self._register(name, admin)
            users[name] = account
            write(file, json.dumps(users, indent=1), 0o600)
        if comfortable:
            self.override_ratelimit(account["user_id"])
        return account

    def new_device(self, name: str) -> dict[str, str]:
        """A further session {user_id, access_token, device_id} of a registered user, by password."""
        kept = read_json(self.folder / "users.json").get(name)
        if not isinstance(kept, dict):
            raise StepError(f"user {name} was not registered on {self.folder.name}", "", "register it first")
        return self._log_in(name, str(kept["password"]))

    def admin_access_token(self) -> str:
        """The token of a server admin, made for this purpose and exempt from rate limits as an operator's has to be."""
        return self.account(_ADMIN, admin=True)["access_token"]

    def override_ratelimit(self, user_id: str) -> None:
        """Exempt one account from the rate limits."""
        token = self._admin_token()
        body = {"messages_per_second": 0, "burst_count": 0}
        self.api("POST", f"/_synapse/admin/v1/users/{quote(user_id)}/override_ratelimit", body, token)

    def api(self, method: str, path: str, body: object | None = None, token: str | None = None) -> dict[str, object]:
        """One request; without `token` as the server admin. Anything but success is a StepError."""
        status, answer = http_json(method, self._url(path), body, token or self.admin_access_token())
        if not 200 <= status < 300:
            raise StepError(
                f"homeserver {self.folder.name} answered {status or 'nothing'} to {method} {path}",
                f"{answer.get('errcode', '')} {answer.get('error', '')}",
                f"dev/run synapse up {self.folder.name}" if status == 0 else "its log is in the state folder's log/",
            )
        return answer

    def _admin_token(self) -> str:
        """As `admin_access_token`, but without asking for the exemption that this is needed for."""
        return self.account(_ADMIN, admin=True, comfortable=False)["access_token"]

    def _url(self, path: str) -> str:
        return f"{self.host_internal_url}{path}"

    def _register(self, name: str, admin: bool) -> dict[str, str]:
        path, password = "/_synapse/admin/v1/register", secrets.token_urlsafe(18)
        nonce = str(self.api("GET", path, token="none")["nonce"])
        text = "\0".join([nonce, name, password, "admin" if admin else "notadmin"])
        mac = hmac.new(self.registration_shared_secret.encode(), text.encode(), hashlib.sha1).hexdigest()
        made = self.api(
            "POST",
            path,
            {"nonce": nonce, "username": name, "password": password, "admin": admin, "mac": mac},
            token="none",
        )
        return {key: str(made[key]) for key in ("user_id", "access_token", "device_id")} | {"password": password}

    def _log_in(self, name: str, password: str) -> dict[str, str]:
        made = self.api(
            "POST",
            "/_matrix/client/v3/login",
            {"type": "m.login.password", "identifier": {"type": "m.id.user", "user": name}, "password": password},
            token="none",
        )
        return {key: str(made[key]) for key in ("user_id", "access_token", "device_id")}
