"""How models are named, and which models a name covers.

A spec is a model class, or a label: "app_label" always, "app_label.model" until the registry is ready.
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from inspect import isclass
from typing import TypeAlias

from django.apps import apps
from django.db.models import Model

Spec: TypeAlias = type[Model] | str

# What "every model" is: each of them inherits from it.
EVERYTHING: Spec = Model


def named(words: Iterable[Spec], argument: str = "exclude") -> tuple[Spec, ...]:
    """
    Return the specs that these words stand for; `argument` is what they were given as.

    TypeError: no collection, or in it what is neither a model class nor a string. ValueError: a string that
    can be no label. LookupError, once the models are loaded: a label that no model or app has; the message
    lists what is there.
    """
    if isinstance(words, str) or not isinstance(words, Iterable):
        # Models that are to be on are arguments of their own, and so always a tuple.
        raise TypeError(
            f"{argument} must be a collection of models, such as ['shop.Price'], not {_shown(words)}"
        )
    return tuple(_spec(word) for word in words)


def resolved(spec: Spec) -> Spec:
    """Return the model class of a label that names a model; the models must be loaded."""
    if not isinstance(spec, str):
        return spec
    app_label, _, model_name = spec.partition(".")
    _check_app(spec, app_label)
    return _model(spec, app_label, model_name) if model_name else spec


def covers(spec: Spec, target: Spec) -> bool:
    """Say whether `spec` stands for all of `target`."""
    if spec is EVERYTHING:
        return True
    if isinstance(spec, str):
        return _lowered(spec) in _labels(target)
    if isinstance(target, str):
        return False
    return issubclass(target, spec)


def is_never_signalled(model: Spec) -> bool:
    """Say whether Django itself sends none (automatic tables), or it is a migration's model of the past."""
    options = getattr(model, "_meta", None)
    if options is None:
        # The base of all models, and labels, have none; nor has the None of a queryset without a model.
        return not isinstance(model, str | type)
    # A proxy is as its model in this (Model.save_base, Django 5.2 to 6.1); what is abstract has none.
    automatic = options.concrete_model is not None and options.concrete_model._meta.auto_created
    return bool(automatic) or _is_historical(options.apps)


def is_permanent(model: Spec) -> bool:
    """Say whether the registry keeps the model for as long as the process runs."""
    options = getattr(model, "_meta", None)
    return options is not None and apps.all_models.get(options.app_label, {}).get(options.model_name) is model


def _is_historical(registry: object) -> bool:
    if registry is apps:
        return False
    # Not at the top: a settings file that imports this package must not import the migrations as well.
    from django.db.migrations.state import StateApps

    return isinstance(registry, StateApps)


def _labels(target: Spec) -> set[str]:
    """Return every label that stands for the target."""
    if isinstance(target, str):
        return {_lowered(target), target.partition(".")[0]}
    options = [vars(base)["_meta"] for base in target.__mro__ if "_meta" in vars(base)]
    return {label for option in options for label in (option.app_label, option.label_lower)}


def _lowered(label: str) -> str:
    """Return the label as Django compares it: the model's name in lower case, the app's as it is."""
    app_label, dot, model_name = label.partition(".")
    return f"{app_label}{dot}{model_name.lower()}"


def _spec(word: Spec) -> Spec:
    if isinstance(word, str):
        _check_label(word)
        return resolved(word) if apps.models_ready else word
    if isclass(word) and issubclass(word, Model):
        return word
    raise TypeError(f"{_shown(word)} is neither a model class nor a label: 'app_label.Model' or 'app_label'")


def _check_label(word: str) -> None:
    parts = word.split(".")
    if len(parts) > 2 or not all(part.isidentifier() for part in parts):
        raise ValueError(f"{word!r} is no label; valid are 'app_label.Model' and 'app_label'")


def _check_app(label: str, app_label: str) -> None:
    if app_label not in apps.app_configs:
        choice = _choice(app_label, apps.app_configs)
        raise LookupError(f"{label!r}: no installed app has the label {app_label!r}{choice}")


def _model(label: str, app_label: str, model_name: str) -> type[Model]:
    models = apps.all_models[app_label]
    if model_name.lower() not in models:
        names = [model.__name__ for model in models.values() if not model._meta.auto_created]
        raise LookupError(f"{label!r}: app {app_label!r} has no such model{_choice(model_name, names)}")
    return models[model_name.lower()]


def _choice(wrong: str, valid: Iterable[str]) -> str:
    names = sorted(valid)
    close = get_close_matches(wrong, names, n=1)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    return f"{hint} (valid are {', '.join(names) or 'none'})"


def _shown(word: object) -> str:
    return word.__qualname__ if isclass(word) else repr(word)
