"""Alerts to and from Alertmanager, through its v2 API."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import httpx
from pydantic import BaseModel, Field, TypeAdapter, ValidationError

from control_plane.errors import ActuationRefused, SourceUnavailable
from control_plane.ports import ActiveAlert, Alert


class AlertmanagerAlerts:
    """AlertSink over a client whose base URL is Alertmanager's (`http://alertmanager:9093`)."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self._client = client

    async def send(self, alerts: Sequence[Alert]) -> None:
        """Posts alerts; the same labels again keep an alert firing, with `ends_at` in the past they resolve it.

        Raises SourceUnavailable when Alertmanager cannot be reached, ActuationRefused when it takes none of them.
        """
        if not alerts:
            return
        reply = await self._ask("POST", json=[_posted(alert) for alert in alerts])
        if reply.is_client_error:
            raise ActuationRefused(f"Alertmanager refused the alerts ({reply.status_code}): {reply.text[:300]}")
        _must_have_answered(reply)

    async def active(self) -> Sequence[ActiveAlert]:
        reply = await self._ask("GET", params={"active": "true", "silenced": "true", "inhibited": "true"})
        _must_have_answered(reply)
        try:
            return [alert.plain() for alert in _ALERTS.validate_json(reply.content)]
        except ValidationError as error:
            raise SourceUnavailable(f"Alertmanager's list of alerts cannot be read: {error}") from error

    async def _ask(self, method: str, **content: Any) -> httpx.Response:
        try:
            return await self._client.request(method, "/api/v2/alerts", **content)
        except httpx.HTTPError as error:
            raise SourceUnavailable(f"Alertmanager did not answer: {str(error) or type(error).__name__}") from error


def _must_have_answered(reply: httpx.Response) -> None:
    if not reply.is_success:
        raise SourceUnavailable(f"Alertmanager answered {reply.status_code}: {reply.text[:300]}")


def _posted(alert: Alert) -> dict[str, Any]:
    posted: dict[str, Any] = {
        "labels": dict(alert.labels),
        "annotations": dict(alert.annotations),
        "startsAt": alert.starts_at.isoformat(),
    }
    if alert.ends_at is not None:
        posted["endsAt"] = alert.ends_at.isoformat()
    return posted


class _Status(BaseModel):
    silenced_by: list[str] = Field(default=[], alias="silencedBy")
    inhibited_by: list[str] = Field(default=[], alias="inhibitedBy")


class _Receiver(BaseModel):
    name: str


class _Alert(BaseModel):
    """One entry of GET /api/v2/alerts, as far as Backstay reads it; newer versions add fields."""

    fingerprint: str
    labels: dict[str, str]
    annotations: dict[str, str]
    starts_at: datetime = Field(alias="startsAt")
    ends_at: datetime = Field(alias="endsAt")
    receivers: list[_Receiver]
    status: _Status

    def plain(self) -> ActiveAlert:
        return ActiveAlert(
            fingerprint=self.fingerprint,
            labels=self.labels,
            annotations=self.annotations,
            starts_at=self.starts_at,
            ends_at=self.ends_at,
            receivers=tuple(receiver.name for receiver in self.receivers),
            silenced_by=tuple(self.status.silenced_by),
            inhibited_by=tuple(self.status.inhibited_by),
        )


_ALERTS = TypeAdapter(list[_Alert])
