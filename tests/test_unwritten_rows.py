"""Rows that the database does not change or insert send no `post_save`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from django.db import connection, transaction
from django.db.models import F, Func, Value
from django.db.models.functions import Concat, Random
from django.db.models.signals import post_save

from signal_patch import bulk_signals, no_bulk_signals
from tests.fleet import rows
from tests.key_models import Phrase, Word
from tests.models import Ship
from tests.refusals import refusal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from django.db.models import Model

    from tests.recording import Receivers

pytestmark = [
    pytest.mark.django_db,
    pytest.mark.usefixtures("everything_on"),
    pytest.mark.skipif("connection.vendor == 'mysql'", reason="its triggers leave no row out"),
]

TRIGGERS = {
    "sqlite": """
        CREATE TRIGGER {name} BEFORE {event} ON {table} FOR EACH ROW WHEN {condition}
        BEGIN SELECT RAISE(IGNORE); END
    """,
    "postgresql": """
        CREATE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$;
        CREATE TRIGGER {name} BEFORE {event} ON {table} FOR EACH ROW WHEN ({condition})
        EXECUTE FUNCTION {name}()
    """,
}

SHOUTING = {
    "sqlite": """
        CREATE TRIGGER shout AFTER UPDATE ON tests_word FOR EACH ROW WHEN new.note <> upper(new.note)
        BEGIN UPDATE tests_word SET note = upper(note) WHERE text = new.text; END
    """,
    "postgresql": """
        CREATE FUNCTION shout() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN new.note = upper(new.note); RETURN new; END $$;
        CREATE TRIGGER shout BEFORE UPDATE ON tests_word FOR EACH ROW EXECUTE FUNCTION shout()
    """,
}


def _leave_out(event: str, condition: str, table: str = "tests_word") -> None:
    sql = TRIGGERS[connection.vendor]
    with connection.cursor() as cursor:
        cursor.execute(
            sql.format(name=f"leave_{event.lower()}", event=event, condition=condition, table=table)
        )


@pytest.fixture(params=["trigger", "row security"])
def _row_b_stays(request: pytest.FixtureRequest, db: None) -> Iterator[None]:
    """Rows a, b and c; each UPDATE leaves b unchanged."""
    rows(Word, *({"text": text, "uses": n, "note": text} for n, text in enumerate("abc")))
    if request.param == "trigger":
        _leave_out("UPDATE", "old.text = 'b'")
        yield
        return
    if connection.vendor != "postgresql":
        pytest.skip("this database has no row security")
    with connection.cursor() as cursor:
        cursor.execute("CREATE POLICY reading ON tests_word FOR SELECT USING (true)")
        # Locking a row also needs the policy for UPDATE.
        cursor.execute("CREATE POLICY writing ON tests_word FOR UPDATE USING (text <> 'b')")
        cursor.execute("ALTER TABLE tests_word ENABLE ROW LEVEL SECURITY")
        cursor.execute("CREATE ROLE signal_patch_reader")
        cursor.execute("GRANT ALL ON ALL TABLES IN SCHEMA public TO signal_patch_reader")
        cursor.execute("SET LOCAL ROLE signal_patch_reader")
    with bulk_signals(lock=False):
        yield


CHANGES: dict[str, Callable[[], int]] = {
    "a constant": lambda: Word.objects.update(uses=50),
    "an expression": lambda: Word.objects.update(uses=F("uses") + 10),
    "both": lambda: Word.objects.update(uses=F("uses") + 10, note="new"),
    "text worked out": lambda: Word.objects.update(note=Concat("note", Value("!"))),
    "a key": lambda: Word.objects.update(text=Concat("text", Value("x"))),
    "bulk_update()": lambda: Word.objects.bulk_update(
        [Word(text=text, note=text, uses=7) for text in "abc"], ["uses"]
    ),
    "bulk_update() with expressions": lambda: Word.objects.bulk_update(
        [Word(text=text, note=text, uses=F("uses") + 7) for text in "abc"], ["uses"]
    ),
    "bulk_update() where some are": lambda: Word.objects.filter(uses__gte=0).bulk_update(
        [Word(text=text, note=text, uses=7) for text in "abcd"], ["uses"]
    ),
    "bulk_update() with one twice": lambda: Word.objects.bulk_update(
        [Word(text=text, note=text, uses=n) for n, text in enumerate("aabbc", 7)], ["uses"]
    ),
}


def _post_saves(receivers: Receivers, model: type[Model] = Word) -> list[Any]:
    """Return a list that collects what `post_save` gets; `pre_save` has no receiver."""
    seen: list[Any] = []
    receivers.connect(post_save, lambda instance, **arguments: seen.append(instance), model)
    return seen


def _set_note(word: Word) -> None:
    word.note = f"{word.note}, seen"


@pytest.mark.parametrize("hearing", ["post_save", "pre_save and post_save", "pre_save changes"])
@pytest.mark.parametrize("batch_size", [2000, 2])
@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
@pytest.mark.usefixtures("_row_b_stays")
def test_a_row_that_the_database_leaves_unchanged_gets_no_post_save(
    change: Callable[[], int], batch_size: int, hearing: str, receivers: Receivers
) -> None:
    seen = _post_saves(receivers)
    truth = receivers.check_truth(Word)
    if hearing != "post_save":
        receivers.before_saves(Word, _set_note if hearing == "pre_save changes" else str)
    before = Word.objects.get(text="b")
    with bulk_signals(batch_size=batch_size):
        assert change() == 2
    assert {word.pk[0] for word in seen} == {"a", "c"}
    assert set(truth) == {True}
    after = Word.objects.get(text="b")
    assert (after.uses, after.note) == (before.uses, before.note)


@pytest.mark.usefixtures("_row_b_stays")
def test_a_constant_shows_which_rows_were_written_if_the_database_decides_the_other_values(
    receivers: Receivers,
) -> None:
    seen = _post_saves(receivers)
    truth = receivers.check_truth(Word)
    receivers.before_saves(Word, str)
    assert Word.objects.update(uses=Func(Random() * 1000000, function="round"), note="new") == 2
    assert [word.text for word in seen] == ["a", "c"]
    assert set(truth) == {True}


def test_if_a_trigger_writes_other_values_receivers_only_get_values_that_rows_hold(
    receivers: Receivers,
) -> None:
    rows(Word, *({"text": text} for text in "abc"))
    _leave_out("UPDATE", "old.text = 'b'")
    with connection.cursor() as cursor:
        cursor.execute(SHOUTING[connection.vendor])
    seen = _post_saves(receivers)
    truth = receivers.check_truth(Word)
    receivers.before_saves(Word, str)
    assert Word.objects.update(note="new") == 2
    assert {word.text for word in seen} >= {"a", "c"}
    assert set(truth) == {True}


def test_a_row_that_the_database_leaves_unchanged_inside_a_receiver_of_another(receivers: Receivers) -> None:
    """Rows in flight count among the rows that are written again."""
    rows(Word, *({"text": text} for text in "abcd"))
    _leave_out("UPDATE", "old.text = 'b'")
    seen = _post_saves(receivers)

    def write_all(word: Word) -> None:
        Word.objects.update(uses=9)

    receivers.before_saves(Word, write_all)
    assert Word.objects.filter(text="a").update(note="new") == 1
    assert [word.text for word in seen] == ["c", "d", "a"]


def test_a_child_whose_parents_row_the_database_leaves_unchanged(receivers: Receivers) -> None:
    for text in "abc":
        Phrase.objects.create(text=text, length=1)
    _leave_out("UPDATE", "old.word_ptr_id = 'b'", "tests_phrase")
    seen = _post_saves(receivers, Phrase)
    assert Phrase.objects.update(length=F("length") + 1) == 2
    assert [(phrase.pk, phrase.length) for phrase in seen] == [("a", 2), ("c", 2)]


CREATIONS: dict[str, tuple[dict[str, Any], set[tuple[str, bool]]]] = {
    "plain": ({}, {("c", True), ("d", True)}),
    "ignore_conflicts": ({"ignore_conflicts": True}, {("c", True), ("d", True)}),
    "update_conflicts": (
        {"update_conflicts": True, "unique_fields": ["text"], "update_fields": ["uses"]},
        {("a", False), ("c", True), ("d", True)},
    ),
}


@pytest.mark.parametrize("batch_size", [2000, 1])
@pytest.mark.parametrize(("arguments", "expected"), CREATIONS.values(), ids=CREATIONS)
def test_a_row_that_is_not_inserted_gets_no_post_save(
    arguments: dict[str, Any], expected: set[tuple[str, bool]], batch_size: int, receivers: Receivers
) -> None:
    there = ["a"] if arguments else []
    rows(Word, *({"text": text} for text in there))
    _leave_out("INSERT", "new.text = 'b'")
    log = receivers.record(Word)
    objs = [Word(text=text, uses=5) for text in [*there, "c", "b", "d"]]
    with bulk_signals(batch_size=batch_size):
        Word.objects.bulk_create(objs, **arguments)
    assert len(log.of("pre_save")) == len(objs)
    assert {(sent.instance.pk, sent.arguments["created"]) for sent in log.of("post_save")} == expected
    assert set(Word.objects.values_list("text", flat=True)) == {*there, "c", "d"}


def test_an_upsert_that_is_left_out_gets_no_post_save(receivers: Receivers) -> None:
    rows(Word, *({"text": text} for text in "abc"))
    _leave_out("UPDATE", "old.text = 'b'")
    log = receivers.record(Word)
    upsert: dict[str, Any] = CREATIONS["update_conflicts"][0]
    Word.objects.bulk_create([Word(text=text, uses=5) for text in "abcd"], **upsert)
    assert [(sent.instance.pk, sent.arguments["created"]) for sent in log.of("post_save")] == [
        ("a", False),
        ("c", False),
        ("d", True),
    ]
    assert list(Word.objects.order_by("text").values_list("uses", flat=True)) == [5, 0, 5, 5]


@pytest.mark.skipif("connection.vendor != 'sqlite'", reason="no other database writes a row twice")
def test_an_upsert_that_is_left_out_beside_two_that_insert_one_row(receivers: Receivers) -> None:
    rows(Word, *({"text": text} for text in "ab"))
    _leave_out("UPDATE", "old.text = 'b'")
    log = receivers.record(Word)
    upsert: dict[str, Any] = CREATIONS["update_conflicts"][0]
    Word.objects.bulk_create([Word(text=text, uses=n) for n, text in enumerate("zzba", 1)], **upsert)
    assert [(sent.instance.pk, sent.arguments["created"]) for sent in log.of("post_save")] == [
        ("z", True),
        ("z", False),
        ("a", False),
    ]
    assert list(Word.objects.order_by("text").values_list("uses", flat=True)) == [4, 0, 2]


def test_django_itself_fails_if_a_row_with_a_generated_key_is_not_inserted(receivers: Receivers) -> None:
    _leave_out("INSERT", "new.speed = 2", "tests_ship")
    ships = [Ship(speed=speed) for speed in (1, 2, 3)]
    with no_bulk_signals(), transaction.atomic():
        expected = refusal(lambda: Ship.objects.bulk_create(ships))
    receivers.record(Ship)
    assert expected is not None
    assert refusal(lambda: Ship.objects.bulk_create([Ship(speed=speed) for speed in (1, 2, 3)])) == expected
