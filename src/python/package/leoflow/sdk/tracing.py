"""Spans of OpenTelemetry of one try, with Airflow's own functions. The server sends the span of the try and that of its
run; both sides derive the ids from the names (`telemetry/traces.rs`)."""

from __future__ import annotations

import contextlib
import hashlib
import os
import threading

from leoflow.common import task_log

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
# The server sends over HTTP, so these are sent so too. A task does not wait long for a collector that does not answer.
DEFAULTS = {"AIRFLOW__TRACES__OTEL_ON": "True", "OTEL_TRACES_EXPORTER": "otlp_proto_http", "OTEL_EXPORTER_OTLP_TIMEOUT": "2"}
FLUSH_SECONDS = 3
SERVICE_NAMES = ("OTEL_RESOURCE_ATTRIBUTES", "AIRFLOW__TRACES__OTEL_SERVICE")


def is_on() -> bool:
    """True if the variables of OpenTelemetry or of Airflow say where traces are sent."""
    exporters = os.environ.get("OTEL_TRACES_EXPORTER", "").split(",")
    if is_true("OTEL_SDK_DISABLED") or "none" in map(str.strip, exporters):
        return False
    return any(map(os.environ.get, ENDPOINTS)) or is_true("AIRFLOW__TRACES__OTEL_ON")


def is_true(variable):
    return os.environ.get(variable, "").strip().lower() in ("true", "t", "1")


def ratio() -> float:
    """Returns the share of runs that are traced."""
    sampler = os.environ.get("OTEL_TRACES_SAMPLER", "").strip().removeprefix("parentbased_")
    if sampler == "traceidratio":
        with contextlib.suppress(ValueError):
            return float(os.environ.get("OTEL_TRACES_SAMPLER_ARG", ""))
    return 0.0 if sampler == "always_off" else 1.0


def carrier(spec: dict[str, Any], share: float) -> dict[str, str]:
    """Returns the W3C trace context of a try."""
    run = (spec["dag_id"], spec["run_id"], spec["run_queued_at"])

    def digest(*others):
        return hashlib.sha256("\0".join((*run, *map(str, others))).encode()).hexdigest()

    trace = digest("trace")[:32]
    iteration = spec.get("iteration")
    position = spec["map_index"] if iteration is None else f"{iteration}_{spec['map_index']}"
    span = digest("try", spec["task_id"], position, spec["try_number"])[:16]
    is_sampled = share > 0 and int(trace[16:], 16) <= share * (2**64 - 1)
    return {"traceparent": f"00-{trace}-{span}-{'01' if is_sampled else '00'}"}


class TaskSpan:
    """The span of a task's process, and of what the task itself traces. Nothing, if traces are not sent or this version
    of Airflow has no spans of tasks."""

    def __init__(self, spec: dict[str, Any]):
        self.stack = contextlib.ExitStack()
        self.carrier = self.span = None
        if "run_queued_at" not in spec or not is_on():
            return
        self.carrier = carrier(spec, ratio())
        for name, value in DEFAULTS.items():
            os.environ.setdefault(name, value)
        if os.environ["OTEL_TRACES_EXPORTER"].strip() == "otlp":
            # Airflow takes this name for gRPC.
            os.environ["OTEL_TRACES_EXPORTER"] = DEFAULTS["OTEL_TRACES_EXPORTER"]
        if not any(map(os.environ.get, SERVICE_NAMES)):
            os.environ.setdefault("OTEL_SERVICE_NAME", "airflow")
        try:
            from airflow.sdk._shared.observability.traces import configure_otel
            from airflow.sdk.configuration import conf
        except ImportError:
            return
        try:
            configure_otel(conf)
        except Exception as error:
            task_log.log_event("warning", task_log.OWN, f"The spans of this task are not sent: {error}")

    def enter(self, details: Any) -> None:
        from airflow.sdk.execution_time import task_runner

        if self.carrier and hasattr(task_runner, "_make_task_span"):
            self.span = self.stack.enter_context(task_runner._make_task_span(msg=details))

    def note_error(self, error: BaseException | None) -> None:
        """Marks the span of a task that has failed."""
        if self.span is not None and error is not None:
            from opentelemetry.trace import Status, StatusCode

            self.span.record_exception(error)
            self.span.set_status(Status(StatusCode.ERROR, f"Exception: {type(error).__name__}"))

    def finish(self) -> None:
        """Ends the span, and waits until it was sent, for a short time at most."""
        self.stack.close()
        if not self.carrier:
            return
        try:
            from opentelemetry import trace
        except ImportError:
            return
        flush = getattr(trace.get_tracer_provider(), "force_flush", None)
        if flush is not None:
            # It ignores its own limit.
            thread = threading.Thread(target=flush, daemon=True)
            thread.start()
            thread.join(FLUSH_SECONDS)
