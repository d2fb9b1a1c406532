"""Runbook pages: Markdown that people edit, filled with the facts of one alert, as HTML that is safe to show.

Values never reach the Markdown parser. Each is replaced by a mark of private-use characters before parsing and put in,
escaped, after it: a label cannot become a link, a heading, a tag or the end of a code block, whatever it holds. Inside
a command it is quoted for the shell by the filter `sh`, inside a query by `promql`; the lint insists on that.
"""

from __future__ import annotations

import html
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from jinja2 import DictLoader, StrictUndefined, TemplateError, pass_context
from jinja2.exceptions import SecurityError
from jinja2.runtime import Context, Undefined
from jinja2.sandbox import ImmutableSandboxedEnvironment
from markdown_it import MarkdownIt
from markupsafe import Markup

from control_plane.errors import InvalidDefinition
from control_plane.oncall.own_alerts import OWN_ALERTS
from control_plane.slo.alert_names import alert_name
from control_plane.slo.state import Kind

SECTIONS = ("Meaning", "Impact", "Diagnosis", "Mitigation")


@dataclass(frozen=True, slots=True)
class SloAlert:
    """What an SLO's alerts are about; all tiers of it have one page."""

    name: str  # of the alert, e.g. IdentityErrors
    slo: str
    service: str
    kind: Kind
    promise: str  # the SLO's description, one or two sentences

    @property
    def page(self) -> str:
        """`errors`, or `first-token` where the SLO is named beyond its kind."""
        return self.slo.removeprefix(f"{self.service}-") if self.slo.startswith(f"{self.service}-") else self.kind.value


def slo_alert(slo: str, service: str, kind: Kind, promise: str) -> SloAlert | None:
    """The alert of an SLO. None for throughput: what users ask for is no fault, so nothing ever fires."""
    return None if kind is Kind.THROUGHPUT else SloAlert(alert_name(slo), slo, service, kind, promise)


@dataclass(frozen=True, slots=True)
class RunbookFacts:
    """What a page is filled with. `labels` and `annotations` come from whoever sent the alert: not to be trusted."""

    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)  # of the alert that fires now; empty when none does
    console: str = "http://127.0.0.1:7010"  # base URLs, without a slash at the end
    gateway: str = "http://127.0.0.1:7000"
    prometheus: str = "http://127.0.0.1:7090"
    alertmanager: str = "http://127.0.0.1:7093"
    traces: str = "http://127.0.0.1:7018"
    namespace: str = "librechat"
    monitoring_namespace: str = "librechat-monitoring"


@dataclass(frozen=True, slots=True)
class LintFinding:
    page: str
    code: str
    message: str

    def __str__(self) -> str:
        return f"{self.page}: {self.code} {self.message}"


class Runbooks:
    """All pages. `sources` is Markdown by page name; `alerts` are the alerts that SLOs can raise."""

    def __init__(self, sources: Mapping[str, str], alerts: Iterable[SloAlert]) -> None:
        self._sources = dict(sources)
        self._alerts = {alert.name: alert for alert in alerts}

    def names(self) -> Sequence[str]:
        """Everything that has a page: alerts first, then topics."""
        shared = {alert.page for alert in self._alerts.values()}
        own = [name for name in OWN_ALERTS if _page_of_own(name) in self._sources]
        taken = shared | {_page_of_own(name) for name in own}
        return [*sorted(self._alerts), *own, *sorted(page for page in self._sources if page not in taken)]

    def render(self, name: str, facts: RunbookFacts) -> str | None:
        """One page as HTML; None when there is none of that name. Raises InvalidDefinition when its file is broken."""
        found = self._find(name)
        if found is None:
            return None
        page, alert = found
        source = self._sources[page]
        return _render(page, _FIRING + source if facts.annotations else source, self._context(name, alert, facts))

    def lint(self) -> Sequence[LintFinding]:
        """What is wrong with the pages: sections, templates, unquoted values, alerts without a page."""
        findings = [
            LintFinding(f"{alert.page}.md", "NO_PAGE", f"the alert {alert.name} has no page: write this file")
            for alert in self._alerts.values()
            if alert.page not in self._sources
        ]
        findings += [
            LintFinding(f"{_page_of_own(name)}.md", "NO_PAGE", f"the alert {name} has no page: write this file")
            for name in OWN_ALERTS
            if _page_of_own(name) not in self._sources
        ]
        for page, source in self._sources.items():
            findings += [LintFinding(f"{page}.md", "UNQUOTED", line) for line in _unquoted(source)]
        seen: set[str] = set()
        for name in self.names():
            found = self._find(name)
            if found is None or found[0] in seen:
                continue
            page, alert = found
            seen.add(page)
            try:
                text = _filled(page, self._sources[page], self._context(name, alert, RunbookFacts()))[0]
            except InvalidDefinition as error:
                findings.append(LintFinding(f"{page}.md", "BROKEN", str(error)))
            else:
                findings += [LintFinding(f"{page}.md", "SECTIONS", fault) for fault in _section_faults(text)]
        return findings

    def _find(self, name: str) -> tuple[str, SloAlert | None] | None:
        alert = self._alerts.get(name)
        if alert is not None:
            return (alert.page, alert) if alert.page in self._sources else None
        page = _page_of_own(name) if name in OWN_ALERTS else name
        about_slos = page in {each.page for each in self._alerts.values()}
        return (page, None) if page in self._sources and not about_slos else None

    def _context(self, name: str, alert: SloAlert | None, facts: RunbookFacts) -> dict[str, Any]:
        """What templates may use. URLs are settings and stand as they are; all else is escaped on its way out."""
        return {
            "name": name,
            "service": alert.service if alert else self._known_service(facts.labels.get("service")),
            "slo": alert.slo if alert else None,
            "promise": alert.promise if alert else None,
            "labels": dict(facts.labels),
            "annotations": dict(facts.annotations),
            "console": Markup(facts.console),  # noqa: S704 -- a setting
            "gateway": Markup(facts.gateway),  # noqa: S704
            "prometheus": Markup(facts.prometheus),  # noqa: S704
            "alertmanager": Markup(facts.alertmanager),  # noqa: S704
            "traces": Markup(facts.traces),  # noqa: S704
            "namespace": facts.namespace,
            "monitoring_namespace": facts.monitoring_namespace,
        }

    def _known_service(self, name: str | None) -> str:
        """The name if it is one of ours, else a word to fill in: pages show it inside commands."""
        return name if name in {alert.service for alert in self._alerts.values()} and name else "SERVICE"


def _page_of_own(name: str) -> str:
    """`rollback-held` for `RollbackHeld`."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "-", name).lower()


_FIRING = (  # all on one line, so that line numbers in messages are the file's
    "> **{{ annotations.get('summary', 'This alert is firing.') }}** {{ annotations.get('description', '') }}\n\n"
)

_MARK = "\ue000{}\ue001"
_MARKED = re.compile("\ue000(\\d+)\ue001|%EE%80%80(\\d+)%EE%80%81")
_UNSEEN = re.compile(r"[\x00-\x08\x0b-\x1f\x7f\ue000\ue001\ud800-\udfff]|\n")
_VALUES = "values of this page"  # no Jinja name, so no template can reach it


@pass_context
def _withheld(context: Context, value: Any) -> Any:
    """Keeps a value back and leaves a mark in its place; settings and the undefined pass."""
    if isinstance(value, Markup | Undefined):
        return value
    values = context.parent[_VALUES]
    values.append("" if value is None else _UNSEEN.sub(" ", str(value)))
    return Markup(_MARK.format(len(values) - 1))  # noqa: S704 -- digits between private-use characters


def _sh(value: object) -> str:
    return shlex.quote(_UNSEEN.sub(" ", str(value)))


def _promql(value: object) -> str:
    """For the inside of a double-quoted PromQL string."""
    return _UNSEEN.sub(" ", str(value)).replace("\\", "\\\\").replace('"', '\\"')


class _FillIn(ImmutableSandboxedEnvironment):
    """A page fills in values and nothing more: arithmetic could still use up all memory."""

    intercepted_binops = frozenset(ImmutableSandboxedEnvironment.default_binop_table)

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        raise SecurityError(f"pages do not calculate ({operator})")


def _environment() -> _FillIn:
    environment = _FillIn(
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_withheld,
        loader=DictLoader({}),  # a page includes no other
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals.clear()
    environment.filters = {
        "sh": _sh,
        "promql": _promql,
        "default": environment.filters["default"],
        "join": environment.filters["join"],
    }
    return environment


_ENVIRONMENT = _environment()
_MARKDOWN = MarkdownIt("commonmark", {"html": False, "linkify": False}).enable("table")


def _filled(page: str, source: str, context: Mapping[str, Any]) -> tuple[str, list[str]]:
    """The page's Markdown with marks in place of values, and the values."""
    values: list[str] = []
    try:
        text = _ENVIRONMENT.from_string(source).render({**context, _VALUES: values})
    except (TemplateError, TypeError, ValueError, LookupError) as error:
        line = getattr(error, "lineno", None)
        where = f"{page}.md, line {line}" if line else f"{page}.md"
        raise InvalidDefinition(f"{where}: {error}") from error
    return text, values


def _render(page: str, source: str, context: Mapping[str, Any]) -> str:
    text, values = _filled(page, source, context)

    def put_in(mark: re.Match[str]) -> str:
        value = values[int(mark[1] or mark[2])]
        return html.escape(value) if mark[1] else _percent_encoded(value)  # the second form stands inside an address

    return _MARKED.sub(put_in, str(_MARKDOWN.render(text)))


def _percent_encoded(value: str) -> str:
    return re.sub(rb"[^A-Za-z0-9._~-]", lambda byte: b"%%%02X" % byte[0][0], value.encode()).decode()


def _section_faults(text: str) -> list[str]:
    """What the four sections lack, in plain words."""
    titles: list[str] = []
    filled: dict[str, bool] = {}
    tokens = _MARKDOWN.parse(text)
    for number, token in enumerate(tokens):
        if token.type == "heading_open" and token.tag == "h2":
            titles.append(tokens[number + 1].content)
        elif token.type in ("inline", "fence", "code_block") and titles and token.content.strip() != titles[-1]:
            filled[titles[-1]] = True
    if tuple(titles) != SECTIONS:
        return [f"sections are {', '.join(titles) or 'none'}; they must be {', '.join(SECTIONS)}"]
    return [f"section {title} is empty" for title in SECTIONS if title not in filled]


_OUTPUT = re.compile(r"\{\{(.*?)\}\}")
_UNTRUSTED = re.compile(r"\b(labels|annotations)\b")


def _unquoted(source: str) -> list[str]:
    """Lines of code blocks that would show an alert's own words unquoted, ready to be copied into a shell."""
    faults = []
    inside = False
    for number, line in enumerate(source.splitlines(), start=1):
        if line.lstrip().startswith("```"):
            inside = not inside
        elif inside:
            faults += [
                f"line {number}: {{{{{expression}}}}} in a code block needs the filter sh or promql"
                for expression in _OUTPUT.findall(line)
                if _UNTRUSTED.search(expression) and not re.search(r"\|\s*(sh|promql)\s*$", expression)
            ]
    return faults
