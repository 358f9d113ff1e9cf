"""Changes by receivers inside a value are saved, and unchanged values are not."""

from __future__ import annotations

import json
import threading
from typing import TYPE_CHECKING, Any

import pytest
from django.core.files.base import ContentFile

from signal_patch import bulk_signals
from tests.fields import Point
from tests.fleet import column, of_every_size, rows
from tests.models import Chart, Ship, Strongbox, Survey, Wreck

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.recording import Receivers

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("everything_on")]


class Named(dict):  # type: ignore[type-arg]  # a class of a project's own
    pass


def data() -> dict[str, Any]:
    return {"list": [1, {"deep": [[3]]}], "text": "text", "state": "sunk"}


def put(into: Any, place: Any, value: Any) -> None:
    into[place] = value


CHANGED: dict[str, Callable[[Any], object]] = {
    "at the top": lambda found: found.update(new=1),
    "one level down": lambda found: put(found["list"], 0, 2),
    "four levels down": lambda found: found["list"][1]["deep"][0].append(4),
    "taken away": lambda found: found["list"][1].pop("deep"),
    "a number made true": lambda found: put(found["list"], 0, True),
    "a number with a point": lambda found: put(found["list"], 0, 1.5),
    "a number made text": lambda found: put(found["list"], 0, "1"),
    "a class of a project's own": lambda found: put(found, "text", Named(a=1)),
    "a choice": lambda found: put(found, "text", Ship.Status.SUNK),
    "a longer tuple": lambda found: put(found, "list", (1, 2, 3)),
}
SAME: dict[str, Callable[[Any], object]] = {
    "nothing": lambda found: None,
    "put in and taken out": lambda found: (found["list"].append(1), found["list"].pop()),
    "an equal list": lambda found: put(found, "list", data()["list"]),
    "a tuple": lambda found: put(found, "list", tuple(found["list"])),
    "an equal text": lambda found: put(found, "text", "TEXT".lower()),
    "a class of a project's own": lambda found: put(found["list"], 1, Named(found["list"][1])),
    "a choice": lambda found: put(found, "state", Ship.Status.SUNK),
}


@of_every_size
@pytest.mark.parametrize("change", CHANGED.values(), ids=CHANGED)
def test_a_change_inside_json_is_saved_at_any_depth(
    change: Callable[[Any], object], batch_size: int, receivers: Receivers
) -> None:
    rows(Survey, {"findings": data()}, {"findings": data()})
    receivers.before_saves(Survey, lambda survey: change(survey.findings))
    log = receivers.record(Survey)
    expected = data()
    change(expected)
    with bulk_signals(batch_size=batch_size):
        Survey.objects.update(title="new")
    texts = [json.dumps(found, sort_keys=True) for found in column(Survey, "findings")]
    assert texts == [json.dumps(expected, sort_keys=True)] * 2
    assert {sent.arguments["update_fields"] for sent in log.of("post_save")} == {
        frozenset({"title", "findings"})
    }


@of_every_size
@pytest.mark.parametrize("change", SAME.values(), ids=SAME)
def test_json_of_the_same_text_is_no_change(
    change: Callable[[Any], object], batch_size: int, receivers: Receivers
) -> None:
    rows(Survey, {"findings": data()}, {"findings": data()})
    receivers.before_saves(Survey, lambda survey: change(survey.findings))
    log = receivers.record(Survey)
    with bulk_signals(batch_size=batch_size):
        Survey.objects.update(title="new")
    assert column(Survey, "findings") == [data()] * 2
    assert {sent.arguments["update_fields"] for sent in log.of("post_save")} == {frozenset({"title"})}


def test_one_list_in_two_places_is_no_change(receivers: Receivers) -> None:
    rows(Survey, {"findings": [[1], [1]]})
    receivers.before_saves(Survey, lambda survey: put(survey.findings, 1, survey.findings[0]))
    log = receivers.record(Survey)
    Survey.objects.update(title="new")
    assert log.of("post_save")[0].arguments["update_fields"] == {"title"}


def test_a_caller_s_value_that_can_not_be_saved_is_left_alone_where_it_is_not_named(
    receivers: Receivers,
) -> None:
    boxes = rows(Strongbox, {"label": "old", "content": "x"}, {"label": "old", "content": "y"})
    surveys = rows(Survey, {"findings": [1]}, {"findings": [1]})
    for box in boxes:
        box.owner = threading.Lock()  # neither text, nor anything to be copied
    for survey in surveys:
        survey.findings = [threading.Lock()]
    log = receivers.record(Strongbox, Survey)

    Strongbox.objects.bulk_update(boxes, ["label"])
    Survey.objects.bulk_update(surveys, ["title"])
    assert [sorted(sent.arguments["update_fields"]) for sent in log.of("post_save")] == [
        ["label"],
        ["label"],
        ["title"],
        ["title"],
    ]
    receivers.before_saves(Strongbox, lambda box: setattr(box, "owner", "name"))
    receivers.before_saves(Survey, lambda survey: setattr(survey, "findings", survey.pk))
    Strongbox.objects.bulk_update(boxes, ["label"])
    Survey.objects.bulk_update(surveys, ["title"])
    assert column(Strongbox, "owner") == ["name"] * 2
    assert column(Survey, "findings") == [survey.pk for survey in surveys]


@of_every_size
def test_a_value_object_of_another_value_is_saved_and_an_equal_one_is_not(
    batch_size: int, receivers: Receivers
) -> None:
    rows(Wreck, {"place": Point(1, 2)}, {"place": Point(3, 4)})
    receivers.before_saves(Wreck, lambda wreck: setattr(wreck, "place", Point(1, 2)))
    log = receivers.record(Wreck)
    with bulk_signals(batch_size=batch_size):
        Wreck.objects.update(name="new")
    assert column(Wreck, "place") == [Point(1, 2)] * 2
    assert [sorted(sent.arguments["update_fields"]) for sent in log.of("post_save")] == [
        ["name"],
        ["name", "place"],
    ]


def test_a_file_of_which_only_the_name_is_read_is_no_change(receivers: Receivers) -> None:
    rows(Chart, {"sheet": "a.txt"}, {"sheet": ""}, {"sheet": "c.txt"})
    seen: list[str | None] = []

    def read(chart: Chart) -> None:
        seen.append(chart.sheet.name)
        if chart.sheet.name == "c.txt":
            chart.sheet = ContentFile(b"new", "d.txt")

    receivers.before_saves(Chart, read)
    log = receivers.record(Chart)
    Chart.objects.update(title="new")
    assert seen == ["a.txt", "", "c.txt"]
    assert [len(sent.arguments["update_fields"]) for sent in log.of("post_save")] == [1, 1, 2]
    assert column(Chart, "sheet")[:2] == ["a.txt", ""]
    assert column(Chart, "sheet")[2].startswith("charts/d")


def test_a_value_that_a_receiver_has_deferred_is_looked_at_again(receivers: Receivers) -> None:
    rows(Survey, {"findings": data()})
    receivers.before_saves(Survey, lambda survey: survey.__dict__.pop("findings"))
    log = receivers.record(Survey)
    Survey.objects.update(title="new")
    assert log.of("post_save")[0].arguments["update_fields"] == {"title"}
    assert column(Survey, "findings") == [data()]


def test_a_value_that_was_deferred_and_that_a_receiver_loads_is_saved(receivers: Receivers) -> None:
    rows(Survey, {"findings": data()})
    surveys = list(Survey.objects.defer("findings"))
    Survey.objects.bulk_update(surveys, ["title"])
    log = receivers.record(Survey)
    Survey.objects.bulk_update(surveys, ["title"])
    receivers.before_saves(Survey, lambda survey: survey.findings["list"].append(5))
    Survey.objects.bulk_update(surveys, ["title"])
    names = [sent.arguments["update_fields"] for sent in log.of("post_save")]
    assert names == [{"title"}, {"title", "findings"}]
