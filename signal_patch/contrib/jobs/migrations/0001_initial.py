from __future__ import annotations

from typing import Any

import django.db.models.deletion
from django.db import migrations, models


def key() -> models.Field[Any, Any]:
    return models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")


class Migration(migrations.Migration):
    initial = True
    dependencies = ()
    operations = (
        migrations.CreateModel(
            name="Job",
            fields=[
                ("id", key()),
                ("name", models.CharField(max_length=200)),
                ("model", models.CharField(max_length=200)),
                ("parameters", models.JSONField(default=dict)),
                ("sql", models.TextField()),
                ("fingerprint", models.CharField(max_length=64)),
                ("engine", models.CharField(max_length=200)),
                ("runners", models.PositiveIntegerField()),
                (
                    "on_error",
                    models.CharField(
                        choices=[("stop", "Stop"), ("skip", "Skip")], default="stop", max_length=10
                    ),
                ),
                (
                    "status",
                    models.CharField(
                        choices=[
                            ("running", "Running"),
                            ("paused", "Paused"),
                            ("cancelled", "Cancelled"),
                            ("failed", "Failed"),
                            ("changed", "Changed"),
                            ("done", "Done"),
                        ],
                        default="running",
                        max_length=10,
                    ),
                ),
                ("started_by", models.CharField(blank=True, max_length=150)),
                ("first_key", models.TextField(null=True)),
                ("last_key", models.TextField(null=True)),
                ("error", models.TextField(blank=True)),
                ("created", models.DateTimeField(auto_now_add=True)),
                ("sent", models.DateTimeField(auto_now_add=True)),
                ("finished", models.DateTimeField(null=True)),
            ],
        ),
        migrations.CreateModel(
            name="FailedRow",
            fields=[
                ("id", key()),
                ("key", models.TextField()),
                ("error", models.TextField()),
                ("traceback", models.TextField()),
                ("skipped", models.BooleanField()),
                ("created", models.DateTimeField(auto_now_add=True)),
                (
                    "job",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="failed_rows",
                        to="signal_patch_jobs.job",
                    ),
                ),
            ],
        ),
        migrations.CreateModel(
            name="Lane",
            fields=[
                ("id", key()),
                ("after", models.TextField(null=True)),
                ("upto", models.TextField()),
                ("cursor", models.TextField(null=True)),
                ("done", models.BooleanField(default=False)),
                ("rows", models.PositiveBigIntegerField(default=0)),
                ("steps", models.PositiveIntegerField(default=0)),
                ("seconds", models.FloatField(default=0)),
                ("step_size", models.PositiveIntegerField()),
                ("row_seconds", models.FloatField(null=True)),
                ("attempts", models.PositiveIntegerField(default=0)),
                ("error", models.TextField(blank=True)),
                ("worker", models.CharField(blank=True, max_length=200)),
                ("stepped", models.DateTimeField(null=True)),
                (
                    "job",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="lanes",
                        to="signal_patch_jobs.job",
                    ),
                ),
            ],
        ),
    )
