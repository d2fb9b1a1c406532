"""OpenSLO v1 files into SLOs. What OpenSLO cannot say stands in annotations under `backstay.dev/`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from decimal import Decimal

from control_plane.slo.counters import counters_of
from control_plane.slo.documents import MalformedYaml, Node, documents
from control_plane.slo.durations import CALENDAR_UNITS, parse_duration
from control_plane.slo.findings import Finding, InvalidSlo, Severity
from control_plane.slo.labels import boundary
from control_plane.slo.reading import Reader
from control_plane.slo.spec import Bucket, Budgeting, Catalogue, Counters, Objective, Slo, TimeSlices
from control_plane.slo.state import Kind

API_VERSION = "openslo/v1"
PREFIX = "backstay.dev/"
KIND = PREFIX + "kind"
OURS = PREFIX + "ours"
SCRAPE_INTERVAL = PREFIX + "scrape-interval"
ANNOTATIONS = (KIND, OURS, SCRAPE_INTERVAL)

UNSAID_SCRAPE_INTERVAL = timedelta(minutes=1)  # Prometheus's own default
LONGEST_WINDOW = timedelta(days=35)  # what the ledger holds
_NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_KINDS = ("Service", "SLO", "SLI", "DataSource", "AlertPolicy", "AlertCondition", "AlertNotificationTarget")
_METADATA = ("name", "displayName", "labels", "annotations")


def load(files: Mapping[str, str]) -> Catalogue:
    """SLOs of all files together (file name -> text). Raises InvalidSlo with every finding if one is an error."""
    catalogue, findings = read(files)
    if any(finding.severity is Severity.ERROR for finding in findings):
        raise InvalidSlo(findings)
    return catalogue


def read(files: Mapping[str, str]) -> tuple[Catalogue, tuple[Finding, ...]]:
    """What could be read, and everything that is wrong. SLOs with an error of their own are left out."""
    found = [entry for file in sorted(files) for entry in _objects(file, files[file])]
    objects = [entry for entry in found if isinstance(entry, _Object)]
    findings = [entry for entry in found if isinstance(entry, Finding)]
    named: dict[tuple[str, str], _Object] = {}
    for each in objects:
        first = named.setdefault((each.kind, each.name), each)
        if first is not each:
            where = f"{first.reader.file}:{first.node.line}"
            each.reader.note(each.node, "duplicate-name", f"{each.kind} {each.name!r} is already defined at {where}")
    slos = [slo for each in objects if each.kind == "SLO" and (slo := _SloReader(each, named).read()) is not None]
    services = {each.name: each.title for each in objects if each.kind == "Service"}
    spoken_of = {each.spec.fields["service"].text for each in objects if "service" in each.spec.fields}
    for each in objects:
        if each.kind == "DataSource":
            _scrape_interval(each)
        elif each.kind == "Service" and each.name not in spoken_of:
            each.reader.warn(each.node, "no-slo", f"no SLO speaks of service {each.name!r}")
        elif each.kind.startswith("Alert"):
            each.reader.warn(
                each.node, "alerting-not-read", "is not read: Backstay alerts on burn rates of its own (multi-window)"
            )
        findings += each.reader.findings
    unique = {slo.name: slo for slo in reversed(slos)}
    return Catalogue(tuple(slo for slo in slos if unique[slo.name] is slo), services), tuple(sorted(set(findings)))


@dataclass(slots=True)
class _Object:
    """One OpenSLO object whose head was readable."""

    kind: str
    name: str
    title: str
    node: Node
    spec: Node
    annotations: Mapping[str, Node]
    reader: Reader = field(repr=False)


def _objects(file: str, text: str) -> list[_Object | Finding]:
    objects: list[_Object | Finding] = []
    try:
        for node in documents(text):
            reader = Reader(file)
            head = _head(reader, node)
            objects += [head] if head else reader.findings
    except MalformedYaml as error:
        objects.append(Finding(file, error.line, ".", "yaml", Severity.ERROR, str(error)))
    return objects


def _head(reader: Reader, node: Node) -> _Object | None:
    if reader.mapping(node, ("apiVersion", "kind", "metadata", "spec")) is None:
        return None
    version = reader.text(reader.required(node, "apiVersion", f"write {API_VERSION}"))
    if version is not None and version != API_VERSION:
        reader.note(node.fields["apiVersion"], "not-openslo", f"{version!r} is not read: write {API_VERSION}")
        return None
    kind = reader.text(reader.required(node, "kind", f"one of {', '.join(_KINDS)}"))
    if kind is not None and kind not in _KINDS:
        reader.note(node.fields["kind"], "unknown-kind", f"{kind!r} is not OpenSLO: one of {', '.join(_KINDS)}")
        return None
    metadata = reader.mapping(reader.required(node, "metadata", "it holds the name"), _METADATA)
    spec = reader.mapping(reader.required(node, "spec", "it holds the definition"), None)
    if version is None or kind is None or metadata is None or spec is None:
        return None
    name = reader.text(reader.required(metadata, "name", "every object is referred to by it"))
    if name is None:
        return None
    if not _NAME.fullmatch(name):
        reader.note(
            metadata.fields["name"], "bad-name", f"{name!r}: use at most 63 of a-z, 0-9 and -, not - at the ends"
        )
        return None
    title = reader.text(metadata.fields.get("displayName")) or name
    annotations = reader.mapping(metadata.fields.get("annotations"), None)
    own = annotations.fields if annotations else {}
    for key, value in own.items():
        if key.startswith(PREFIX) and key not in ANNOTATIONS:
            reader.warn(value, "unknown-annotation", f"{key!r} means nothing here: one of {', '.join(ANNOTATIONS)}")
    return _Object(kind, name, title, node, spec, own, reader)


def _scrape_interval(source: _Object) -> timedelta | None:
    return source.reader.parsed(source.annotations.get(SCRAPE_INTERVAL), "bad-duration", parse_duration)


@dataclass(slots=True)
class _SloReader:
    """Reads one SLO object against the others it refers to."""

    object: _Object
    named: Mapping[tuple[str, str], _Object]

    def read(self) -> Slo | None:
        reader, spec = self.object.reader, self.object.spec
        errors_before = len(reader.findings)
        reader.mapping(
            spec,
            (
                "description", "service", "indicator", "indicatorRef", "timeWindow", "budgetingMethod",
                "objectives", "alertPolicies",
            ),
        )  # fmt: skip
        if alerting := spec.fields.get("alertPolicies"):
            reader.warn(alerting, "alerting-not-read", "is not read: Backstay alerts on burn rates of its own")
        kind = self._kind()
        service = self._service()
        window = self._window()
        budgeting = self._budgeting()
        objective = reader.only_item(
            reader.required(spec, "objectives", "it holds the target"),
            "one-objective",
            "objective: make each its own SLO",
        )
        reader.mapping(
            objective,
            ("displayName", "op", "value", "target", "targetPercent", "timeSliceTarget", "timeSliceWindow"),
        )
        target = self._target(objective) if objective else None
        slices = self._slices(objective) if objective and budgeting is Budgeting.TIMESLICES else None
        indicator = self._indicator()
        if kind is Kind.THROUGHPUT:
            sides = _Sides()
            capacity = self._capacity(objective, indicator)
        else:
            capacity = None
            sides = self._ratio(indicator) if indicator else _Sides()
        if kind is Kind.LATENCY and sides.total and sides.bucket is None:
            reader.note(
                indicator or spec, "latency-without-bucket",
                'a latency SLO counts one histogram bucket as good: ..._bucket{le="0.2"} over its ..._count',
            )  # fmt: skip
        failed = any(finding.severity is Severity.ERROR for finding in reader.findings[errors_before:])
        if failed or kind is None or service is None or window is None or budgeting is None or target is None:
            return None
        return Slo(
            name=self.object.name,
            service=service,
            kind=kind,
            objective=Objective(target, window),
            budgeting=budgeting,
            slices=slices,
            total=sides.total,
            good=sides.good,
            bad=sides.bad,
            bucket=sides.bucket,
            capacity_per_second=capacity,
            title=self.object.title,
            description=reader.text(spec.fields.get("description")) or "",
            ours=bool(reader.truth(self.object.annotations.get(OURS))),
            file=reader.file,
            line=self.object.node.line,
        )

    def _kind(self) -> Kind | None:
        reader = self.object.reader
        node = self.object.annotations.get(KIND)
        if node is None:
            reader.note(
                self.object.node, "no-kind",
                f"annotation {KIND} is missing: say {', '.join(Kind)}", path="metadata.annotations",
            )  # fmt: skip
            return None

        def parse(text: str) -> Kind:
            if text not in tuple(Kind):
                raise ValueError(f"{text!r} is no kind: one of {', '.join(Kind)}")
            return Kind(text)

        return reader.parsed(node, "no-kind", parse)

    def _service(self) -> str | None:
        reader = self.object.reader
        node = reader.required(self.object.spec, "service", "name of a Service object")
        service = reader.text(node)
        if node is None or service is None:
            return None
        if ("Service", service) not in self.named:
            known = ", ".join(sorted(name for kind, name in self.named if kind == "Service")) or "none"
            reader.note(node, "unknown-service", f"no Service {service!r} is defined; defined: {known}")
            return None
        return service

    def _window(self) -> timedelta | None:
        reader = self.object.reader
        node = reader.only_item(
            reader.required(self.object.spec, "timeWindow", "e.g. [{duration: 30d, isRolling: true}]"),
            "one-window", "time window",
        )  # fmt: skip
        if reader.mapping(node, ("duration", "isRolling", "calendar")) is None or node is None:
            return None
        if "calendar" in node.fields or reader.truth(node.fields.get("isRolling")) is not True:
            reader.note(node, "calendar-window", "only rolling windows are read: {duration: 30d, isRolling: true}")
            return None

        def parse(text: str) -> timedelta:
            if text[-1:] in CALENDAR_UNITS:
                raise ValueError(f"{text!r} has no fixed length in a rolling window: write days, e.g. 30d")
            window = parse_duration(text)
            if not timedelta(hours=1) <= window <= LONGEST_WINDOW:
                raise ValueError(f"{text!r} is outside 1h to {LONGEST_WINDOW.days}d, which is what the ledger holds")
            return window

        return reader.parsed(reader.required(node, "duration", "e.g. 30d"), "bad-window", parse)

    def _budgeting(self) -> Budgeting | None:
        def parse(text: str) -> Budgeting:
            if text not in tuple(Budgeting):
                raise ValueError(f"{text!r} is not read: one of {', '.join(Budgeting)}")
            return Budgeting(text)

        reader = self.object.reader
        node = reader.required(self.object.spec, "budgetingMethod", f"one of {', '.join(Budgeting)}")
        return reader.parsed(node, "bad-budgeting", parse)

    def _target(self, objective: Node) -> Decimal | None:
        reader = self.object.reader
        ratio, percent = objective.fields.get("target"), objective.fields.get("targetPercent")
        node = ratio or percent
        if node is None or (ratio and percent):
            reader.note(objective, "one-target", "needs either target (0.999) or targetPercent (99.9), and not both")
            return None
        number = reader.decimal(node)
        if number is None:
            return None
        target = number if ratio else number / 100
        if target == 1:
            reader.note(node, "target-of-one", "a target of 100 % leaves no error budget to spend: write e.g. 0.999")
        elif not 0 < target < 1:
            way_out = "write 99.9 % as target: 0.999 or as targetPercent: 99.9"
            reader.note(node, "target-range", f"{node.text} is outside {'(0, 1)' if ratio else '(0, 100)'}: {way_out}")
        else:
            return target
        return None

    def _slices(self, objective: Node) -> TimeSlices | None:
        reader = self.object.reader
        share = reader.decimal(reader.required(objective, "timeSliceTarget", "share of good events in a good slice"))
        if share is not None and not 0 < share <= 1:
            reader.note(objective.fields["timeSliceTarget"], "bad-slices", "must be a ratio in (0, 1], e.g. 0.95")
            share = None

        def parse(text: str) -> timedelta:
            width = timedelta(minutes=int(text)) if text.isdigit() else parse_duration(text)
            minutes = width / timedelta(minutes=1)
            if minutes < 1 or not minutes.is_integer() or 60 % minutes:
                raise ValueError(f"{text!r}: a slice is a whole number of minutes that divides an hour, e.g. 1m")
            return width

        width = reader.parsed(reader.required(objective, "timeSliceWindow", "e.g. 1m"), "bad-slices", parse)
        return TimeSlices(width, share) if width and share else None

    def _indicator(self) -> Node | None:
        """The indicator's spec, inline or from the SLI object that it refers to."""
        reader, spec = self.object.reader, self.object.spec
        inline, reference = spec.fields.get("indicator"), spec.fields.get("indicatorRef")
        if (inline is None) == (reference is None):
            reader.note(spec, "one-indicator", "needs either indicator or indicatorRef", path="spec.indicator")
            return None
        if reference is not None:
            name = reader.text(reference)
            sli = self.named.get(("SLI", name or ""))
            if name is not None and sli is None:
                reader.note(reference, "unknown-indicator", f"no SLI {name!r} is defined in these files")
            return reader.mapping(sli.spec, ("description", "ratioMetric", "thresholdMetric")) if sli else None
        if reader.mapping(inline, ("metadata", "spec")) is None or inline is None:
            return None
        return reader.mapping(
            reader.required(inline, "spec", "it holds ratioMetric or thresholdMetric"),
            ("description", "ratioMetric", "thresholdMetric"),
        )

    def _ratio(self, indicator: Node) -> _Sides:
        reader = self.object.reader
        ratio = reader.mapping(
            reader.required(indicator, "ratioMetric", "events are counted as good|bad and total"),
            ("counter", "good", "bad", "total", "raw", "rawType"),
        )
        if ratio is None:
            return _Sides()
        for key in ("raw", "rawType"):
            if key in ratio.fields:
                reader.note(
                    ratio.fields[key], "raw-ratio", "ready-made ratios lose their events: give good|bad and total"
                )
        counter = reader.truth(reader.required(ratio, "counter", "write counter: true"))
        if counter is False:
            reader.note(ratio.fields["counter"], "not-a-counter", "only counters are read: write counter: true")
        good, bad = ratio.fields.get("good"), ratio.fields.get("bad")
        if (good is None) == (bad is None):
            reader.note(ratio, "good-or-bad", "needs either good or bad beside total")
        total = self._counters(reader.required(ratio, "total", "counts all events"))
        sides = _Sides(total, self._counters(good), self._counters(bad))
        if good is not None and sides.good is not None:
            sides.bucket = self._bucket(good, sides.good, total)
        return sides

    def _counters(self, node: Node | None) -> Counters | None:
        """Counters and scrape interval behind one side of a ratio."""
        reader = self.object.reader
        if reader.mapping(node, ("metricSource",)) is None or node is None:
            return None
        source = reader.mapping(
            reader.required(node, "metricSource", "it holds the query"), ("metricSourceRef", "type", "spec")
        )
        if source is None:
            return None
        interval = self._interval(source)
        spec = reader.mapping(reader.required(source, "spec", "it holds the query"), None)
        if spec is None:
            return None
        query = reader.required(spec, "query", "a counter selector, or sums of them")
        selectors = reader.parsed(query, "not-a-counter-query", counters_of)
        return Counters(selectors, interval) if selectors else None

    def _interval(self, source: Node) -> timedelta:
        reader = self.object.reader
        reference = source.fields.get("metricSourceRef")
        name = reader.text(reference)
        referred = self.named.get(("DataSource", name or ""))
        if reference is not None and name is not None and referred is None:
            reader.note(reference, "unknown-source", f"no DataSource {name!r} is defined in these files")
        own = reader.parsed(self.object.annotations.get(SCRAPE_INTERVAL), "bad-duration", parse_duration)
        if interval := own or (_scrape_interval(referred) if referred else None):
            return interval
        reader.warn(
            source, "no-scrape-interval",
            f"annotation {SCRAPE_INTERVAL} is missing on the DataSource: 1m is assumed, which sees staleness late",
        )  # fmt: skip
        return UNSAID_SCRAPE_INTERVAL

    def _bucket(self, node: Node, good: Counters, total: Counters | None) -> Bucket | None:
        """The histogram bucket behind `good`, if it is one."""
        reader = self.object.reader
        first = good.selectors[0]
        le = [(operator, value) for label, operator, value in first.matchers if label == "le"]
        if not le:
            return None
        limit = boundary(le[0][1]) if le[0][0] == "=" else None
        if limit is None or len(good.selectors) != 1 or not first.metric.endswith("_bucket"):
            reader.note(node, "bad-bucket", 'a bucket is one selector on ..._bucket with le="<number>"')
            return None
        bucket = Bucket(first.metric, limit, tuple(m for m in first.matchers if m[0] != "le"))
        if total is not None and any(selector.metric != bucket.count_metric for selector in total.selectors):
            reader.warn(
                node, "other-histogram",
                f"total is not {bucket.count_metric}: requests that one of the two leaves out count as bad",
            )  # fmt: skip
        return bucket

    def _capacity(self, objective: Node | None, indicator: Node | None) -> Decimal | None:
        """Rate that a load test must exceed."""
        reader = self.object.reader
        if objective is None or indicator is None:
            return None
        if reader.required(indicator, "thresholdMetric", "a capacity objective compares a rate with a value") is None:
            return None
        op = reader.required(objective, "op", "write gt")
        if reader.text(op) not in (None, "gt", "gte") and op is not None:
            reader.note(op, "bad-capacity", "a capacity objective is a rate to exceed: write op: gt")
        value = reader.decimal(reader.required(objective, "value", "requests per second"))
        if value is not None and value <= 0:
            reader.note(objective.fields["value"], "bad-capacity", "must be above 0 requests per second")
        return value


@dataclass(slots=True)
class _Sides:
    total: Counters | None = None
    good: Counters | None = None
    bad: Counters | None = None
    bucket: Bucket | None = None
