"""What the alerts of an SLO are called: all its tiers share one name, and so one runbook page."""

from __future__ import annotations


def alert_name(slo_name: str) -> str:
    """`AiGatewayFirstToken` for `ai-gateway-service-first-token`."""
    return "".join(part.capitalize() for part in f"{slo_name}-".replace("-service-", "-").split("-"))
