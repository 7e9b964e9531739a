"""A draft's pictures → `InputFile`s, and what of them enters the content key."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pipeline.errors import ImageError
from pipeline.models.model import default_requirements

if TYPE_CHECKING:
    from pathlib import Path

    from pipeline.images.options import ImageOptions
    from pipeline.images.prepare import PreparedInput
    from pipeline.images.prepared_cache import PreparedCache
    from pipeline.images.source import ImageSource
    from pipeline.planning.expand import Draft, Findings

_CONTENT_TYPES = {"png": "image/png", "jpeg": "image/jpeg", "webp": "image/webp", "gif": "image/gif"}


@dataclass(frozen=True, slots=True)
class InputFile:
    """A picture that goes along with a request. `file` is relative to the job's folder; width and height in pixels."""

    role: str
    source: str
    file: str
    sha256: str
    content_type: str
    width: int
    height: int


@dataclass(slots=True)
class InputImages:
    """The pictures of one job's requests. Prepared ones are kept below `spool`, where one is given."""

    findings: Findings
    spool: Path | None
    _inputs: PreparedCache | None = None  # made when the first picture comes: Pillow stays out of jobs without any

    def read(self, draft: Draft) -> tuple[ImageOptions | None, list[ImageSource]]:
        """Read what a request says of its pictures; nothing is opened yet."""
        fields = draft.fields
        if fields.keys().isdisjoint({"image", "mask", "fit", "resize"}):
            return None, []
        from pipeline.images.options import parse_image_options
        from pipeline.images.source import ImageSource

        given = fields.get("image")
        sources = []
        for value in given if isinstance(given, list) else [] if given is None else [given]:
            try:
                sources.append(ImageSource.of(value, folder=self.findings.job.folder))
            except ImageError as error:
                self._wrong(draft, error)
        options, complaints = parse_image_options(
            fields.get("fit"), fields.get("resize"), fields.get("mask"), self.findings.job.folder
        )
        for complaint in complaints:
            self.findings.wrong_field(draft, complaint.field, complaint.message)
        return options, sources

    def prepare(
        self, draft: Draft, options: ImageOptions | None, images: list[ImageSource], operation: str
    ) -> tuple[tuple[InputFile, ...], list[Any]]:
        """Make the pictures ready; give them, and what of them enters the content key."""
        if options is None or not images:
            return (), []
        from pipeline.images.prepared_cache import PreparedCache, write_inputs

        self._inputs = self._inputs or PreparedCache()
        model = draft.model
        requirements = model.image_requirements(operation) if model else default_requirements()
        try:
            prepared = self._inputs.prepare(images, options, requirements, model.name if model else None)
            sources = [*(one.source_sha256 for one in prepared if one.role == "image"), options.canonical()]
        except ImageError as error:
            self._wrong(draft, error, options.mask)
            return (), []
        if self.spool is not None:
            write_inputs(self.spool, prepared)
        return tuple(_input_file(one) for one in prepared), sources

    def _wrong(self, draft: Draft, error: ImageError, mask: ImageSource | None = None) -> None:
        for problem in error.problems:
            field = "mask" if mask is not None and problem.location == mask.name else "image"
            self.findings.wrong_field(draft, field, str(problem))


def _input_file(one: PreparedInput) -> InputFile:
    kind = _CONTENT_TYPES.get(one.format, f"image/{one.format}")
    return InputFile(one.role, one.source, one.file, one.sha256, kind, one.width, one.height)
