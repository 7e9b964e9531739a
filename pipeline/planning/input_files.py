"""Read and prepare the input images of expanded requests, and return what identifies them in the content key."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pipeline.errors import ImageError
from pipeline.models.model import default_requirements
from pipeline.planning.paths import missing_hint, not_a_path, with_slashes

if TYPE_CHECKING:
    from pathlib import Path

    from pipeline.images.options import ImageOptions
    from pipeline.images.prepare import PreparedInput
    from pipeline.images.prepared_cache import PreparedCache
    from pipeline.images.source import ImageSource
    from pipeline.planning.diagnostics import Diagnostics, ExpandedRequest

_CONTENT_TYPES = {"png": "image/png", "jpeg": "image/jpeg", "webp": "image/webp", "gif": "image/gif"}


@dataclass(frozen=True, slots=True)
class InputFile:
    """An uploaded image of a request. `file` is relative to the job's folder; width and height are in pixels."""

    role: str
    source: str
    file: str
    sha256: str
    content_type: str
    width: int
    height: int


@dataclass(slots=True)
class InputImages:
    """The input images of one job. Prepared images are written below `staging`, if it is given."""

    diagnostics: Diagnostics
    staging: Path | None
    _cache: PreparedCache | None = None  # made for the first image: jobs without images do not import Pillow

    def read(self, expanded: ExpandedRequest) -> tuple[ImageOptions | None, list[ImageSource]]:
        """Return the image options and sources of a request, without opening a file."""
        fields = expanded.fields
        if fields.keys().isdisjoint({"image", "mask", "fit", "resize"}):
            return None, []
        from pipeline.images.options import parse_image_options
        from pipeline.images.source import ImageSource

        folder = self.diagnostics.job.folder
        sources = []
        for value in _as_list(fields.get("image")):
            try:
                sources.append(ImageSource.of(self._local(expanded, "image", value), folder=folder))
            except ImageError as error:
                self._add_problems(expanded, error)
        mask = fields.get("mask")
        if isinstance(mask, dict) and "image" in mask:
            mask = {**mask, "image": self._local(expanded, "mask.image", mask["image"])}
        else:
            mask = self._local(expanded, "mask", mask)
        options, problems = parse_image_options(fields.get("fit"), fields.get("resize"), mask, folder)
        for problem in problems:
            self.diagnostics.add_field_problem(expanded, problem.field, problem.message)
        return options, sources

    def prepare(
        self, expanded: ExpandedRequest, options: ImageOptions | None, images: list[ImageSource], operation: str
    ) -> tuple[tuple[InputFile, ...], list[Any]]:
        """Prepare the images; return them, and the values that identify them in the content key."""
        if options is None or not images:
            return (), []
        from pipeline.images.prepared_cache import PreparedCache, write_inputs

        self._cache = self._cache or PreparedCache()
        model = expanded.model
        requirements = model.image_requirements(operation) if model else default_requirements()
        try:
            prepared = self._cache.prepare(images, options, requirements, model.name if model else None)
            content = [*(image.source_sha256 for image in prepared if image.role == "image"), options.canonical()]
        except ImageError as error:
            self._add_problems(expanded, error, options.mask)
            return (), []
        if self.staging is not None:
            write_inputs(self.staging, prepared)
        return tuple(_input_file(image) for image in prepared), content

    def _add_problems(self, expanded: ExpandedRequest, error: ImageError, mask: ImageSource | None = None) -> None:
        for problem in error.problems:
            field = "mask" if mask is not None and problem.location == mask.name else "image"
            hint = missing_hint(problem.location) if problem.message.startswith("does not exist") else ""
            self.diagnostics.add_field_problem(expanded, field, f"{problem}{hint}")

    def _local(self, expanded: ExpandedRequest, field: str, value: Any) -> Any:
        """Return the path of a file as this machine writes it; a URL is recorded as a problem."""
        if not isinstance(value, str):
            return value
        if reason := not_a_path(value):
            self.diagnostics.add_field_problem(expanded, field, f"{value:.120} {reason}".strip())
        return with_slashes(value, self.diagnostics.job.folder)


def _as_list(given: Any) -> list[Any]:
    return given if isinstance(given, list) else [] if given is None else [given]


def _input_file(image: PreparedInput) -> InputFile:
    content_type = _CONTENT_TYPES.get(image.format, f"image/{image.format}")
    return InputFile(image.role, image.source, image.file, image.sha256, content_type, image.width, image.height)
