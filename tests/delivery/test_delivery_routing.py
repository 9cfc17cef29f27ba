from __future__ import annotations

import pytest

from recon_node.core.errors import ConfigError
from recon_node.delivery import parse_rules, route

FLOW = {"Modality": "MR", "SeriesDescription": "cardiomm [WARN] Flow_AO", "ImageType": "DERIVED\\PRIMARY\\P"}


def test_a_matching_rule_adds_destinations_to_those_of_every_series() -> None:
    rules = parse_rules({"flow": {"to": ["archive", "flow-server"], "SeriesDescription": "*flow*"}})
    assert route(FLOW, rules, to=["archive"], priority=5).destinations == ("archive", "flow-server")
    assert route({"SeriesDescription": "cine"}, rules, to=["archive"], priority=5).destinations == (
        "archive",
    )


def test_all_patterns_of_a_rule_must_match_and_a_missing_attribute_is_empty() -> None:
    rules = parse_rules({"r": {"to": "x", "Modality": "MR", "StationName": "scanner-?"}})
    assert route(FLOW, rules, priority=5).destinations == ()
    assert route({**FLOW, "StationName": "SCANNER-2"}, rules, priority=5).destinations == ("x",)


def test_the_last_matching_rule_with_a_priority_counts() -> None:
    rules = parse_rules(
        {"first": {"priority": 9}, "second": {"priority": 1, "ImageType": "*\\P"}, "third": {"to": "x"}}
    )
    assert route(FLOW, rules, to=["a"], priority=5).priority == 1
    assert route({}, rules, to=["a"], priority=5).priority == 9
    assert route({}, (), to=["a"], priority=5).priority == 5


@pytest.mark.parametrize(
    ("table", "told"),
    [
        ({"to": "x", "PatientName": "*"}, "unknown key PatientName"),
        ({"to": "x", "Modality": 3}, "expected a pattern"),
        ({"Modality": "MR"}, "does nothing"),
        ({"priority": 10}, "expected 0 to 9"),
        ({"priority": True}, "expected 0 to 9"),
        ("archive", "expected a table"),
    ],
)
def test_a_rule_that_makes_no_sense_is_refused(table: object, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        parse_rules({"r": table})
