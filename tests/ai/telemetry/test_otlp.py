"""Whether anything is sent, and where to: the standard's variables and our setting."""

import subprocess
import sys

import pytest

from butterbase.ai.telemetry import otlp
from butterbase.ai.telemetry.otlp import OtlpConfig, otlp_config
from butterbase.sql.errors import SettingError

ENDPOINT = "http://collector:4318"
BOTH = OtlpConfig(f"{ENDPOINT}/v1/traces", f"{ENDPOINT}/v1/metrics")


@pytest.mark.parametrize("endpoint", [None, ""])
def test_nothing_is_sent_without_an_endpoint(endpoint: str | None) -> None:
    assert otlp_config(endpoint, {"OTEL_SERVICE_NAME": "x"}) is None


@pytest.mark.parametrize("endpoint", [ENDPOINT, f"{ENDPOINT}/"])
def test_each_signal_has_its_path_below_the_endpoint(endpoint: str) -> None:
    assert otlp_config(endpoint, {}) == BOTH


def test_a_signals_own_endpoint_is_taken_as_it_is() -> None:
    own = {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "https://traces.example/otlp"}
    assert otlp_config(None, own) == OtlpConfig("https://traces.example/otlp", None)
    assert otlp_config(ENDPOINT, own) == OtlpConfig("https://traces.example/otlp", BOTH.metrics_url)


def test_a_signal_can_be_switched_off() -> None:
    assert otlp_config(ENDPOINT, {"OTEL_METRICS_EXPORTER": "none"}) == OtlpConfig(
        BOTH.traces_url, None
    )
    assert otlp_config(ENDPOINT, {"OTEL_TRACES_EXPORTER": "None"}) == OtlpConfig(
        None, BOTH.metrics_url
    )
    both = {"OTEL_TRACES_EXPORTER": "none", "OTEL_METRICS_EXPORTER": "none"}
    assert otlp_config(ENDPOINT, both) is None


def test_all_of_it_can_be_switched_off() -> None:
    assert otlp_config(ENDPOINT, {"OTEL_SDK_DISABLED": "True"}) is None


@pytest.mark.parametrize("endpoint", ["collector:4317", "grpc://collector:4317", "http://", "x"])
def test_an_endpoint_that_is_no_url_is_refused_without_its_text(endpoint: str) -> None:
    with pytest.raises(SettingError, match=r"^otlp_endpoint is no http or https URL$"):
        otlp_config(endpoint, {})


@pytest.mark.parametrize(
    "name", ["OTEL_EXPORTER_OTLP_PROTOCOL", "OTEL_EXPORTER_OTLP_METRICS_PROTOCOL"]
)
def test_a_protocol_that_is_not_spoken_is_refused(name: str) -> None:
    with pytest.raises(SettingError, match=f"{name} is 'grpc'"):
        otlp_config(ENDPOINT, {name: "grpc"})
    assert otlp_config(ENDPOINT, {name: "http/protobuf"}) == BOTH


def test_without_the_sdk_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(otlp, "find_spec", lambda _: None)
    with pytest.raises(SettingError) as refused:
        otlp_config(ENDPOINT, {})
    assert "butterbase[otlp]" in (refused.value.hint or "")
    assert otlp_config(None, {}) is None


def test_a_server_without_a_collector_imports_nothing_of_opentelemetry() -> None:
    script = (
        "import sys, butterbase.cli.api, butterbase.api.app\n"
        "from butterbase.ai.telemetry.otlp import otlp_config\n"
        "assert otlp_config(None, {}) is None\n"
        "print([name for name in sys.modules if name.split('.')[0] == 'opentelemetry'])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"
