"""Expand dynamic prompts, `{a|b}` and `__wildcard__`, with the library dynamicprompts of the extra [dynamic]."""

from __future__ import annotations

import functools
import hashlib
import logging
import random
import warnings
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pipeline.planning.identity import canonical
from pipeline.planning.templates import MAX_CHARACTERS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

FOLDER = "wildcards"
"""The folder of wildcard files, beside the job or else beside the config."""

NOT_INSTALLED = '`prompts: dynamic` needs a library that is not installed: pip install "image-batch-pipeline[dynamic]"'

COMMENT = "in a dynamic prompt `#` begins a comment, which is left out up to the end of its line"

_MAX_LOOKUPS = 10_000
"""Wildcards that one prompt may use: files may name each other without an end."""


@dataclass(slots=True)
class DynamicPrompts:
    """Expands the dynamic prompts of one job. The first of `folders` that is there holds its wildcard files."""

    folders: Sequence[Path] = ()
    _sample: Callable[[str, int], str] | None = field(default=None)

    @classmethod
    def beside(cls, job: Path, config: Path | None) -> DynamicPrompts:
        """Return the expansion of prompts whose wildcard files are in a folder beside the job, or else the config."""
        return cls([parent / FOLDER for parent in dict.fromkeys((job, config)) if parent is not None])

    def expand(self, template: str, variables: Mapping[str, Any], occurrence: int) -> str:
        """Return one prompt: always the same one for equal arguments, with one version of the library and the files.

        `occurrence` is which one this is among equal requests. Raises ValueError with the reason.
        """
        if not any(sign in template for sign in ("{", "__", "}")):
            return template
        if self._sample is None:
            folder = next((candidate for candidate in self.folders if candidate.is_dir()), None)
            self._sample = _load(folder, self.folders)
        rank = hashlib.sha256(canonical([template, variables, occurrence]).encode("utf-8", "surrogatepass")).digest()
        return self._sample(template, int.from_bytes(rank[:8]))


def _load(folder: Path | None, folders: Sequence[Path]) -> Callable[[str, int], str]:
    """Return the function that samples a template with a seed. Raises ValueError if the library is not installed."""
    try:
        from dynamicprompts.enums import SamplingMethod
        from dynamicprompts.parser.parse import parse
        from dynamicprompts.sampling_context import SamplingContext
        from dynamicprompts.wildcards import WildcardManager
        from pyparsing import ParseBaseException
    except ImportError:
        raise ValueError(NOT_INSTALLED) from None
    logging.getLogger("dynamicprompts").addHandler(logging.NullHandler())  # else it prints on stderr
    parsed = functools.lru_cache(maxsize=1024)(parse)  # of which one takes milliseconds

    class Wildcards(WildcardManager):
        """The wildcard files; one that is missing is an error, and so are files that name each other endlessly."""

        lookups = 0

        def get_values(self, wildcard: str) -> Any:
            """Return the values of a wildcard. Raises ValueError if it has none."""
            self.lookups += 1
            if self.lookups > _MAX_LOOKUPS:
                raise ValueError(f"uses more than {_MAX_LOOKUPS:,} wildcards; do their files name each other?")
            values = super().get_values(wildcard)
            if not any(map(str.strip, values.string_values)):
                raise ValueError(_missing(wildcard, folder, folders))
            return values

    wildcards = Wildcards(folder)

    def sample(template: str, seed: int) -> str:
        wildcards.lookups = 0
        context = SamplingContext(SamplingMethod.RANDOM, wildcards, rand=random.Random(seed))
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                text = str(next(iter(context.sample_prompts(parsed(template), 1)), ""))
        except ParseBaseException as reason:
            raise ValueError(f"is no dynamic prompt: {reason}") from None
        except RecursionError:
            raise ValueError("cannot be expanded: its wildcards name each other") from None
        except (AssertionError, LookupError, RuntimeError, TypeError) as reason:
            raise ValueError(f"cannot be expanded: {reason!s:.200}") from None
        if len(text) > MAX_CHARACTERS:
            raise ValueError(f"expands to more than {MAX_CHARACTERS:,} characters")
        return text

    return sample


def _missing(wildcard: str, folder: Path | None, folders: Sequence[Path]) -> str:
    name = wildcard.strip("_")
    if folder is None:
        places = " or ".join(str(candidate) for candidate in folders) or f"a folder `{FOLDER}` beside the job"
        return f"wildcard `__{name:.100}__`: there is no {places}; write its values into {name:.100}.txt there"
    return f"wildcard `__{name:.100}__` has no values in {folder}: write them into {name:.100}.txt there, one a line"
