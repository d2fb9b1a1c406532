"""The AI gateway's configuration file."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from control_plane.errors import InvalidDefinition
from services.ai_gateway.configuration import read_gateway_configuration
from services.settings import SuiteSettings

PROVIDERS = "providers: [{name: builtin, kind: builtin, model: librechat-1}]\n"


def test_the_shipped_file_has_the_documents_values() -> None:
    shipped = read_gateway_configuration(SuiteSettings().ai_gateway_config)
    assert (shipped.rate_limit.requests_per_second, shipped.rate_limit.burst) == (1000, 2000)
    assert shipped.rate_limit.window == timedelta(seconds=1)
    assert (shipped.http.port, shipped.http.idle_timeout) == (8080, timedelta(seconds=120))
    assert (shipped.grpc.port, shipped.grpc.max_connection_age) == (9090, timedelta(minutes=10))
    assert (shipped.redis.pool_size, shipped.redis.dial_timeout) == (100, timedelta(seconds=5))
    assert (shipped.tracing.sampling_rate, shipped.tracing.backend) == (0.1, "jaeger")


def test_left_out_keys_have_the_documents_values_too(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(PROVIDERS)
    shipped = read_gateway_configuration(SuiteSettings().ai_gateway_config)
    read = read_gateway_configuration(path)
    assert read.model_copy(update={"providers": ()}) == shipped.model_copy(update={"providers": ()})


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("rate_limit: {requests_per_second: 0}\n", "rate_limit.requests_per_second"),
        ("rate_limit: {requests: 5}\n", "rate_limit.requests"),
        ("http: {read_timeout: 30}\n", "30s or 500ms"),
        ("http: {read_timeout: 30 parsecs}\n", "is no duration"),
        ("redis: {pool_size: 1}\n", "min_idle_conns"),
        ("http: [\n", "no YAML"),
    ],
)
def test_a_wrong_value_is_named(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(text + PROVIDERS)
    with pytest.raises(InvalidDefinition, match=said):
        read_gateway_configuration(path)


def test_two_providers_need_two_names(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("providers:\n" + 2 * "  - {name: builtin, kind: builtin, model: m}\n")
    with pytest.raises(InvalidDefinition, match="same name"):
        read_gateway_configuration(path)
