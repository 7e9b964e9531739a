"""Check a call and make its images: what calls at once and the lines of batches have in common."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from pipeline.sandbox import api_errors as errors
from pipeline.sandbox import responses
from pipeline.sandbox.charges import Charge
from pipeline.sandbox.rules.prices import cost_usd
from pipeline.sandbox.rules.uploads import decode_uploads
from pipeline.sandbox.rules.validate import moderate, validate_call
from pipeline.sandbox.translate_request import translate_request

if TYPE_CHECKING:
    from pipeline.sandbox.request_body import RequestBody
    from pipeline.sandbox.request_log import ChargedEntry
    from pipeline.sandbox.responses import Response
    from pipeline.sandbox.rules.models import Operation
    from pipeline.sandbox.rules.uploads import Uploads
    from pipeline.sandbox.rules.validate import ImageCall
    from pipeline.sandbox.service import Service


@dataclass(frozen=True, slots=True)
class CheckedCall:
    """A valid call with its uploads; the images of one that is withheld are not made."""

    call: ImageCall
    uploads: Uploads | None
    withheld: bool

    @property
    def digest(self) -> str:
        """The SHA-256 of the call and its uploads."""
        uploads = [upload.sha256 for upload in self.uploads.all] if self.uploads else []
        return hashlib.sha256(repr((self.call, uploads)).encode("utf-8", "replace")).hexdigest()


async def check_call(service: Service, operation: Operation, body: RequestBody) -> CheckedCall:
    """Check the parameters, the uploads and the prompt of a call, in this order. Raises ApiError."""
    settings = service.settings
    operation, body = translate_request(operation, body, settings.dialect)
    call = validate_call(operation, body, today=settings.today, verified=settings.verified)
    if call.model in settings.organization.denied_models:
        raise errors.model_not_found(call.model)
    if not settings.is_available(call.model):
        raise errors.model_shut_down(call.model)
    if settings.dialect.draws is not None:
        call = replace(call, size=settings.dialect.draws)
    if settings.dialect.most_images is not None:
        call = replace(call, n=min(call.n, settings.dialect.most_images))
    uploads = None
    if operation != "generation":
        uploads = await service.run_in_thread(decode_uploads, call, body, service.read_image)
    try:
        moderate(call)
    except errors.ApiError:
        if not settings.dialect.withholds:
            raise
        return CheckedCall(call, uploads, withheld=True)
    return CheckedCall(call, uploads, withheld=False)


async def make_images(service: Service, checked: CheckedCall, origin: str, entry: ChargedEntry) -> Response:
    """Return the response with a call's images, and charge them; image URLs begin with `origin`."""
    call, uploads = checked.call, checked.uploads
    specs = responses.image_specs(call, uploads)
    created = int(service.clock())
    if call.response_format == "b64_json":
        response = await service.run_in_thread(responses.base64_response, call, specs, uploads, created)
    else:
        for upload in (*uploads.images, uploads.mask) if uploads else ():
            if upload:
                await service.run_in_thread(service.upload_store.put, upload.sha256, upload.content)
        response = responses.url_response(call, [service.signed_urls.sign(origin, spec) for spec in specs], created)
    usage = responses.usage_of(call, specs, uploads) if call.family.is_gpt else {}
    service.admission.charge(entry, call.n, cost_usd(call, usage))
    size = f"{specs[0].width}x{specs[0].height}" if specs else call.size
    charge = (service.clock(), f"image.{call.operation}", call.model, size, call.n, entry.cost_usd, entry.api_key_id)
    service.admission.charges.add(Charge(*charge))
    return response
