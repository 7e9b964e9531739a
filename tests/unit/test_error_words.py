"""Money and moderation are known in the forms and languages of many servers, and a quoted prompt is neither."""
# ruff: noqa: RUF001 - the words of other languages have letters that look like Latin ones

from __future__ import annotations

import json
from typing import Any

import pytest

from pipeline.errors import (
    Invalid,
    KeyRefused,
    Moderated,
    QuotaSpent,
    RateLimited,
    RequestError,
    ServerFault,
    Unusable,
)
from tests.unit.test_response import refused


def error(message: str, **more: Any) -> dict[str, Any]:
    return {"error": {"message": message, **more}}


MONEY: list[tuple[int, Any]] = [
    # Alibaba, Volcengine, Zhipu, SiliconFlow, MiniMax, Moonshot, DeepSeek
    (400, {"code": "Arrearage", "message": "Access denied, please make sure your account is in good standing."}),
    (400, {"code": "", "message": "Access denied, please make sure your account is in good standing."}),
    (403, {"code": "AllocationQuota.FreeTierOnly", "message": "The free tier of the model has been exhausted."}),
    (403, {"error": {"code": "AccountOverdueError", "message": "The request failed, id 021."}}),
    (403, error("The request failed because your account has an overdue balance. Request id: 021")),
    (429, {"error": {"code": "1113", "message": "余额不足或无可用资源包,请充值。"}}),
    (429, {"error": {"code": "1113", "message": "no"}}),
    (200, {"error": {"code": "1113", "message": "您的账户已欠费，请充值后重试"}}),
    (400, {"code": 400, "msg": "账户余额不足"}),
    (403, {"code": "INSUFFICIENT_BALANCE", "message": "no"}),
    (403, {"code": 30001, "message": "Sorry, your account balance is insufficient", "data": None}),
    (403, {"code": 30001, "message": "no", "data": None}),
    (200, {"base_resp": {"status_code": 1008, "status_msg": "insufficient balance"}, "data": {}}),
    (200, {"base_resp": {"status_code": 1008, "status_msg": ""}}),
    (429, error("Your account org-x is suspended, please check it", type="exceeded_current_quota_error")),
    (429, error("Your account <ak-x> is suspended due to insufficient balance, please recharge your account")),
    (402, error("Insufficient Balance", type="unknown_error", code="invalid_request_error")),
    # Together, fal, Replicate, Stability, Hugging Face, Cloudflare, xAI, OpenRouter, LiteLLM, Anthropic
    (402, error("Credit limit exceeded, please navigate to https://x.example/billing", type="credit_limit")),
    (403, {"detail": "User is locked. Reason: Exhausted balance. Top up your balance at x.example/billing."}),
    (402, {"title": "Insufficient credit", "detail": "You have insufficient credit to run this model.", "status": 402}),
    (400, {"title": "Insufficient credit", "detail": "You have insufficient credit to run this model."}),
    (402, {"name": "payment_required", "errors": ["You lack sufficient credits to make this request."]}),
    (429, {"name": "payment_required", "errors": ["no"]}),
    (400, {"name": "bad", "message": "Your organization does not have enough balance to request this action"}),
    (400, {"error": "You have exceeded your monthly included credits for Inference Providers."}),
    (
        429,
        {"success": False, "errors": [{"code": 4006, "message": "you have used up your daily free allocation of 10"}]},
    ),
    (
        429,
        {
            "code": "x",
            "error": "Your team t has either used all available credits or reached its monthly spending limit",
        },
    ),
    (403, error("This request requires more credits, or fewer tokens. Insufficient credits.", code=403)),
    (400, error("Budget has been exceeded! Current cost: 5, Max budget: 5", type="budget_exceeded", code="400")),
    (400, error("Your credit balance is too low to access the API.", type="invalid_request_error")),
    (400, {"code": 400, "message": "Insufficient credits. Please top up."}),
    (400, {"errorKey": "insufficient_balance", "errorMessage": "no"}),
    (500, {"errorKey": "insufficient_balance", "errorMessage": "no"}),
    (400, error('litellm.BadRequestError: OpenAIException - {"error":{"message":"Insufficient Balance"}}')),
    (400, error("Provider returned error", metadata={"raw": '{"error":{"message":"Insufficient Balance"}}'})),
    (401, error("Your account is out of credits")),
    (403, error("This API method requires billing to be enabled.", status="PERMISSION_DENIED")),
    (400, error("Your free trial has ended. Please upgrade your plan to continue.")),
    (500, error("upstream error: insufficient balance")),
    (503, error("用户额度不足")),
    *(
        (status, error(message))
        for status in (400, 403, 422, 429, 200)
        for message in (
            "Insufficient credits",
            "Please top up your account to continue",
            "Insufficient account balance.",
            "Your account is in arrears",
            "Your bill is overdue",
            "Payment required",
            "You have exceeded your spending limit",
            "You've exceeded your monthly spending limit.",
            "The spending limit has been reached",
            "Not enough credits",
            "You don't have enough credits",
            "You do not have sufficient funds",
            "You have run out of credits",
            "Your balance is negative",
            "No credits remaining: balance is zero",
            "Your wallet is empty",
            "账户余额不足",
            "欠费停用",
            "用户额度不足, 剩余额度: 0",
            "您的餘額不足，請儲值",
            "残高が不足しています",
            "クレジットが不足しています。チャージしてください",
            "잔액이 부족합니다",
            "Недостаточно средств на балансе",
            "Ваш баланс исчерпан, пополните счёт",
            "Saldo insuficiente",
            "No tiene créditos suficientes",
            "Votre crédit est épuisé, crédit insuffisant",
            "Ihr Guthaben ist aufgebraucht",
            "Nicht genügend Guthaben",
            "Zahlung erforderlich",
            "Credito insufficiente",
        )
    ),
]


@pytest.mark.parametrize(("status", "body"), MONEY, ids=str)
def test_an_account_without_money_is_known_in_each_form_and_language(status: int, body: Any) -> None:
    said = refused(status, body)
    assert type(said) is QuotaSpent
    assert "check the plan, the balance" in said.message


@pytest.mark.parametrize("headers", [{}, {"retry_after": "20"}])
def test_no_wait_helps_an_account_without_money(headers: dict[str, str]) -> None:
    assert type(refused(429, error("余额不足", code="1113"), **headers)) is QuotaSpent
    assert type(refused(429, error("Insufficient balance", type="rate_limit_error"), **headers)) is QuotaSpent
    waits = refused(503, error("Insufficient credits for now"), **headers)
    assert type(waits) is (ServerFault if headers else QuotaSpent)


PACE = [
    "Rate limit reached. Top up your account to raise your limits.",
    "Too many requests: with insufficient credits the limit is 5 a minute.",
    "Rate limit exceeded: free-models-per-day. Add 10 credits to unlock 1000 requests per day",
    "Resource has been exhausted (e.g. check quota).",
    "当前并发额度不足，请稍后重试",
    "您的请求频率过高，请稍后再试",
    "Requests rate limit exceeded, please try again later.",
    "Слишком много запросов, попробуйте позже",
]


@pytest.mark.parametrize("message", PACE)
def test_a_limit_of_pace_is_not_money(message: str) -> None:
    assert type(refused(429, error(message))) is RateLimited


REASONS = {"reasons": ["violence/graphic"], "flagged_input": "wine", "provider_name": "X", "model_slug": "x/y"}
MODERATION: list[tuple[int, Any]] = [
    # OpenRouter
    (
        403,
        error("Your chosen model requires moderation and your input was flagged. No credits were charged.", code=403),
    ),
    (403, error("no", code=403, metadata=REASONS)),
    (400, error("Provider returned error", code=400, metadata={"raw": '{"error":{"code":"moderation_blocked"}}'})),
    (403, error("x", metadata={"error_type": "content_policy_violation"})),
    # Stability
    (403, {"id": "a", "name": "content_moderation", "errors": ["Your request was flagged by our content moderation."]}),
    (403, {"id": "a", "name": "content_moderation", "errors": ["no"]}),
    (400, {"id": "a", "name": "bad_request", "errors": ["prompt: denied by our content moderation system"]}),
    # Azure
    (400, error("no", code="content_filter", innererror={"code": "ResponsibleAIPolicyViolation"})),
    (400, error("no", code="BadRequest", inner_error={"content_filter_results": {"violence": {"filtered": True}}})),
    (400, error("The response was filtered due to the prompt triggering Azure OpenAI's content management policy.")),
    (400, error("no", code="contentFilter")),
    # Google
    (
        400,
        error("The prompt could not be submitted, it contains sensitive words that violate Responsible AI practices"),
    ),
    (400, error("Image generation was blocked by our safety filters", status="INVALID_ARGUMENT")),
    (200, {"promptFeedback": {"blockReason": "PROHIBITED_CONTENT"}}),
    (200, {"promptFeedback": {"blockReason": "SAFETY"}, "candidates": []}),
    (400, error("no", details=[{"reason": "PROHIBITED_CONTENT"}])),
    # xAI
    (400, {"code": "Client specified an invalid argument", "error": "Generated image rejected by content moderation."}),
    (
        403,
        {
            "code": "no permission",
            "error": "Content violates usage guidelines. Team: t, API key ID: k, Failed check: X",
        },
    ),
    # Alibaba, Volcengine, Zhipu, MiniMax
    (400, {"code": "DataInspectionFailed", "message": "Input data may contain inappropriate content."}),
    (200, {"output": {"task_status": "FAILED", "code": "DataInspectionFailed", "message": "Output data may be bad"}}),
    (400, error("The request failed because the input text may contain it", code="InputTextSensitiveContentDetected")),
    (400, error("系统检测到输入或生成内容可能包含不安全或敏感内容", code="1301")),
    (200, {"base_resp": {"status_code": 1026, "status_msg": "input new_sensitive"}}),
    # fal, Together, gateways
    (
        422,
        {
            "detail": [
                {"loc": ["body", "prompt"], "msg": "flagged by a content checker", "type": "content_policy_violation"}
            ]
        },
    ),
    (
        422,
        {"detail": [{"loc": ["body", "prompt"], "msg": "no", "type": "content_policy_violation", "input": {"x": 1}}]},
    ),
    (422, error("NSFW content detected in the image")),
    (451, error("blocked", code="moderation_blocked")),
    (451, error("This request was blocked by our usage policies")),
    (403, error("Ваш запрос нарушает правила")),
    (400, error("提示词包含违规内容")),
    (200, error("Your request was rejected by the safety system.")),
    (403, error("This content may violate our terms of use.")),
    (422, {"error": "Prompt contains forbidden words"}),
    (400, error("We cannot generate this image since it may contain copyrighted material")),
]


@pytest.mark.parametrize(("status", "body"), MODERATION, ids=str)
def test_a_refusal_of_the_content_policy_is_known_in_each_form(status: int, body: Any) -> None:
    assert type(refused(status, body)) is Moderated


def test_the_server_s_words_are_kept() -> None:
    assert (
        refused(403, {"name": "content_moderation", "errors": ["denied", "not charged"]}).message
        == "denied; not charged"
    )
    raw = json.dumps({"error": {"message": "Unknown size"}})
    said = refused(400, error("Provider returned error", metadata={"raw": raw}))
    assert (type(said), said.message) == (Invalid, "Provider returned error: Unknown size")
    assert refused(400, {"success": False, "errors": [{"code": 7, "message": "a"}, {"message": "b"}]}).message == "a; b"


PROMPTS = [
    "a sad man with insufficient funds",
    "insufficient balance, please top up",
    "余额不足 请充值",
    "a sign that says payment required",
]


@pytest.mark.parametrize("prompt", PROMPTS)
def test_a_prompt_that_a_refusal_repeats_is_not_money(prompt: str) -> None:
    for message in (
        f"Invalid prompt: {prompt}",
        f'The prompt "{prompt}" is too long',
        f"The prompt '{prompt}' is too long",
        f"The prompt \u201c{prompt}\u201d is too long",
        f"Could not draw `{prompt}`.",
        f"Unsupported size for prompt={prompt}",
        f'{{"prompt": "{prompt}"}}',
    ):
        assert type(refused(400, error(message))) is Invalid, message
        assert type(refused(200, error(message))) is Unusable, message
    assert type(refused(400, error(prompt, param="prompt"))) is Invalid
    assert type(refused(422, {"detail": [{"loc": ["body", "prompt"], "msg": prompt, "input": prompt}]})) is Invalid
    flagged = error(f"Your input was flagged: {prompt}", code=403, metadata={"reasons": ["x"], "flagged_input": prompt})
    assert type(refused(403, flagged)) is Moderated
    assert type(refused(400, error(f"Rejected by the safety system: {prompt}"))) is Moderated


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (
            403,
            error("Your resource has been blocked because we detected behavior that may violate our content policy"),
            KeyRefused,
        ),
        (403, error("Your account was suspended for violating our usage policies"), KeyRefused),
        (403, error("Forbidden", code=403), KeyRefused),
        (400, error("Unknown parameter: 'moderation' is not allowed", code="unknown_parameter"), Invalid),
        (400, error("The parameter moderation is not allowed here", code="unknown_parameter"), Invalid),
        (400, error("The response was filtered."), Invalid),
        (400, error("white balance must be a number", code="invalid_value"), Invalid),
        (400, error("Bad Request"), Invalid),
        (500, error("The moderation service failed"), ServerFault),
        (503, error("insufficient capacity, please try later"), ServerFault),
        (429, error("moderation requests were rejected: too many requests"), RateLimited),
    ],
    ids=str,
)
def test_what_only_sounds_like_money_or_moderation_is_neither(status: int, body: Any, kind: type[RequestError]) -> None:
    assert type(refused(status, body)) is kind
