"""Errors of object stores, whatever library raises them: refused until a person acts, or worth another try."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.errors import StoreRefused

if TYPE_CHECKING:
    from collections.abc import Iterator

_REFUSED_STATUSES = frozenset({401, 403, 404, 405})
_REFUSED_CODES = frozenset(
    {
        *("ExpiredToken", "InvalidToken", "TokenRefreshRequired", "NoSuchBucket", "InvalidBucketName", "AccessDenied"),
        *("InvalidAccessKeyId", "SignatureDoesNotMatch", "AuthorizationHeaderMalformed", "AllAccessDisabled"),
        *("PermanentRedirect", "NotImplemented", "InvalidArgument", "InvalidRequest", "EntityTooLarge"),
    }
)
_REFUSED_CLASSES = frozenset(
    {
        *("NoCredentialsError", "PartialCredentialsError", "CredentialRetrievalError", "TokenRetrievalError"),
        *("ProfileNotFound", "NoRegionError", "ParamValidationError", "ClientAuthenticationError"),
        *("SSOTokenLoadError", "UnauthorizedSSOTokenError", "DefaultCredentialsError", "RefreshError"),
    }
)
"""Names of classes of botocore, azure and google.auth, none of which is imported for this."""


class StoreDown(Exception):
    """The store does not answer, reports a fault of its own, or got damaged bytes: the same may succeed later."""


def store_error(reason: BaseException, root: str) -> StoreRefused | StoreDown:
    """Return what an error of a store's library means for all images of a root."""
    chain = list(_chain(reason))
    message = next((text for cause in chain if (text := " ".join(str(cause).split())[:300])), type(reason).__name__)
    if any(_is_refused(cause) for cause in chain):
        return StoreRefused(
            f"{root} takes no images: {message}; paid images wait in the job's `spool/`. Correct that, then run"
            " `pipeline run`, which uploads them first"
        )
    return StoreDown(f"{root} does not answer as it should: {message}")


def _chain(reason: BaseException) -> Iterator[BaseException]:
    seen: BaseException | None = reason
    while seen is not None:
        yield seen
        seen = seen.__cause__


def _is_refused(reason: BaseException) -> bool:
    if isinstance(reason, PermissionError | FileNotFoundError) or type(reason).__name__ in _REFUSED_CLASSES:
        return True
    response = getattr(reason, "response", None)  # of botocore's ClientError
    if isinstance(response, dict):
        status = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
        return response.get("Error", {}).get("Code") in _REFUSED_CODES or status in _REFUSED_STATUSES
    status = getattr(reason, "code", None) or getattr(reason, "status_code", None) or getattr(reason, "status", None)
    return str(status) in {str(refused) for refused in _REFUSED_STATUSES} or str(reason).startswith("Forbidden")
