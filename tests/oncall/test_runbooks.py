from __future__ import annotations

import re
import shlex
from functools import cache
from html import unescape
from html.parser import HTMLParser
from typing import Any

import promql_parser
import pytest
from hypothesis import given
from hypothesis import strategies as st

from control_plane.adapters.runbook_files import load_runbooks
from control_plane.adapters.slo_files import read_texts
from control_plane.errors import InvalidDefinition
from control_plane.oncall.own_alerts import OWN_ALERTS
from control_plane.oncall.runbooks import RunbookFacts, Runbooks, SloAlert, slo_alert
from control_plane.settings import REPOSITORY
from control_plane.slo import loading
from control_plane.slo.state import Kind

SECTIONS = "## Meaning\n\nm\n\n## Impact\n\ni\n\n## Diagnosis\n\nd\n\n## Mitigation\n\nx\n"
IDENTITY = SloAlert("IdentityErrors", "identity-service-errors", "identity-service", Kind.ERRORS, "Few fail.")


def some_runbooks(**pages: str) -> Runbooks:
    own = {"backstay-blind": SECTIONS, "rollback-held": SECTIONS, "watchdog": SECTIONS, "errors": SECTIONS}
    return Runbooks({**own, **{name.replace("_", "-"): text for name, text in pages.items()}}, [IDENTITY])


def shown(source: str, **facts: Any) -> str:
    """The page of IdentityErrors written as `source`."""
    page = some_runbooks(errors=source).render("IdentityErrors", RunbookFacts(**facts))
    assert page is not None
    return page


@cache
def our_alerts() -> tuple[SloAlert, ...]:
    """The alerts of the SLOs in `slos/`."""
    slos = loading.load(read_texts([REPOSITORY / "slos"])).slos
    alerts = (slo_alert(slo.name, slo.service, slo.kind, slo.description) for slo in slos)
    return tuple(alert for alert in alerts if alert is not None)


class Elements(HTMLParser):
    """Tags and attributes of a page, and its text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


# -- ours ------------------------------------------------------------------------------------------------------------


def test_lint_finds_nothing_in_our_own_pages() -> None:
    assert list(load_runbooks(REPOSITORY / "runbooks", our_alerts()).lint()) == []


@pytest.mark.parametrize("name", [*(alert.name for alert in our_alerts()), *OWN_ALERTS])
def test_every_alert_has_a_page_with_its_service_filled_in(name: str) -> None:
    page = load_runbooks(REPOSITORY / "runbooks", our_alerts()).render(name, RunbookFacts())
    assert page is not None
    assert "{{" not in page
    assert "\ue000" not in page
    service = next((alert.service for alert in our_alerts() if alert.name == name), None)
    if service:
        assert f"kubectl logs -n librechat -l app={service} --tail=100" in page or "availability" in name.lower()
        assert f"backstay rollback {service}" in page


@pytest.mark.parametrize("name", [*(alert.name for alert in our_alerts()), "scaling", "network", "performance"])
def test_every_query_in_our_pages_is_promql(name: str) -> None:
    page = load_runbooks(REPOSITORY / "runbooks", our_alerts()).render(name, RunbookFacts()) or ""
    queries = re.findall(r'<code class="language-promql">(.*?)</code>', page, re.DOTALL)
    assert queries
    for query in queries:
        promql_parser.parse(unescape(query))


def test_alerts_come_first_in_the_list_and_shared_pages_are_not_listed() -> None:
    names = list(load_runbooks(REPOSITORY / "runbooks", our_alerts()).names())
    assert len(names) == 22 + 3 + 6
    assert names[0] == "AiGatewayAvailability"
    assert "errors" not in names
    assert {"drills", "network", "performance", "rollback", "scaling", "service-discovery"} <= set(names)


def test_throughput_has_no_alert() -> None:
    assert slo_alert("file-service-throughput", "file-service", Kind.THROUGHPUT, "") is None


def test_an_slo_with_a_name_of_its_own_is_served_by_the_page_of_its_kind() -> None:
    alert = slo_alert("checkout-fast", "shop", Kind.LATENCY, "")
    assert alert is not None
    assert (alert.name, alert.page) == ("CheckoutFast", "latency")


@pytest.mark.parametrize("name", ["Nothing", "errors", "README", "../settings", "IdentityThroughput", ""])
def test_there_is_no_page_for_what_is_no_alert_and_no_topic(name: str) -> None:
    assert load_runbooks(REPOSITORY / "runbooks", our_alerts()).render(name, RunbookFacts()) is None


# -- hostile values --------------------------------------------------------------------------------------------------

HOSTILE = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "[click](javascript:alert(1))",
    "![x](http://evil.example/pixel)",
    "`</code><b>x",
    "```\n\n# heading\n\n<b>",
    "{{ 7 * 7 }}",
    "{% for x in ().__class__.__base__.__subclasses__() %}{% endfor %}",
    "\ue0000\ue001",
    '" onmouseover="alert(1)',
    "&lt;b&gt;",
    "a\x00b\x1b[31m",
    "\ud800 alone",
]


@pytest.mark.parametrize("value", HOSTILE)
@pytest.mark.parametrize(
    "source",
    [
        "pod {{ labels.pod }} end",
        "`{{ labels.pod }}`",
        "```bash\nkubectl logs {{ labels.pod|sh }}\n```",
        "    {{ labels.pod|sh }}",
        "| a |\n| - |\n| {{ labels.pod }} |",
        "[pod {{ labels.pod }}](/x/{{ labels.pod }})",
        "# {{ labels.pod }}",
        "![{{ labels.pod }}](/x.png)",
    ],
)
def test_a_label_stays_text_whatever_it_holds(source: str, value: str) -> None:
    harmless = Elements(shown(source, labels={"pod": "p"}))
    hostile = Elements(shown(source, labels={"pod": value}))
    assert [tag for tag, _ in hostile.tags] == [tag for tag, _ in harmless.tags]
    assert [sorted(attributes) for _, attributes in hostile.tags] == [sorted(a) for _, a in harmless.tags]
    for _, attributes in hostile.tags:
        assert not any((value or "").startswith(("javascript:", "http")) for value in attributes.values())


@given(st.text(), st.text())
def test_any_two_values_are_shown_as_they_are_and_apart(first: str, second: str) -> None:
    page = Elements(shown("{{ labels.a }}|{{ labels.b }}", labels={"a": first, "b": second}))
    assert [tag for tag, _ in page.tags] == ["p"]
    seen = "".join(c for c in f"{first}|{second}" if c.isalnum())
    assert "".join(c for c in page.text if c.isalnum()) == seen


@pytest.mark.parametrize("value", ["; rm -rf /", "$(id)", "`id`", "a' b", "x\nid", "--all"])
def test_a_label_in_a_command_is_one_word_for_the_shell(value: str) -> None:
    text = Elements(shown("```bash\nkubectl logs {{ labels.pod|sh }}\n```", labels={"pod": value})).text
    assert "\n" not in text.strip()
    assert shlex.split(text) == ["kubectl", "logs", value.replace("\n", " ")]


def test_a_label_in_a_query_cannot_end_its_string() -> None:
    text = Elements(
        shown('```promql\nup{pod="{{ labels.pod|promql }}"}\n```', labels={"pod": 'x"} or vector(1) #\\'})
    ).text
    assert text.strip() == 'up{pod="x\\"} or vector(1) #\\\\"}'


def test_a_service_that_is_none_of_ours_is_not_put_into_commands() -> None:
    runbooks = some_runbooks(rollback_held=f"`scale {{{{ service }}}}`\n\n{SECTIONS}")
    facts = RunbookFacts(labels={"service": "x; rm -rf /"})
    assert "scale SERVICE" in (runbooks.render("RollbackHeld", facts) or "")
    facts = RunbookFacts(labels={"service": "identity-service"})
    assert "scale identity-service" in (runbooks.render("RollbackHeld", facts) or "")


def test_what_fires_now_is_shown_first_in_its_own_words() -> None:
    page = shown("# Title", annotations={"summary": "20 % <b>fail</b>", "description": "41 of 200"})
    assert page.index("20 % &lt;b&gt;fail&lt;/b&gt;") < page.index("Title")
    assert "41 of 200" in page


# -- hostile and broken pages ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "source",
    [
        "{{ ''.__class__.__mro__ }}",
        "{{ labels.__class__.__init__.__globals__ }}",
        "{{ console.__class__ }}",
        "{{ labels.update({'a': 'b'}) }}",
        "{% include 'errors' %}",
        "{% import 'os' as os %}",
        "{{ range(10) }}",
        "{{ nothing }}",
        "{{ labels.missing }}",
        "{% if %}",
        "{{ 'x' * 1000000000 }}",
        "{{ labels.pod % 1 }}",
        "{{ labels.pod() }}",
        "{{ 'x'|attr('__class__') }}",
    ],
)
def test_a_page_can_do_nothing_but_fill_in_values(source: str) -> None:
    with pytest.raises(InvalidDefinition, match="errors"):
        shown(source, labels={"pod": "p"})


def test_markup_in_a_page_is_shown_and_not_obeyed() -> None:
    assert "<script" not in shown("<script>alert(1)</script>")


# -- lint ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "code", "words"),
    [
        (SECTIONS.replace("## Impact", "## Effects"), "SECTIONS", "must be"),
        (SECTIONS.replace("## Impact\n\ni\n", "## Impact\n"), "SECTIONS", "Impact is empty"),
        (SECTIONS.replace("x\n", ""), "SECTIONS", "Mitigation is empty"),
        ("", "SECTIONS", "none"),
        ("```bash\n# no heading\n```\n", "SECTIONS", "none"),
        (f"{SECTIONS}\n{{{{ typo }}}}", "BROKEN", "typo"),
        (f"{SECTIONS}\n```bash\nlog {{{{ labels.pod }}}}\n```", "UNQUOTED", "labels.pod"),
    ],
)
def test_lint_names_what_is_wrong_with_a_page(source: str, code: str, words: str) -> None:
    facts = [finding for finding in some_runbooks(errors=source).lint() if finding.code == code]
    assert len(facts) == 1
    assert facts[0].page == "errors.md"
    assert words in facts[0].message


def test_lint_names_alerts_without_a_page() -> None:
    findings = Runbooks({"errors": SECTIONS}, our_alerts()).lint()
    missing = {finding.page for finding in findings if finding.code == "NO_PAGE"}
    assert missing == {
        "latency.md",
        "availability.md",
        "first-token.md",
        "backstay-blind.md",
        "rollback-held.md",
        "watchdog.md",
    }


def test_a_folder_that_is_not_there_is_named(tmp_path: Any) -> None:
    with pytest.raises(InvalidDefinition, match="no folder"):
        load_runbooks(tmp_path / "nowhere", [])
