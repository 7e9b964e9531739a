"""Serve the organization's admin API below `/v1/organization`: a project, its limits, its usage and its costs.

It takes an admin key, which makes no images; the key of a project is refused here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from urllib.parse import unquote

from pipeline.sandbox import api_errors as errors
from pipeline.sandbox.batch.pages import page_of, page_size
from pipeline.sandbox.organization_settings import ADMIN_PREFIX
from pipeline.sandbox.responses import Response, json_response
from pipeline.sandbox.rules.models import MODELS
from pipeline.sandbox.usage import serve_costs, serve_image_usage

if TYPE_CHECKING:
    from aiohttp import web

    from pipeline.sandbox.organization_settings import OrganizationSettings
    from pipeline.sandbox.service import Service

ORGANIZATION_PATH: Final = "/v1/organization/"
PAGE: Final = 100
"""The most objects of one page, and how many it has if the query does not say."""


def serve_organization(service: Service, request: web.Request) -> Response:
    """Answer a request of the admin API. Raises ApiError."""
    settings = service.settings.organization
    _authenticate(request, settings)
    steps = [unquote(step) for step in request.raw_path.partition("?")[0].removeprefix(ORGANIZATION_PATH).split("/")]
    match steps:
        case ["projects"]:
            answer = page_of([_project(settings)], None, PAGE, errors.project_not_found)
        case ["projects", project, *_] if project != settings.project:
            raise errors.project_not_found(project)
        case ["projects", _]:
            answer = json_response(_project(settings))
        case ["projects", _, "rate_limits"]:
            size = page_size(request.query, PAGE, PAGE)
            answer = page_of(_rate_limits(service), request.query.get("after"), size, errors.rate_limit_not_found)
        case ["projects", _, "model_permissions"]:
            denied = list(settings.denied_models)
            answer = json_response({"object": "model_permissions", "mode": "deny_list", "model_ids": denied})
        case ["projects", _, "spend_limit"]:
            answer = _spend_limit(settings.project_spend_limit_usd)
        case ["usage", "images"]:
            answer = serve_image_usage(service, request.query)
        case ["costs"]:
            answer = serve_costs(service, request.query)
        case ["spend_limit"]:
            answer = _spend_limit(settings.spend_limit_usd)
        case _:
            raise errors.invalid_url(request.method, request.path)
    if request.method not in {"GET", "HEAD"}:
        raise errors.wrong_method(request.method, request.path, ("GET", "HEAD"))
    return answer


def _authenticate(request: web.Request, settings: OrganizationSettings) -> None:
    """Accept the admin key of the settings, else any that looks like one. Raises ApiError."""
    scheme, _, key = request.headers.get("Authorization", "").strip().partition(" ")
    key = key.strip() if scheme.lower() == "bearer" else ""
    if not key:
        raise errors.missing_key()
    if key.startswith("bad-"):
        raise errors.incorrect_key(key)
    is_admin = key.startswith(ADMIN_PREFIX) if settings.admin_key is None else key == settings.admin_key
    if not is_admin:
        raise errors.incorrect_key(key) if key.startswith(ADMIN_PREFIX) else errors.missing_scope("api.management.read")


def _project(settings: OrganizationSettings) -> dict[str, object]:
    known = {"object": "organization.project", "name": settings.project, "status": "active", "archived_at": None}
    return {"id": settings.project, **known}


def _rate_limits(service: Service) -> list[dict[str, object]]:
    """Return a row for each model, with the limit of images that the settings plant, else with the sandbox's own."""
    own, stated = service.settings.rate_limit, service.settings.organization.rate_limits
    usual = None if own is None else round(own.images * 60 / own.per_seconds)
    rows: list[dict[str, object]] = []
    for model in {**MODELS, **stated}:
        images = stated.get(model, usual)
        if model in stated and images is None:
            continue
        row = {"object": "project.rate_limit", "id": f"rl-{model}", "model": model, "max_requests_per_1_minute": 10_000}
        rows.append({**row, "max_tokens_per_1_minute": 8_000_000, "batch_1_day_max_input_tokens": 1_000_000})
        if images is not None:
            rows[-1]["max_images_per_1_minute"] = images
    return rows


def _spend_limit(usd: float | None) -> Response:
    """Return the object of a spend limit, which counts in cents. Raises ApiError if there is none."""
    if usd is None:
        raise errors.spend_limit_not_found()
    return json_response(
        {
            "object": "spend_limit",
            "threshold_amount": round(usd * 100),
            "currency": "USD",
            "interval": "month",
            "enforcement": {"status": "enforcing"},
        }
    )
