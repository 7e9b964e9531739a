"""Completions of values on the command line: jobs of the ledger, providers of the config, parameters and models.

They never fail: what cannot be read completes nothing.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    import click

    from pipeline.config.load import Config
    from pipeline.models.table import Models


def complete_jobs(context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[str]:
    """Return the names of the jobs in the ledger that begin so, sorted by name."""
    from pipeline import ledger
    from pipeline.errors import PipelineError
    from pipeline.ledger.job_names import read_names

    config = _config(context)
    with contextlib.suppress(PipelineError, OSError):
        if config is not None:
            with ledger.reading(config.output) as connection:
                return _beginning(incomplete, read_names(connection))
    return []


def complete_providers(context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[str]:
    """Return the names of the providers and routes in the config that begin so."""
    config = _config(context)
    return [] if config is None else _beginning(incomplete, config.services)


def complete_settings(context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[str]:
    """Return the parameters that begin so, with `=`; after that, the models or the values that begin so."""
    from pipeline.errors import PipelineError
    from pipeline.models.table import Models, known_parameters

    name, separator, value = incomplete.partition("=")
    if not separator:
        return _beginning(name, (f"{parameter}=" for parameter in sorted({"model", *known_parameters()})))
    config = _config(context)
    try:
        models = Models.load(config.models if config else None)
    except PipelineError:
        models = Models.load()
    known = models.by_name if name == "model" else _values(models, name)
    return [f"{name}={choice}" for choice in _beginning(value, known)]


def _values(models: Models, parameter: str) -> Iterable[str]:
    rules = [model.parameters[parameter] for model in models.by_name.values() if parameter in model.parameters]
    return dict.fromkeys(value for rule in rules if not rule.refused for value in rule.values)


def _config(context: click.Context) -> Config | None:
    """Return the config that the options so far lead to, None if it cannot be read."""
    from pipeline.errors import PipelineError

    with contextlib.suppress(PipelineError, OSError):
        config: Config = context.obj.load()
        return config
    return None


def _beginning(start: str, known: Iterable[str]) -> list[str]:
    return [word for word in known if word.startswith(start)]
