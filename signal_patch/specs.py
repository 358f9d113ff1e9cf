"""How models are named, and which models a name covers.

A spec is a model class or a label. `"app_label"` stays a label. `"app_label.Model"` becomes the model class
once the models are loaded.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from difflib import get_close_matches
from inspect import isclass, isroutine
from typing import Any, TypeAlias

from django.apps import apps
from django.db.models import Model, QuerySet
from django.db.models.manager import BaseManager

Spec: TypeAlias = type[Model] | str

# The spec for every model, since each model inherits from it.
EVERYTHING: Spec = Model


def named(words: Iterable[Spec], argument: str = "exclude") -> tuple[Spec, ...]:
    """Return the specs for these classes and labels; `argument` is the name of the argument that held them.

    Raises TypeError if they are not a collection, or if one is neither a model class nor a string. Raises
    ValueError for a string that cannot be a label. Once the models are loaded, raises LookupError for a label
    that no model or app has; the message lists the valid ones.
    """
    if isinstance(words, str | QuerySet) or not isinstance(words, Iterable):
        # Models to turn on are positional arguments, which always form a tuple.
        raise TypeError(
            f"{argument} must be a collection of models, such as ['shop.Price'], not {_described(words)[0]}"
        )
    return tuple(_spec(word) for word in words)


def resolved(spec: Spec) -> Spec:
    """Return the model class if the spec is a model's label, else the spec. The models must be loaded."""
    if not isinstance(spec, str):
        return spec
    app_label, _, model_name = spec.partition(".")
    _check_app(spec, app_label)
    return _model(spec, app_label, model_name) if model_name else spec


def label_of(spec: Spec) -> str:
    """Return the label of a spec, or "every model" for the spec of every model."""
    if isinstance(spec, str):
        return spec
    return "every model" if spec is EVERYTHING else spec._meta.label


def covers(spec: Spec, target: Spec) -> bool:
    """Return whether `spec` covers all of `target`."""
    if spec is EVERYTHING:
        return True
    if isinstance(spec, str):
        return _lowered(spec) in _labels(target)
    if isinstance(target, str):
        return False
    return issubclass(target, spec)


def is_never_signalled(model: Spec) -> bool:
    """Return whether a model never sends signals: an auto-created table, or a historical model."""
    options = getattr(model, "_meta", None)
    if options is None:
        # `Model` itself and labels have no `_meta`, nor has the None of a queryset without a model.
        return not isinstance(model, str | type)
    # A proxy behaves like its concrete model here (Model.save_base, Django 5.2 to 6.1). An abstract model has
    # no concrete model.
    automatic = options.concrete_model is not None and options.concrete_model._meta.auto_created
    return bool(automatic) or _is_historical(options.apps)


def is_permanent(model: Spec) -> bool:
    """Return whether the app registry keeps the model as long as the process runs."""
    options = getattr(model, "_meta", None)
    return options is not None and apps.all_models.get(options.app_label, {}).get(options.model_name) is model


def _is_historical(registry: object) -> bool:
    if registry is apps:
        return False
    # Imported here, so that a settings file that imports this package does not import Django's migrations.
    from django.db.migrations.state import StateApps

    return isinstance(registry, StateApps)


def _labels(target: Spec) -> set[str]:
    """Return every label that stands for the target."""
    if isinstance(target, str):
        return {_lowered(target), target.partition(".")[0]}
    options = [vars(base)["_meta"] for base in target.__mro__ if "_meta" in vars(base)]
    return {label for option in options for label in (option.app_label, option.label_lower)}


def _lowered(label: str) -> str:
    """Return a label as Django compares it: the model name in lower case, the app label unchanged."""
    app_label, dot, model_name = label.partition(".")
    return f"{app_label}{dot}{model_name.lower()}"


def _spec(word: Any) -> Spec:
    if isinstance(word, str):
        _check_label(word)
        return resolved(word) if apps.models_ready else word
    if isclass(word) and issubclass(word, Model):
        return word
    what, instead = _described(word)
    raise TypeError(f"{what} is neither a model class nor a label: {instead}")


def _described(word: Any) -> tuple[str, str]:
    """Return a description of a wrong argument, and what to write instead.

    Never uses the `repr()` of a queryset, an instance or a list of them, which runs queries or shows data.
    """
    if isinstance(word, QuerySet | BaseManager):
        model = getattr(word.model, "__qualname__", "no model")
        return f"a {type(word).__name__} of {model}", f"give the model, {model}"
    if isinstance(word, Model):
        model = type(word).__qualname__
        return f"an instance of {model}", f"give its class, {model}"
    if isroutine(word):
        return (
            f"the function {word.__qualname__}",
            "to decorate it, write the parentheses, as in @bulk_signals()",
        )
    if isinstance(word, Collection) and not isinstance(word, str):
        return (
            f"a {type(word).__name__}",
            "give each model as an argument of its own, as in enable('shop.Book', 'shop.Price')",
        )
    return (word.__qualname__ if isclass(word) else repr(word)), "'app_label.Model' or 'app_label'"


def _check_label(word: str) -> None:
    parts = word.split(".")
    if len(parts) > 2 or not all(part.isidentifier() for part in parts):
        meant = _label_of_path(word)
        hint = f" did you mean {meant!r}?" if meant else ""
        raise ValueError(f"{word!r} is not a label;{hint} valid are 'app_label.Model' and 'app_label'")


def _label_of_path(path: str) -> str:
    """Guess which label is meant by the import path of an app or of a model class, or return ""."""
    for config in apps.app_configs.values():
        if config.name == path:
            return config.label
    package, models, rest = path.rpartition(".models.")
    return f"{package.rpartition('.')[2]}.{rest.rpartition('.')[2]}" if models else ""


def _check_app(label: str, app_label: str) -> None:
    if app_label not in apps.app_configs:
        # Someone may have given the name of a model without its app.
        named_so = [
            model._meta.label for model in apps.get_models() if model._meta.model_name == label.lower()
        ]
        hint = f"; did you mean {named_so[0]!r}?" if named_so else suggestion(app_label, apps.app_configs)
        raise LookupError(f"{label!r}: no installed app has the label {app_label!r}{hint}")


def _model(label: str, app_label: str, model_name: str) -> type[Model]:
    models = apps.all_models[app_label]
    if model_name.lower() not in models:
        names = [model.__name__ for model in models.values() if not model._meta.auto_created]
        raise LookupError(f"{label!r}: app {app_label!r} has no such model{suggestion(model_name, names)}")
    return models[model_name.lower()]


def suggestion(wrong: str, names: Iterable[str]) -> str:
    """Return the end of a message about a wrong name: the closest valid name, and all valid names."""
    valid = sorted(names)
    meant = closest(wrong, valid)
    listed = f"valid are {', '.join(valid) or 'none'}"
    return f"; did you mean {meant!r}? ({listed})" if meant else f"; {listed}"


def closest(wrong: str, valid: Iterable[str]) -> str | None:
    """Return the valid name that is closest to a wrong one, whatever the case, or None."""
    by_lowered = {name.lower(): name for name in valid}
    return next((by_lowered[name] for name in get_close_matches(wrong.lower(), by_lowered, n=1)), None)
