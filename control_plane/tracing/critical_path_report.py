"""The answer of `backstay trace critical-path`: a shape that other programs rely on."""

from __future__ import annotations

from typing import Any

from control_plane.tracing.critical_path import critical_path
from control_plane.tracing.jaeger_json import parse_traces, read_traces


def critical_path_report(data: object) -> dict[str, Any]:
    """`{traces: [{trace_id, duration_us, operations: [{service, operation, exclusive_us}], remarks}], problems}`.

    `data` is Jaeger JSON, as a file's bytes or decoded; raises InvalidDefinition when it is anything else.
    `problems` names what was left out, `remarks` what was odd about a trace.
    """
    document = read_traces(data) if isinstance(data, bytes) else parse_traces(data)
    traces = []
    for trace in document.traces:
        path = critical_path(trace)
        operations = [
            {"service": each.service, "operation": each.operation, "exclusive_us": each.exclusive_us}
            for each in path.operations
        ]
        traces.append(
            {
                "trace_id": path.trace_id,
                "duration_us": path.duration_us,
                "operations": operations,
                "remarks": list(path.remarks),
            }
        )
    return {"traces": traces, "problems": list(document.problems)}
