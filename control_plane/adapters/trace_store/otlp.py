"""OTLP over HTTP as exporters send it: protobuf or JSON, plain or gzipped, never larger than allowed."""

from __future__ import annotations

import base64
import binascii
import zlib
from typing import Any

import orjson
from google.protobuf import json_format
from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

PROTOBUF = "application/x-protobuf"
JSON = "application/json"

_GZIP_WINDOW = 16 + zlib.MAX_WBITS


class Refused(Exception):
    """The request cannot be taken. `status` is the HTTP status that tells its sender whether to try again."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def unpacked(body: bytes, encoding: str, max_bytes: int) -> bytes:
    """The body as it was before compression. Inflates no further than `max_bytes`: a small body can hold a huge one."""
    if encoding in ("", "identity"):
        plain = body
    elif encoding == "gzip":
        inflater = zlib.decompressobj(_GZIP_WINDOW)
        try:
            plain = inflater.decompress(body, max_bytes + 1)
        except zlib.error as error:
            raise Refused(400, f"the body is no gzip: {error}") from error
        if not inflater.eof and len(plain) <= max_bytes:
            raise Refused(400, "the gzip body ends too early")
    else:
        raise Refused(415, f"Content-Encoding {encoding!r} is not taken: send gzip or none")
    if len(plain) > max_bytes:
        raise Refused(413, f"the body is larger than {max_bytes} bytes: send smaller batches")
    return plain


def decoded(body: bytes, media_type: str) -> ExportTraceServiceRequest:
    """The spans of one export request."""
    request = ExportTraceServiceRequest()
    if media_type == PROTOBUF:
        try:
            request.MergeFromString(body)
        except DecodeError as error:
            raise Refused(400, f"the body is no OTLP protobuf: {error}") from error
    elif media_type == JSON:
        try:
            document = orjson.loads(body)
            _ids_to_base64(document)
            json_format.ParseDict(document, request, ignore_unknown_fields=True)
        except (orjson.JSONDecodeError, json_format.ParseError, ValueError, TypeError, AttributeError) as error:
            raise Refused(400, f"the body is no OTLP JSON: {error}") from error
    else:
        raise Refused(415, f"Content-Type {media_type!r} is not taken: send {PROTOBUF} or {JSON}")
    return request


def answer(media_type: str, rejected: int, reason: str) -> bytes:
    """What the exporter gets back: how many spans were not kept, and why. An empty answer says "all were"."""
    response = ExportTraceServiceResponse()
    if rejected:
        response.partial_success.rejected_spans = rejected
        response.partial_success.error_message = reason
    if media_type == JSON:
        text: str = json_format.MessageToJson(response, indent=None)
        return text.encode()
    return bytes(response.SerializeToString())


def _ids_to_base64(document: Any) -> None:
    """Rewrites ids in place: OTLP's JSON has them in hex, where protobuf's JSON mapping expects base64."""
    for resource_spans in document.get("resourceSpans", ()):
        for scope_spans in resource_spans.get("scopeSpans", ()):
            for span in scope_spans.get("spans", ()):
                for carrier in (span, *span.get("links", ())):
                    for name in ("traceId", "spanId", "parentSpanId"):
                        if carrier.get(name):
                            carrier[name] = _base64_of(carrier[name], name)


def _base64_of(hex_id: str, name: str) -> str:
    try:
        return base64.b64encode(binascii.unhexlify(hex_id)).decode()
    except (binascii.Error, ValueError, TypeError) as error:
        raise ValueError(f"{name} {hex_id!r} is not hex") from error
