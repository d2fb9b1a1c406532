"""How commands talk to the running control plane."""

from __future__ import annotations

import getpass
import ssl
import time
from typing import Any

import httpx

from control_plane.errors import ActuationRefused, BackstayError, InvalidDefinition, SourceUnavailable
from control_plane.settings import Settings

FOLLOW_PATIENCE_SECONDS = 30.0
"""A control plane that ended is started again within this time, and goes on with what it had begun."""
RETRY_SECONDS = 0.5
START_IT = "Start it with `make up` (or `.venv/bin/backstay up --detach`)."


class ControlPlaneClient:
    """Synchronous calls of the JSON API, with errors that say what to do next."""

    def __init__(self, settings: Settings, patience_seconds: float = FOLLOW_PATIENCE_SECONDS) -> None:
        try:
            token = settings.token_file.read_text().strip()
        except FileNotFoundError as error:
            raise SourceUnavailable(f"No stack has run in {settings.state_dir}. {START_IT}") from error
        except PermissionError as error:
            raise SourceUnavailable(f"{settings.token_file} belongs to another user: run this as that user.") from error
        except OSError as error:
            raise SourceUnavailable(f"{settings.token_file} cannot be read: {error.strerror}.") from error
        self._patience_seconds = patience_seconds
        self._url = settings.local_url(10)
        self._http = httpx.Client(
            base_url=self._url,
            headers={"Authorization": f"Bearer {token}", "X-Backstay-By": _caller()},
            timeout=15.0,
            # Plain HTTP on loopback: reading certificates would take longer than the call, so none is trusted.
            verify=ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT),
        )

    def get(self, path: str, **query: Any) -> dict[str, Any]:
        return self._call("GET", path, params={k: v for k, v in query.items() if v is not None})

    def follow(self, path: str) -> dict[str, Any]:
        """What goes on there; waits while the control plane is started again."""
        deadline = time.monotonic() + self._patience_seconds
        while True:
            try:
                return self.get(path)
            except SourceUnavailable:
                if time.monotonic() > deadline:
                    raise
            time.sleep(RETRY_SECONDS)

    def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        return self._call("POST", path, json=body)

    def _call(self, method: str, path: str, **options: Any) -> dict[str, Any]:
        try:
            answer = self._http.request(method, f"/api/v1{path}", **options)
        except httpx.ConnectError as error:
            raise SourceUnavailable(f"The control plane does not answer at {self._url}. {START_IT}") from error
        except httpx.HTTPError as error:
            raise SourceUnavailable(f"The control plane at {self._url} broke off: {error}") from error
        if not answer.is_success:
            raise _refusal(answer)
        try:
            body = answer.json()
        except ValueError:
            body = None
        if not isinstance(body, dict):
            raise SourceUnavailable(f"Something else than Backstay answers at {self._url}: what holds that port?")
        return body


def _caller() -> str:
    try:
        name = getpass.getuser()
    except (KeyError, OSError):  # a user id without a name, as in containers
        return "command line"
    return f"{name.encode('ascii', 'replace').decode()} (command line)"  # a header holds no other letters


def _refusal(answer: httpx.Response) -> BackstayError:
    try:
        detail = answer.json()["detail"]
    except (ValueError, KeyError, TypeError):
        detail = answer.text[:300]
    if isinstance(detail, list):  # what validation says, field by field
        detail = "; ".join(f"{'.'.join(str(part) for part in item['loc'][1:])}: {item['msg']}" for item in detail)
    if answer.status_code == 401:
        return SourceUnavailable(f"{detail} Another stack's control plane may answer there: see BACKSTAY_STATE_DIR.")
    if answer.status_code in (404, 422):
        return InvalidDefinition(str(detail))
    if answer.status_code == 409:
        return ActuationRefused(str(detail))
    return SourceUnavailable(f"{detail} (HTTP {answer.status_code})")
