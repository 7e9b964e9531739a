"""Error classification: the class of an HTTP error, from its type, code, message and status.

Type and code decide before the status, since servers send quota and moderation errors with many statuses; the message
decides only if servers state the cause in no other way. The vendor's `x-should-retry` is used in one case alone: `true`
makes a request that would be given up as invalid worth a retry. It never overrides a stop or a moderation error, and
`false` never ends retries: it is meant for clients that retry three times within seconds, and a run has hours.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from pipeline.client.error_words import own_words, says_moderated, says_no_money
from pipeline.client.rate_limit_hints import zero_limit
from pipeline.errors import (
    Invalid,
    KeyRefused,
    ModelUnknown,
    Moderated,
    OutcomeUnknown,
    QuotaSpent,
    RateLimited,
    ServerFault,
    WrongAddress,
    WrongPath,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pipeline.client.error_body import ErrorBody
    from pipeline.errors import RequestError

_QUOTA = frozenset(  # in lower case, letters and digits only
    {
        *("insufficientquota", "creditbalanceexhausted", "organizationspendlimitexceeded", "projectspendlimitexceeded"),
        *("organizationusagelimitexceeded", "billinghardlimitreached", "billingnotactive", "quotaexceeded"),
        *("insufficientuserquota", "exceededcurrentquotaerror", "budgetexceeded", "exceededbudget"),  # of gateways
        *("insufficientbalance", "insufficientcredit", "insufficientcredits", "insufficientfunds", "paymentrequired"),
        *("balanceexhausted", "exhaustedbalance", "creditsexhausted", "outofcredits", "nocredits", "creditlimit"),
        *("creditlimitexceeded", "spendinglimitexceeded", "spendlimitexceeded", "monthlylimitexceeded", "billingerror"),
        *("balancenotenough", "usernotenoughbalance", "accountoverdue", "accountoverdueerror", "accountarrears"),
        *("arrearage", "inarrears", "prepaidbilloverdue", "postpaidbilloverdue", "commoditynotpurchased"),  # Alibaba
        *("preconsumetokenquotafailed", "tokenquotaexhausted"),  # new-api
        *("allocationquotafreetieronly", "setlimitexceeded"),  # Alibaba, Volcengine: until a person allows more
        "1113",  # Zhipu
    }
)
_QUOTA_NUMBERS = {200: "1008", 403: "30001"}  # MiniMax, SiliconFlow: numbers that mean this with one status
_MODERATION = frozenset(
    {
        *("content_policy_violation", "moderation_blocked", "content_filter", "contentfilter", "moderation_reasons"),
        *("content_moderation", "safety", "image_safety", "prohibited_content", "image_prohibited_content"),
        "refusal",
        "responsibleaipolicyviolation",  # Azure's inner code
    }
)
_LIKE_MODERATION = re.compile(
    r"moderat|content_?filter|content_?policy|policy_?violation|sensitive_?(?:content|information)|prohibited_?content"
    r"|data_?inspection|responsible_?ai|nsfw|safety_?(?:violation|filter|block|check)|content_?(?:blocked|flagged|violation)"
)
_MODEL = frozenset(
    {
        *("model_not_found", "deploymentnotfound", "model_deprecated", "modeldeprecated", "model_decommissioned"),
        *("model_retired", "modelnotfound", "model_not_available", "model_terminated"),
    }
)
_PACE = frozenset({"rate_limit_exceeded", "slow_down", "rate_limit_error"})
_FORM = frozenset({"invalid_request_error", "invalid_value", "unknown_parameter", "invalid_image", "invalid_size"})

_VALUE = frozenset(
    {"unknown_parameter", "invalid_value", "invalid_image", "invalid_size", "missing_required_parameter"}
)
_OF_MODELS = frozenset({400, 403, 404, 410, 422})
_NO_PHRASES = frozenset({404, 405, 408, 409, 413, 415, 425})  # statuses that mean something else, whatever is said

# What servers state in the message only, as whole phrases; those of money and moderation are in error_words.
_SAYS_QUOTA = re.compile(  # Google and others say it of their limits per minute too
    r"exceeded your current quota|\breached (?:your|the|its) (?:[\w-]+ ){0,2}usage (?:limits?|caps?)\b", re.IGNORECASE
)
_SAYS_KEY = re.compile(  # with 400: xAI, Google, and a LiteLLM proxy that knows one key alone
    r"(?:incorrect|invalid) api key|api key not valid|no connected db\b", re.IGNORECASE
)
_SAYS_MODEL = re.compile(r"\bmodel\b.{0,200}\b(?:does not exist|not found|not exist)\b", re.IGNORECASE)  # vLLM: 404
_SAYS_RETIRED = re.compile(
    r"(?:^|[-:] |(?<!for )(?<!with )(?<!of )(?<!by )\b(?:the|this|your) )model\b[^.;:]{0,80}\b"
    r"(?:does not exist|not found|not available"
    r"|(?:has been|was|is|are) (?:now |been )?(?:deprecated|retired|decommissioned|discontinued|removed|shut ?down)"
    r"|no longer (?:available|supported|exists))\b",
    re.IGNORECASE,
)
_SAYS_NO_MODEL = re.compile(r"invalid model name passed in|could not resolve provider for model", re.IGNORECASE)  # 400
_SAYS_LOST = re.compile(  # gateways, about a call that they had passed on: it may be billed behind them
    r"\bapitimeouterror\b|\bapiconnectionerror\b|\bfetch failed\b|\bsocket hang up\b|other side closed"
    r"|exceeded the timeout sent in the request|upstream (?:connect|request|server).{0,40}(?:time.?out|reset)",
    re.IGNORECASE,
)
_SAYS_TOO_LARGE = re.compile(r"\brequest too large\b|tokens must be reduced", re.IGNORECASE)  # with 429: for any wait
_SAYS_SAFETY = re.compile(  # with 500: OpenAI's own sentence, and LiteLLM's name for its error
    r"\brejected (?:by|as a result of) our safety system\b|\bcontentpolicyviolationerror\b", re.IGNORECASE
)
_SAYS_PACE = re.compile(r"\brate limit\b|\btoo many requests\b", re.IGNORECASE)


def error_class(
    status: int, error_body: ErrorBody, headers: Mapping[str, str], wait: float | None = None
) -> type[RequestError]:
    """Return the class of an HTTP error. `wait` is what the server asks for, in seconds."""
    kind = error_class_of_words(status, error_body, headers, wait) or _error_class_of_status(status)
    if kind is Invalid and headers.get("x-should-retry", "").strip().lower() == "true":
        return ServerFault
    return kind


def error_class_of_words(
    status: int, error_body: ErrorBody, headers: Mapping[str, str], wait: float | None = None
) -> type[RequestError] | None:
    """Return the class that type, code or message decide; None if they leave it to the status."""
    words, message = error_body.words, error_body.message
    if _is_quota(status, error_body, headers):
        return QuotaSpent
    if words & _MODERATION or (_takes_phrases(status) and any(map(_LIKE_MODERATION.search, words))):
        return Moderated
    if _takes_phrases(status) and status != 429 and not words & _VALUE and says_moderated(message):
        return Moderated
    if status in {500, 503} and _SAYS_SAFETY.search(own_words(message)):
        return Moderated
    if (_takes_phrases(status) or status in {500, 503}) and _says_no_money(status, error_body, wait):
        return QuotaSpent
    if words & _MODEL and status in {200, 400, 403, 404, 410}:
        return ModelUnknown
    if status == 404 and (error_body.param == "model" or _SAYS_MODEL.search(message)):
        return ModelUnknown
    if status == 400 and _SAYS_NO_MODEL.search(message):
        return ModelUnknown
    if status == 429 and _SAYS_TOO_LARGE.search(message):
        return Invalid
    if status in _OF_MODELS and error_body.param in {None, "model"} and _SAYS_RETIRED.search(own_words(message)):
        return ModelUnknown
    if (status == 408 or status >= 500) and _was_passed_on(message, headers):
        return OutcomeUnknown
    if "invalid_api_key" in words or (status == 400 and _SAYS_KEY.search(message)):
        return KeyRefused
    return None


def _is_quota(status: int, error_body: ErrorBody, headers: Mapping[str, str]) -> bool:
    """Return whether status, codes or a limit of zero say that there is no money left."""
    words = {re.sub(r"[^a-z0-9]", "", name) for name in error_body.words}
    if status == 402 or words & _QUOTA or _QUOTA_NUMBERS.get(status) in words:
        return True
    return status == 429 and zero_limit(headers, error_body.message)


def _says_no_money(status: int, error_body: ErrorBody, wait: float | None) -> bool:
    """Return whether a message says that there is no money left, rather than that a limit of pace is reached."""
    message = error_body.message
    if error_body.param == "prompt" or not says_no_money(message):
        return False
    if status in {500, 503}:  # a gateway's, whose own account is empty; a stated wait means that time helps
        return wait is None
    if status != 429:
        return True
    if _SAYS_QUOTA.search(message) and (wait is not None or error_body.words & _PACE):
        return False
    return not _SAYS_PACE.search(message)


def _takes_phrases(status: int) -> bool:
    """Return whether a message may decide the class of an error with this status."""
    return 200 <= status < 300 or (400 <= status < 500 and status not in _NO_PHRASES)


def _was_passed_on(message: str, headers: Mapping[str, str]) -> bool:
    """Return whether a gateway lost a call after it had passed it on."""
    return bool(_SAYS_LOST.search(message)) or headers.get("x-portkey-gateway-exception") == "true"


def stated_status(error_body: ErrorBody) -> int | None:
    """Return the 4xx status that an error in a success response stands for; None if it does not say."""
    if re.fullmatch(r"4[0-9]{2}", error_body.code or ""):  # gateways put the status into the body
        return int(error_body.code or 0)
    says_pace = _SAYS_PACE.search(error_body.message) and not error_body.words & _FORM
    return 429 if error_body.words & _PACE or says_pace else None


def blames_the_call(error_body: ErrorBody) -> bool:
    """Return whether an error blames the request."""
    return bool(error_body.words & _FORM)


def _error_class_of_status(status: int) -> type[RequestError]:
    match status:
        case 401 | 403:
            return KeyRefused
        case 404:
            return WrongPath
        case 407:  # of a proxy on the way
            return WrongAddress
        case 408 | 409 | 425:
            return ServerFault
        case 429:
            return RateLimited
        case 501:  # the server works, and will never do this
            return Invalid
        case 444 | 460 | 499:  # nginx's and Amazon's, of a call that was broken off in between
            return OutcomeUnknown
        case 502 | 504:  # a gateway's: the call may have continued behind it
            return OutcomeUnknown
        case _ if 520 <= status < 530:  # Cloudflare's: the same
            return OutcomeUnknown
        case _ if status >= 500:
            return ServerFault
        case _ if status < 400:
            return WrongAddress
    return Invalid
