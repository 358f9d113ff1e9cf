"""What django-modeltranslation reads once the models are loaded."""

from __future__ import annotations

from modeltranslation.translator import TranslationOptions, translator

from .runs.modeltranslation import Book


class BookTranslation(TranslationOptions):
    fields = ("title",)


translator.register(Book, BookTranslation)
