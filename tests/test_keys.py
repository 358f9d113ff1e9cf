"""Primary keys of other types than integers: they reach a statement unchanged, or it is refused."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest
from django.db import connection

from signal_patch import bulk_signals, no_bulk_signals
from tests.fleet import column, rows
from tests.key_models import Country, Coupon, Passage, Phrase, Stall, Tariff, Translation, Word
from tests.refusals import refusal

if TYPE_CHECKING:
    from collections.abc import Callable

    from django.db.models import Model

    from tests.recording import Receivers

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("everything_on")]

# Characters that JSON, an array or a statement may treat specially.
AWKWARD = [*"""'"\\{},%$;:/#()[]?*_`~""", "%s", "\\0", "\\u0000", "NULL", "a,b", 'a"b', "a'b", "{a}"]
AWKWARD += [
    "\t",
    "\n",
    "\x01x",
    "\x7f",
    "é",
    "日本",
    "\U0001f600",
    "\ufffd",
    "\ufeffz",
    "\ue000",
    "a b",
]
WITH_NUL = ["a\0b", "\0", "\0c", "c\0"]
OTHERS = ["a", "c", "w"]


def _texts() -> list[str]:
    awkward = {
        "sqlite": [*AWKWARD, *WITH_NUL],
        # On the servers, text cannot contain NUL, and MariaDB's collation treats some letters as equal.
        "postgresql": AWKWARD,
        "mysql": [text for text in AWKWARD if text.isascii() and text.isprintable()],
    }[connection.vendor]
    return [*awkward, *(f"w{n}" for n in range(60))]


def _words(*texts: str) -> None:
    rows(Word, *({"text": text} for text in texts))


@pytest.mark.parametrize("batch_size", [2000, 60], ids=["one batch", "two"])
@pytest.mark.parametrize(
    ("model", "name"),
    [(Word, "text"), (Phrase, "text"), (Translation, "word_id"), (Passage, "text"), (Country, "code")],
)
def test_texts_of_all_kinds_name_their_rows_and_no_others(
    model: Any, name: str, batch_size: int, receivers: Receivers
) -> None:
    if not all(getattr(connection.features, name) for name in model._meta.required_db_features):
        pytest.skip("this database has no such keys")
    chosen = _texts() if model is not Country else [f"w{n}" for n in range(80)]
    with no_bulk_signals():
        if model is Translation:
            _words(*chosen, *OTHERS)
        for text in (*chosen, *OTHERS):
            model(**{name: text}).save(force_insert=True)
    log = receivers.record(model)
    with bulk_signals(batch_size=batch_size):
        assert model.objects.exclude(pk__in=OTHERS).update(uses=1) == len(chosen)
    assert {sent.instance.pk.rstrip(" ") for sent in log.of("post_save")} == {t.rstrip(" ") for t in chosen}
    assert sorted(model.objects.filter(uses=0).values_list("pk", flat=True)) == [
        text.ljust(5) if model is Country and connection.vendor == "postgresql" else text for text in OTHERS
    ]


def _noting(obj: Any) -> None:
    obj.note = "seen"


def test_a_text_longer_than_its_column_names_no_row(receivers: Receivers) -> None:
    """If it were cut to the length of the column, it would name another row."""
    texts = [f"w{n}" for n in range(60)]
    _words(*texts, "abcdefghij")
    receivers.before_saves(Word, _noting)
    log = receivers.record(Word)
    objs = [Word(text=text, uses=1) for text in (*texts, "abcdefghijk")]
    assert Word.objects.bulk_update(objs, ["uses"]) == 60
    assert {sent.instance.pk for sent in log.of("post_save")} == {*texts}
    assert Word.objects.get(text="abcdefghij").uses == 0
    assert Word.objects.get(text="abcdefghij").note == ""
    assert Word.objects.filter(uses=1, note="seen").count() == 60


def test_a_number_too_large_for_its_column_names_no_row(receivers: Receivers) -> None:
    numbers = range(0, 120, 2)
    rows(Coupon, *({"number": number} for number in numbers))
    receivers.before_saves(Coupon, _noting)
    log = receivers.record(Coupon)
    objs = [Coupon(number=number, uses=1) for number in (*numbers, 70_000)]
    assert Coupon.objects.bulk_update(objs, ["uses"]) == 60
    assert [sent.instance.pk for sent in log.of("post_save")] == [*numbers]
    assert Coupon.objects.filter(uses=1, note="seen").count() == 60


@pytest.mark.parametrize("number", [2**63, -(2**63) - 1])
def test_a_number_too_large_for_any_column_is_treated_as_in_django(number: int, receivers: Receivers) -> None:
    numbers = range(0, 120, 2)
    rows(Coupon, *({"number": number} for number in numbers))

    def change() -> int:
        objs = [Coupon(number=number, uses=1) for number in (*numbers, number)]
        return Coupon.objects.bulk_update(objs, ["uses"])

    with no_bulk_signals():
        expected = refusal(change)
    receivers.before_saves(Coupon, _noting)
    receivers.record(Coupon)
    assert refusal(change) == expected


@pytest.mark.parametrize("count", [1, 60])
@pytest.mark.parametrize(
    ("model", "key", "stored"),
    [
        (Tariff, lambda rate: {"rate": rate}, lambda rate: rate),
        (Stall, lambda rate: {"market": "x", "number": rate}, lambda rate: ("x", rate)),
    ],
    ids=["alone", "part of a key"],
)
def test_a_decimal_is_not_rounded_on_its_way_to_the_row(
    model: type[Model],
    key: Callable[[Any], dict[str, Any]],
    stored: Callable[[Decimal], Any],
    count: int,
    receivers: Receivers,
) -> None:
    rates = [Decimal(n) / 100 for n in range(100, 100 + 2 * count, 2)]
    rows(model, *(key(rate) for rate in (*rates, Decimal("0.50"))))
    log = receivers.record(model)
    objs = [model(**key(rate + Decimal("0.001")), uses=1) for rate in rates]
    assert model._default_manager.bulk_update([*objs, model(**key("0.5"), uses=2)], ["uses"]) == 1
    assert column(model, "uses") == [2, *[0] * count]
    assert len(log.of("pre_save")) == count + 1
    assert [sent.instance.pk for sent in log.of("post_save")] == [stored(Decimal("0.50"))]
    assert str(log.of("post_save")[0].values["rate" if model is Tariff else "number"]) == "0.50"
    assert [obj.pk for obj in objs] == [stored(rate + Decimal("0.001")) for rate in rates]


def test_many_decimals_name_their_rows(receivers: Receivers) -> None:
    rows(Tariff, *({"rate": Decimal(n) / 100} for n in range(140)))
    chosen = [Decimal(n) / 100 for n in range(0, 140, 2)]
    log = receivers.record(Tariff)
    assert Tariff.objects.filter(rate__in=chosen).update(uses=1) == 70
    assert [sent.instance.pk for sent in log.of("post_save")] == chosen
    assert list(Tariff.objects.filter(uses=1).order_by("rate").values_list("rate", flat=True)) == chosen
