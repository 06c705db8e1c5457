"""A client for the cluster's API server that needs no program: starting kubectl takes longer than most questions."""

from __future__ import annotations

import http.client
import json
import ssl
from typing import Any

from .base import BRIDGE_IP, StepError
from .layout import API_PORT, PKI

Object = dict[str, Any]
_MANAGER = "ems-bots-dev"


class ApiError(StepError):
    def __init__(self, method: str, path: str, status: int, message: str) -> None:
        super().__init__(f"the API server answered {status} to {method} {path}", message)
        self.status = status


class Api:
    """Speaks as the cluster's administrator. One connection per request: requests are few."""

    def __init__(self, timeout: float = 10) -> None:
        self.timeout = timeout

    def request(
        self, method: str, path: str, body: Object | None = None, content_type: str = "application/json"
    ) -> Object | str:
        try:
            context = ssl.create_default_context(cafile=str(PKI / "ca.crt"))
            context.load_cert_chain(PKI / "admin.crt", PKI / "admin.key")
        except OSError as error:
            raise StepError("there is no cluster", str(error), "start one: dev/run cluster up") from error
        connection = http.client.HTTPSConnection(BRIDGE_IP, API_PORT, timeout=self.timeout, context=context)
        try:
            connection.request(method, path, None if body is None else json.dumps(body), {"Content-Type": content_type})
            response = connection.getresponse()
            text = response.read().decode()
        except (OSError, http.client.HTTPException) as error:
            raise StepError(
                f"cannot reach the API server at {BRIDGE_IP}:{API_PORT}", str(error), "see dev/run cluster status"
            ) from error
        finally:
            connection.close()
        is_json = response.headers.get("Content-Type", "").startswith("application/json")
        answer: Object | str = json.loads(text) if is_json else text
        if response.status >= 400:
            message = answer.get("message", "") if isinstance(answer, dict) else text
            raise ApiError(method, path, response.status, str(message))
        return answer

    def get(self, path: str) -> Object:
        answer = self.request("GET", path)
        assert isinstance(answer, dict), f"GET {path} did not answer with an object"
        return answer

    def get_or_none(self, path: str) -> Object | None:
        try:
            return self.get(path)
        except ApiError as error:
            if error.status == 404:
                return None
            raise

    def apply(self, path: str, body: Object) -> None:
        """Server-side apply of the object at its full path."""
        self.request("PATCH", f"{path}?fieldManager={_MANAGER}&force=true", body, "application/apply-patch+yaml")

    def merge(self, path: str, body: Object) -> None:
        self.request("PATCH", path, body, "application/merge-patch+json")

    def is_ready(self) -> bool:
        try:
            return Api(timeout=3).request("GET", "/readyz") == "ok"
        except StepError:
            return False


def http_ok(port: int, path: str, host: str = "127.0.0.1", tls: bool = False) -> bool:
    """Whether a health endpoint on this host answers 200."""
    connection: http.client.HTTPConnection
    if tls:
        context = ssl.create_default_context()  # its certificate is self-made at every start: nothing to check it with
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        connection = http.client.HTTPSConnection(host, port, timeout=2, context=context)
    else:
        connection = http.client.HTTPConnection(host, port, timeout=2)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
