"""The dashboard and the alerts name what the code exports, and nothing else."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from stylemill.meter import Meter
from stylemill.stylizing.liveness import METERS as BULK
from stylemill.training.tracker import METERS as TRAINING

INFRA = Path(__file__).parents[2] / "infra" / "observability"
RULES, DASHBOARD = INFRA / "prometheus-rules.yaml", INFRA / "grafana-dashboard.json"
SUFFIXES = {"Counter": ("_total",), "Gauge": ("",), "Histogram": ("_bucket", "_sum", "_count")}


def exported(meter: Meter) -> set[str]:
    """Return the names under which Ray's metrics endpoint serves a meter."""
    return {f"ray_{meter.name}{suffix}" for suffix in SUFFIXES[meter.kind]}


EXPORTED = set().union(*map(exported, (*BULK, *TRAINING)))
LABELS = {"run", "le", "stage", "status", "direction", "outcome"}


def expressions() -> list[str]:
    """Return every PromQL expression of the dashboard and of the rules."""
    board = json.loads(DASHBOARD.read_text())
    found = [target["expr"] for panel in board["panels"] for target in panel.get("targets", [])]
    found += [variable["query"]["query"] for variable in board["templating"]["list"] if variable["type"] == "query"]
    rules = yaml.safe_load(RULES.read_text())
    return found + [rule["expr"] for group in rules["groups"] for rule in group["rules"]]


def names_in(expression: str) -> set[str]:
    return set(re.findall(r"ray_stylemill_\w+", expression))


def test_every_metric_that_is_named_is_exported():
    named = set().union(*map(names_in, expressions()))
    assert len(named) > 10
    assert named <= EXPORTED


def test_every_meter_is_shown():
    shown = set().union(*map(names_in, expressions()))
    assert [meter.name for meter in (*BULK, *TRAINING) if not shown & exported(meter)] == []


def test_names_are_distinct():
    names = [meter.name for meter in (*BULK, *TRAINING)]
    assert len(set(names)) == len(names)


def test_labels_that_are_asked_for_exist():
    assert {tag for meter in (*BULK, *TRAINING) for tag in meter.tags} | {"le"} == LABELS
    for expression in expressions():
        grouped = re.findall(r"(?:by|on) \(([^)]*)\)", expression)
        assert {label.strip() for labels in grouped for label in labels.split(",")} <= LABELS, expression


def test_alerts_say_what_to_do():
    rules = yaml.safe_load(RULES.read_text())
    alerts = [rule for group in rules["groups"] for rule in group["rules"] if "alert" in rule]
    assert len(alerts) >= 3
    for alert in alerts:
        assert "{{ $labels.run }}" in alert["annotations"]["summary"] and alert["annotations"]["description"]


@pytest.mark.skipif(not shutil.which("promtool"), reason="needs promtool (Debian: prometheus)")
def test_prometheus_accepts_the_rules(tmp_path: Path):
    done = subprocess.run(["promtool", "check", "rules", RULES], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


SCENES = """
rule_files: [RULES]
evaluation_interval: 1m
tests:
  - interval: 1m
    input_series:
      - {series: 'ray_stylemill_sources_planned{run="stuck"}', values: '100+0x60'}
      - {series: 'ray_stylemill_sources_finished{run="stuck"}', values: '40+0x60'}
      - {series: 'ray_stylemill_images_total{run="stuck", status="ok", WorkerId="a"}', values: '40+0x60'}
      - {series: 'ray_stylemill_sources_planned{run="fine"}', values: '1000+0x60'}
      - {series: 'ray_stylemill_sources_finished{run="fine"}', values: '0+10x60'}
      - {series: 'ray_stylemill_images_total{run="fine", status="ok", WorkerId="b"}', values: '0+9x60'}
      - {series: 'ray_stylemill_images_total{run="fine", status="skipped", WorkerId="b"}', values: '0+1x60'}
      - {series: 'ray_stylemill_sources_planned{run="bad"}', values: '1000+0x60'}
      - {series: 'ray_stylemill_sources_finished{run="bad"}', values: '0+10x60'}
      - {series: 'ray_stylemill_images_total{run="bad", status="ok", WorkerId="c"}', values: '0+9x60'}
      - {series: 'ray_stylemill_images_total{run="bad", status="failed", WorkerId="c"}', values: '0+1x60'}
      - {series: 'ray_stylemill_sources_planned{run="waiting"}', values: '10+0x60'}
      - {series: 'ray_stylemill_sources_finished{run="waiting"}', values: '0+0x60'}
      - {series: 'ray_stylemill_sources_planned{run="done"}', values: '10+0x60'}
      - {series: 'ray_stylemill_sources_finished{run="done"}', values: '10+0x60'}
      - {series: 'ray_stylemill_images_total{run="done", status="ok", WorkerId="d"}', values: '10+0x60'}
      - {series: 'ray_stylemill_training_steps_planned{run="t"}', values: '100+0x60'}
      - {series: 'ray_stylemill_training_step{run="t"}', values: '7+0x60'}
      - {series: 'ray_stylemill_training_steps_total{run="t", outcome="updated"}', values: '7+0x60'}
      - {series: 'ray_stylemill_training_steps_total{run="t", outcome="skipped"}', values: '0+1x60'}
      - {series: 'ray_stylemill_training_steps_planned{run="hung"}', values: '100+0x60'}
      - {series: 'ray_stylemill_training_step{run="hung"}', values: '7+0x60'}
      - {series: 'ray_stylemill_training_steps_total{run="hung", outcome="updated"}', values: '7+0x60'}
    promql_expr_test: []
    alert_rule_test:
"""
FIRING = {
    "StylemillRunStalled": ["stuck"],
    "StylemillNoProgress": ["waiting"],
    "StylemillFailureRate": ["bad"],
    "StylemillTrainingStalled": ["hung"],
    "StylemillTrainingUnstable": ["t"],
    "StylemillStorageRetries": [],
}


@pytest.mark.skipif(not shutil.which("promtool"), reason="needs promtool (Debian: prometheus)")
@pytest.mark.parametrize("alert", FIRING)
def test_alerts_fire_for_what_they_are_about(alert: str, tmp_path: Path):
    # promtool wants the texts as well; they are taken from the rules, only who fires is the test's.
    rules = yaml.safe_load(RULES.read_text())
    for group in rules["groups"]:
        for rule in group["rules"]:
            rule.pop("annotations", None)
            rule.pop("labels", None)
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(rules))
    scenes = yaml.safe_load(SCENES.replace("RULES", str(tmp_path / "rules.yaml")))
    firing = [{"exp_labels": {"run": run}} for run in FIRING[alert]]
    scenes["tests"][0]["alert_rule_test"] = [{"eval_time": "50m", "alertname": alert, "exp_alerts": firing}]
    (tmp_path / "scenes.yaml").write_text(yaml.safe_dump(scenes))
    done = subprocess.run(
        ["promtool", "test", "rules", tmp_path / "scenes.yaml"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
