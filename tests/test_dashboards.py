"""Dashboard, alerts and scraping say what there is: every metric of the table, and no other."""

import json
import re
from collections.abc import Iterator
from typing import Any

import promql_parser
import pytest
import yaml

from studiolo.service.metrics import LABELS, METRICS, TABLE, Metric
from studiolo.service.records import JobReason, Kind, State
from tests.test_docs import ROOT

DEPLOY = ROOT / "deploy"
BOARD = json.loads((DEPLOY / "grafana.json").read_text(encoding="utf-8"))
ALERTS = yaml.safe_load((DEPLOY / "alerts.yml").read_text(encoding="utf-8"))["groups"][0]["rules"]
PANELS = [panel for panel in BOARD["panels"] if panel["type"] != "row"]


def expressions() -> Iterator[Any]:
    for panel in PANELS:
        for target in panel["targets"]:
            expr = target["expr"].replace("$__rate_interval", "5m")
            yield pytest.param(expr, id=f"{panel['title']} {target['refId']}")
    for rule in ALERTS:
        yield pytest.param(rule["expr"], id=rule["alert"])


EXPRESSIONS = list(expressions())


def selectors(expr: str) -> list[promql_parser.VectorSelector]:
    """Every series that an expression asks for. Raises `ValueError` for what is no PromQL."""
    found: list[promql_parser.VectorSelector] = []

    def visit(node: promql_parser.Expr) -> None:
        if isinstance(node, promql_parser.VectorSelector):
            found.append(node)
        elif isinstance(node, promql_parser.MatrixSelector):
            found.append(node.vector_selector)

    promql_parser.walk(promql_parser.parse(expr), visit)
    return list({str(one): one for one in found}.values())


def metric_of(series: str) -> Metric:
    """The row of the table that a series belongs to; raises `KeyError` when there is none."""
    metric = METRICS.get(series) or METRICS[series.removesuffix("_bucket")]
    if (metric.kind == "histogram") is not series.endswith("_bucket"):  # Ray only guesses a histogram's sum
        raise KeyError(series)
    return metric


def problems(expr: str) -> list[str]:
    """What an expression asks for that is never there."""
    found = []
    for one in selectors(expr):
        metric = metric_of(str(one.name))
        for matcher in one.matchers.matchers:
            values = [value for value in matcher.value.split("|") if "." not in value]
            if matcher.name not in metric.labels:
                found.append(f"{metric.name} has no label {matcher.name}")
            elif not all(re.fullmatch(LABELS[matcher.name], value) for value in values):
                found.append(f"{matcher.name} is never {matcher.value}")
    grouped = {name for names in re.findall(r"by \(([^)]*)\)", expr) for name in names.replace(" ", "").split(",")}
    known = {label for one in selectors(expr) for label in metric_of(str(one.name)).labels} | {"le"}
    return found + [f"no series has the label {name}" for name in sorted(grouped - known)]


@pytest.mark.parametrize("expr", EXPRESSIONS)
def test_expressions_ask_for_what_there_is(expr: str):
    assert selectors(expr)
    assert problems(expr) == []


@pytest.mark.parametrize(
    ("expr", "problem"),
    [
        ("sum by (kind) (studiolo_queue_jobs{kinds='portraits'})", "no label kinds"),
        ("studiolo_queue_jobs{state='done'}", "state is never done"),
        ("sum by (worker) (studiolo_queue_jobs)", "no series has the label worker"),
    ],
)
def test_a_wrong_label_would_be_found(expr: str, problem: str):
    assert problem in problems(expr)[0]


@pytest.mark.parametrize("expr", ["studiolo_queue_job", "studiolo_job_seconds", "studiolo_queue_jobs_bucket"])
def test_a_wrong_name_would_be_found(expr: str):
    with pytest.raises(KeyError):
        problems(expr)


@pytest.mark.parametrize("expr", ["sum(rate(studiolo_requests_total[5m])", "rate(studiolo_requests_total)", "1 +"])
def test_no_promql_would_be_found(expr: str):
    with pytest.raises(ValueError):  # noqa: PT011
        selectors(expr)


def test_every_metric_is_on_the_dashboard():
    shown = [panel["targets"] for panel in PANELS]
    text = " ".join(target["expr"] for targets in shown for target in targets).replace("$__rate_interval", "5m")
    assert set(re.findall(r"studiolo_\w+?(?=_bucket|\b)", text)) == set(METRICS)


def test_counters_are_shown_by_their_rates():
    for expr in (param.values[0] for param in EXPRESSIONS):
        for one in selectors(expr):
            if metric_of(str(one.name)).kind != "gauge":
                assert re.search(rf"(rate|increase)\({one.name}[{{\[]", expr), expr


def test_the_dashboard_is_one():
    assert [row["title"] for row in BOARD["panels"] if row["type"] == "row"] == [
        "Traffic",
        "Queue",
        "Sampler",
        "Quality",
        "Training",
    ]
    assert BOARD["schemaVersion"] >= 41
    (variable,) = BOARD["templating"]["list"]
    assert (variable["type"], variable["query"]) == ("datasource", "prometheus")
    assert len({panel["id"] for panel in BOARD["panels"]}) == len(BOARD["panels"])
    cells: set[tuple[int, int]] = set()
    for panel in BOARD["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        columns, rows = (range(place[a], place[a] + place[b]) for a, b in (("x", "w"), ("y", "h")))
        own = {(x, y) for x in columns for y in rows}
        assert not cells & own, panel["title"]
        cells |= own
    for panel in PANELS:
        assert panel["description"].endswith(".")
        assert {target["datasource"]["uid"] for target in panel["targets"]} == {"${datasource}"}
        assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"])


def test_alerts_say_what_and_where_to_read_on():
    operating = (ROOT / "docs" / "operating.md").read_text(encoding="utf-8")
    assert len(ALERTS) == 5
    for rule in ALERTS:
        assert f"### {rule['alert']}" in operating
        assert rule["annotations"]["summary"].endswith(".")
        assert rule["labels"]["severity"] in ("page", "ticket")


def test_prometheus_gives_rays_metrics_the_names_of_the_table():
    config = yaml.safe_load((DEPLOY / "prometheus.yml").read_text(encoding="utf-8"))
    assert config["rule_files"] == ["alerts.yml"]
    ray, _trainer = config["scrape_configs"]
    (rule,) = ray["metric_relabel_configs"]
    for metric in TABLE:
        for suffix in ("", "_bucket"):
            exported = f"ray_{metric.name}{suffix}"  # measured, see docs/LOG.md
            match = re.fullmatch(rule["regex"], exported)
            assert match is not None
            assert match.expand(rule["replacement"].replace("$", "\\")) == metric.name + suffix
    assert re.fullmatch(rule["regex"], "ray_serve_num_http_requests_total") is None


def test_labels_take_the_words_that_the_queue_uses():
    for label, words in (("kind", Kind), ("state", State), ("reason", JobReason)):
        assert all(re.fullmatch(LABELS[label], word) for word in words)
