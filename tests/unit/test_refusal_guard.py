"""What one refusal means: a stop, a model's stop, one request's failure, or nothing; in virtual time."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from pipeline.engine.refusal_guard import IN_A_ROW, OTHER_WAIT, SAME_WAIT, RefusalGuard
from pipeline.errors import Invalid, KeyRefused, ModelUnknown, QuotaSpent, RepeatedRefusal, WrongAddress
from tests.support.virtual_time import run
from tests.support.workbench import queued_request as request

if TYPE_CHECKING:
    from pipeline.errors import Stop


def now() -> float:
    return asyncio.get_running_loop().time()


def key_refused(message: str = "Incorrect API key") -> Stop:
    return KeyRefused(message, http_status=401)


async def probe(guard: RefusalGuard, pk: int, *, passes: bool = False, model: str = "dall-e-2") -> str | None:
    """Call with a request as soon as it may: it passes, or is refused; return the decision."""
    one = request(pk, model)
    await guard.admit(one)
    decision = None
    if passes:
        guard.on_passed(one, now())
    else:
        decision = guard.decide_on_refusal(one, key_refused(), 0)
    guard.on_released(one)
    return decision


def test_a_refusal_before_the_first_success_stops_at_once() -> None:
    async def main() -> None:
        assert await probe(RefusalGuard(known_good=False), 1) == "stop"

    run(main())


def test_a_refusal_before_the_first_success_waits_for_the_calls_in_flight() -> None:
    async def main() -> None:
        guard = RefusalGuard(known_good=False)
        assert guard.decide_on_refusal(request(1), key_refused(), 3) == "await first"

    run(main())


def test_a_refusal_is_met_by_the_same_request_and_then_by_another_before_it_stops() -> None:
    async def main() -> None:
        guard, begin = RefusalGuard(known_good=True), now()
        assert await probe(guard, 1) == "retry"
        assert await probe(guard, 1) == "park"
        assert now() - begin == pytest.approx(SAME_WAIT)
        assert await probe(guard, 2) == "stop"
        assert now() - begin == pytest.approx(SAME_WAIT + OTHER_WAIT)

    run(main())


def test_all_other_requests_are_held_while_one_probes() -> None:
    async def main() -> None:
        guard = RefusalGuard(known_good=True)
        await probe(guard, 1)
        other = asyncio.create_task(guard.admit(request(2)))
        await asyncio.sleep(60)
        assert guard.holds(request(2))
        assert not other.done()
        await probe(guard, 1, passes=True)
        await asyncio.wait_for(other, 1)

    run(main())


def test_a_request_that_is_refused_while_others_pass_fails_alone() -> None:
    async def main() -> None:
        guard = RefusalGuard(known_good=True)
        await probe(guard, 1)
        assert await probe(guard, 1) == "park"
        await probe(guard, 2, passes=True)
        assert guard.decide_after_parking(request(1), key_refused()) == "fail"

    run(main())


def test_a_success_that_was_sent_before_the_refusal_proves_nothing() -> None:
    async def main() -> None:
        guard, before = RefusalGuard(known_good=True), now()
        await asyncio.sleep(1)
        await probe(guard, 1)
        guard.on_passed(request(2), before)
        assert guard.holds(request(3))

    run(main())


def test_a_spent_quota_stops_at_once_and_a_402_is_met_again() -> None:
    async def main() -> None:
        guard = RefusalGuard(known_good=True)
        assert guard.decide_on_refusal(request(1), QuotaSpent("rotated", http_status=402), 0) == "retry"
        quota = QuotaSpent("exceeded", http_status=429, code="insufficient_quota")
        assert guard.decide_on_refusal(request(2), quota, 3) == "stop"

    run(main())


def test_words_about_money_stop_at_the_second_answer() -> None:
    async def main() -> None:
        guard, error = RefusalGuard(known_good=True), QuotaSpent("please top up", http_status=400)
        assert guard.decide_on_refusal(request(1), error, 0) == "retry"
        await guard.admit(request(1))
        assert guard.decide_on_refusal(request(1), error, 0) == "stop"

    run(main())


def test_what_names_a_model_holds_and_stops_that_model_alone() -> None:
    async def main() -> None:
        guard, error = RefusalGuard(known_good=True), ModelUnknown("model gpt-image-1 needs access", http_status=403)
        guard.on_passed(request(9, "dall-e-2"), now())
        await asyncio.sleep(1)
        guard.decide_on_refusal(request(1, "gpt-image-1"), error, 0)
        assert guard.holds(request(2, "gpt-image-1"))
        assert not guard.holds(request(3, "dall-e-2"))

    run(main())


def test_a_model_that_never_passed_while_another_did_is_stopped_alone() -> None:
    async def main() -> None:
        guard, error = RefusalGuard(known_good=True), key_refused("must be verified")
        guard.on_passed(request(9, "dall-e-2"), now())
        await asyncio.sleep(1)
        for pk in (1, 1, 2):
            one = request(pk, "gpt-image-1")
            await guard.admit(one)
            decision = guard.decide_on_refusal(one, error, 0)
            guard.on_released(one)
        assert (decision, error.reach) == ("stop", "provider's model")

    run(main())


def test_a_path_that_is_not_found_concerns_its_operation() -> None:
    async def main() -> None:
        guard = RefusalGuard(known_good=True)
        error = WrongAddress("no such path", http_status=404)
        error.reach = "operation"
        assert guard.scope_of(request(1), error) == ("operation", "generation")

    run(main())


def test_the_end_of_the_only_request_that_could_confirm_a_refusal_frees_the_others() -> None:
    async def main() -> None:
        guard = RefusalGuard(known_good=True)
        await probe(guard, 1)
        guard.on_ended(request(1))
        assert not guard.holds(request(2))

    run(main())


def invalid(message: str, status: int = 400) -> Invalid:
    return Invalid(message, http_status=status)


def test_requests_that_are_refused_in_a_row_with_one_message_stop() -> None:
    async def main() -> None:
        guard = RefusalGuard(known_good=True)
        found = [guard.stop_after_invalid(request(pk), invalid(f"request req_{pk}7 denied")) for pk in range(IN_A_ROW)]
        assert [type(one) for one in found] == [type(None)] * (IN_A_ROW - 1) + [RepeatedRefusal]
        assert "request req_47 denied" in str(found[-1])

    run(main())


def test_different_messages_stop_later_and_other_statuses_count_apart() -> None:
    async def main() -> None:
        guard, words = RefusalGuard(known_good=True), "abcdefghijklmnopqrst"
        found = [guard.stop_after_invalid(request(pk), invalid(f"no {word}")) for pk, word in enumerate(words)]
        assert [type(one) for one in found[:-1]] == [type(None)] * 19
        assert isinstance(found[-1], RepeatedRefusal)
        assert guard.stop_after_invalid(request(30), invalid("no", 422)) is None

    run(main())


def test_a_success_begins_the_count_of_invalid_requests_again() -> None:
    async def main() -> None:
        guard = RefusalGuard(known_good=True)
        for pk in range(IN_A_ROW - 1):
            guard.stop_after_invalid(request(pk), invalid("denied"))
        guard.on_passed(request(20), now())
        assert guard.stop_after_invalid(request(21), invalid("denied")) is None

    run(main())


def test_an_invalid_request_is_tried_once_more_if_the_provider_works() -> None:
    async def main() -> None:
        good, new = RefusalGuard(known_good=True), RefusalGuard(known_good=False)
        assert [good.may_try_again(request(1)), good.may_try_again(request(1))] == [True, False]
        assert not new.may_try_again(request(1))

    run(main())
