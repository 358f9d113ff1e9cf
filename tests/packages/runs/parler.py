"""Texts in a table of translations, and a cache of them."""

from __future__ import annotations

from collections.abc import Iterator

from django.db import models
from django.db.models.signals import post_save
from parler.models import TranslatableModel, TranslatedFields

from signal_patch import bulk_signals
from tests.packages.comparing import Claim, Heard


class Book(TranslatableModel):
    translations = TranslatedFields(title=models.CharField(max_length=10))


def run() -> Iterator[Claim]:
    translation = Book.translations.rel.related_model
    heard = Heard(lambda text: (text.language_code, text.title), post_save, sender=translation)
    book = Book.objects.language("en").create(title="old")
    heard()
    translation.objects.update(title="off")
    yield Claim("off: nothing is sent of translations", heard(), [])
    with bulk_signals():
        translation.objects.update(title="on")
    yield Claim("on: receivers of the translation's model hear", heard(), [("en", "on")])
    yield Claim(
        "its cache, which save() itself fills, is stale after an update(), off and on",
        Book.objects.get(pk=book.pk).title,
        "old",
    )
