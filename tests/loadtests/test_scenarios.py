"""Scenario files, and what may be wrong with them."""

from __future__ import annotations

import pytest

from loadtests.incidents.catalogue import INCIDENTS
from loadtests.scenario import EVERYBODY, ScenarioError, load, parse, shipped

LEAST = "name: x\nabout: y\nseconds: 10\nclients: [{name: a, client: kubelet, count: 10}]\n"


@pytest.mark.parametrize("name", shipped())
def test_those_that_come_along_are_right(name: str) -> None:
    scenario = load(name)
    assert scenario.name == name
    assert all(group.end <= scenario.seconds for group in scenario.clients)


def test_every_incident_has_one_with_its_time_of_trouble() -> None:
    assert all(load(name).trouble for name in INCIDENTS)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("[]", "mapping"),
        (LEAST + "surprise: 1\n", "surprise"),
        (LEAST.replace("seconds: 10\n", ""), "seconds is required"),
        (LEAST.replace("count: 10", "size: 10"), r"clients\[0\]: unknown key 'size'"),
        (LEAST + "cluster: {moons: 2}\n", "moons"),
        (LEAST.replace("[{", "[{name: a, client: kubelet}, {"), "twice"),
    ],
)
def test_problems_are_named(text: str, why: str) -> None:
    with pytest.raises(ScenarioError, match=why):
        parse(text)


def test_a_file_that_is_absent_is_named() -> None:
    with pytest.raises(ScenarioError, match=r"nowhere\.yaml"):
        load("nowhere")


def test_scaling_multiplies_clients_and_times_but_leaves_single_ones() -> None:
    text = LEAST.replace("]", ", {name: b, client: controller, begin: 2, player: storm}]")
    scaled = parse(text).scaled(clients=2.0, time=0.5, bystanders=0.5)
    many, single = scaled.clients
    assert (many.count, single.count) == (10, 1)
    assert (scaled.seconds, single.begin) == (5.0, 1.0)
    assert scaled.players == ("others", "storm")
    assert scaled.of(EVERYBODY) == scaled.clients


def test_a_shorter_schedule_leaves_time_to_connect() -> None:
    text = LEAST.replace("seconds: 10", "seconds: 30\ntrouble: {begin: 10, end: 20}")
    scaled = parse(text.replace("count: 10", "begin: 5, ramp: 5, end: 20")).scaled(time=0.1)
    assert scaled.trouble is not None
    assert (scaled.trouble.begin, scaled.trouble.end, scaled.seconds) == (4.0, 5.0, 6.0)
    (group,) = scaled.clients
    assert (group.begin, group.ramp, group.end) == (2.0, 2.0, 5.0)


def test_a_cluster_may_hold_more_of_what_there_are_many() -> None:
    text = LEAST + "cluster: {nodes: 3, pods: 200, secrets: 4}\n"
    size = parse(text).holding(2.5).cluster
    assert (size.nodes, size.pods, size.secrets, size.customObjects) == (3, 500, 10, 0)
