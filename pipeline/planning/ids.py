"""Assign each request an id that is unique in its job, without regard to case."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pipeline.planning import identity
from pipeline.planning.templates import is_template

if TYPE_CHECKING:
    from pipeline.planning.diagnostics import Diagnostics, ExpandedRequest
    from pipeline.planning.input_files import InputFile
    from pipeline.planning.job import Entry
    from pipeline.planning.plan import ImageRequest


@dataclass(slots=True)
class RequestIds:
    """The ids of one job's requests: given by the job, or generated."""

    diagnostics: Diagnostics
    _given: dict[str, tuple[Entry, int | None]] = field(default_factory=dict)
    """Key → entry and line of the row, of requests whose id the job gives."""

    def assign(
        self, expanded: ExpandedRequest, key: str, part: int, prompt: str | None, inputs: tuple[InputFile, ...]
    ) -> str:
        """Return the id of a part of a request; a given id that cannot name files is recorded as a problem."""
        given = expanded.fields.get("id")
        if given is None:
            return identity.generated_id(prompt, inputs[0].source if inputs else None, key)
        self._given[key] = (expanded.entry, expanded.line)
        name = identity.part_id(given, part)
        if not identity.is_name(name):
            message = f"`{name:.120}` cannot name files: {identity.NAME_RULE}"
            self.diagnostics.add_field_problem(expanded, "id", message)
        return name

    def make_unique(self, requests: list[ImageRequest]) -> None:
        """Lengthen generated ids that collide; record a problem for ids that the job gives twice."""
        seen: dict[str, int] = {}
        for index, request in enumerate(requests):
            first = seen.setdefault(request.id.lower(), index)
            if first == index:
                continue
            earlier, given = self._given.get(requests[first].key), self._given.get(request.key)
            if earlier is not None and given is not None:
                where = self.diagnostics.location(*earlier, "id")
                message = f"`{request.id}` is also the id at {where}; ids are unique, without regard to case"
                if earlier[0] is given[0] and request.variables and not is_template(given[0].fields.get("id")):
                    message += f": write, for example, `{request.id}-{{{{ {next(iter(request.variables))} }}}}`"
                self.diagnostics.add_entry_problem(*given, "id", message)
            for position in (first, index):
                if requests[position].key not in self._given:
                    longer = identity.longer_id(requests[position].id, requests[position].key)
                    requests[position] = dataclasses.replace(requests[position], id=longer)
