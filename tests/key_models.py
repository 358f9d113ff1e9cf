"""Models whose keys are not just integers that the database generates."""

from __future__ import annotations

from typing import Any

from django.db import models

from tests.fields import CodeField, NumberField


class Word(models.Model):
    text = models.CharField(max_length=10, primary_key=True)
    uses = models.IntegerField(default=0)
    note = models.CharField(max_length=30, default="")


class Phrase(Word):
    """A child with a table of its own, found by the key of its parent."""

    length = models.IntegerField(default=0)


class Translation(models.Model):
    """Its key refers to the row of another table."""

    word = models.OneToOneField(Word, models.CASCADE, primary_key=True)
    uses = models.IntegerField(default=0)


class Passage(models.Model):
    """Text without a length is its key."""

    text = models.TextField(primary_key=True)
    uses = models.IntegerField(default=0)

    class Meta:
        # MySQL and MariaDB have no keys of unlimited length.
        required_db_features = ("supports_index_on_text_field",)


class Country(models.Model):
    """Its key is padded with blanks where the database has columns of a fixed length."""

    code = CodeField(max_length=5, primary_key=True)
    uses = models.IntegerField(default=0)


class Coupon(models.Model):
    number = models.SmallIntegerField(primary_key=True)
    uses = models.IntegerField(default=0)
    note = models.CharField(max_length=30, default="")


class Docket(models.Model):
    """Its keys are not hashable."""

    number: models.Field[Any, Any] = NumberField(primary_key=True)
    uses = models.IntegerField(default=0)


class Tariff(models.Model):
    rate = models.DecimalField(max_digits=6, decimal_places=2, primary_key=True)
    uses = models.IntegerField(default=0)


class Stall(models.Model):
    pk = models.CompositePrimaryKey("market", "number")
    market = models.CharField(max_length=5)
    number = models.DecimalField(max_digits=6, decimal_places=2)
    uses = models.IntegerField(default=0)


class Legacy(models.Model):
    """Tests that need its table create it, without the primary key that the model declares."""

    code = models.CharField(max_length=10, primary_key=True)
    size = models.IntegerField(null=True)
    of: models.Field[Any, Any] = models.ForeignKey(
        Word, models.SET_NULL, null=True, db_constraint=False, related_name="legacies"
    )

    class Meta:
        managed = False
        db_table = "legacy"


class LegacyPair(models.Model):
    """The same with a key of two columns."""

    pk = models.CompositePrimaryKey("code", "number")
    code = models.CharField(max_length=10)
    number = models.IntegerField()
    size = models.IntegerField(null=True)

    class Meta:
        managed = False
        db_table = "legacy_pair"
