"""What helps against each error: advice for failed requests, for stops, and for calls that are cut in time."""

from __future__ import annotations

import bisect
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline.reports.facts import counted, dollars

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pipeline.errors import Stop
    from pipeline.ledger.failure_queries import LostCall

_ONLY_THIS = "the server refused this request alone and served others"
_EDIT_OR_RESUME = "{edit}; or, once that is fixed at the provider, `pipeline resume`"
_EDIT_FILE = "in the job file and run it with `pipeline run`"
_EDIT_PROGRAM = "in the Python program that made the job and run that again"

ADVICE = {
    "Moderated": "change the prompt or the image {edit} (the content policy would refuse the same again)",
    "Invalid": (
        "correct what the message names {edit}; or, if the request is right, try it again with `pipeline resume`"
    ),
    "KeyRefused": f"{_ONLY_THIS}: change its prompt, its input images or its `model` {_EDIT_OR_RESUME}",
    "QuotaSpent": f"{_ONLY_THIS}: change its `model` or what makes it expensive {_EDIT_OR_RESUME}",
    "WrongAddress": f"{_ONLY_THIS}: change its `model` or its prompt {_EDIT_OR_RESUME}",
    "WrongPath": f"{_ONLY_THIS}: change its `model` or its operation {_EDIT_OR_RESUME}",
    "ModelUnknown": f"{_ONLY_THIS}: correct `model` {_EDIT_OR_RESUME}",
    "DownloadRefused": (
        "its image is paid and waits at its host: if the message names an option, set it; then `pipeline resume`"
        " downloads the image at no cost"
    ),
    "UrlLost": (
        "its image was paid but not downloaded in time: check that its host can be reached; `pipeline resume` then buys"
        " it again"
    ),
    "OutcomeUnknown": (
        "its calls were cut off and may have been paid: check the network and `timeout_seconds`; `pipeline resume` then"
        " tries it again"
    ),
    "Unusable": (
        "the server reported success without a whole image, and each call may have been paid: `pipeline resume` tries"
        " it again"
    ),
    "ServerFault": "the server reported a fault of its own, at no cost: try it again later with `pipeline resume`",
}
"""What fixes a failed request, by the class of its error; `{edit}` stands for how its job is edited."""

STOP_ADVICE = {
    "KeyRefused": (
        "check the provider's key (if none is sent, name its variable as `api_key_env`), and what its organization may"
        " use"
    ),
    "QuotaSpent": "top up the account at the provider, or raise its limit",
    "WrongAddress": "correct the provider's `base_url` in the config",
    "WrongPath": "correct the provider's `base_url` in the config, or choose a provider that has this operation",
    "Deferred": "set the provider's `base_url` to an address whose responses contain the images",
    "ModelUnknown": "correct `model` in the job file",
    "PausedTooLong": "wait as long as the server asks",
    "ProviderHeld": "end the pause with `pipeline unpause`, or wait for the provider's window",
    "OutageGivenUp": "wait until the server is back",
    "RepeatedRefusal": "fix what the message names, in the account at the provider or in the job file",
    "NotDelivered": (
        "fix what the message names: a setting, the server, or the way to the images; what is paid is downloaded at no"
        " cost"
    ),
    "BatchGone": (
        "use the key and the project that sent the batch; or give up its requests, which may be paid, with"
        " `pipeline cancel JOB`"
    ),
    "BatchRefused": "fix what the message names, or write `mode: realtime` into the job file",
    "BudgetSpent": "raise `budget_usd` in the job file, or `--budget`",
    "StoreRefused": "fix what the message names at the object store; what is paid is uploaded first, at no cost",
    "TooManyOpenFiles": "allow more open files with `ulimit -n 4096`, or lower the provider's `concurrency`",
    "FolderGone": "put the folder and its ledger back in place, or name the new place with `--output`",
    "DiskFull": "make room on the disk, and see that the folder may be written",
}
"""What to do after a stop before the run is continued, by the class of its error."""

_ON_THE_WAY = {
    "HTTP_PROXY": "correct HTTP_PROXY or NO_PROXY, or what the proxy allows and whom",
    "in its place": (
        "fix what answers in the server's place, such as a login page or a firewall; or correct the provider's"
        " `base_url` in the config"
    ),
}
"""What to do after a WrongAddress whose message has these words."""

_SAME_SECONDS = 0.05  # by what share two calls that are cut in the same place differ at most
_LEAST_SECONDS = 0.1  # and by how much at most in any case
_SAME_CALLS = 3
_TIMEOUTS = {408, 504, 524}  # statuses that state a timeout
_LEAST_CUT, _LEAST_TIMEOUT = 2.0, 0.2  # seconds: what breaks earlier is no limit of time


def edit_words(file: str | None) -> str:
    """Return how a job is edited and run again: in its file, or in the program that made it if there is no file."""
    return _EDIT_PROGRAM if file is None else _EDIT_FILE


def request_advice(kind: str, file: str | None) -> str:
    """Return what fixes a failed request whose error is of this class; `file` is the job file, if there is one."""
    advice = ADVICE.get(kind, "nothing is wrong with the request: try it again with `pipeline resume`")
    return advice.format(edit=edit_words(file))


@dataclass(frozen=True, slots=True)
class TimeCut:
    """Calls that all ended without a response after about the same number of seconds."""

    seconds: float
    calls: int
    cost_usd: float | None  # at most; None without a price
    is_own: bool  # `timeout_seconds` ended them

    def advice(self, file: str | None) -> str:
        """Return what cut the calls, what that may have cost and what helps. `file` is the job file, if it has one."""
        cost = "" if self.cost_usd is None else f", for {dollars(self.cost_usd)} at most"
        calls = f"{counted(self.calls, 'call')} ended so, and each may have been paid{cost}"
        helps = "a smaller `size`, a lower `quality`, `images_per_call: 1`"
        what = f"`timeout_seconds` cuts calls after {self.seconds:.3g} s: {calls}; what helps is a longer one, {helps}"
        if not self.is_own:
            what = (
                f"something between here and the model, such as a gateway, cuts calls after about {self.seconds:.3g} s:"
                f" {calls}; what helps is {helps} or another address, and no longer `timeout_seconds`"
            )
        return f"{what}: change that {edit_words(file)}, or fix the config and type `pipeline resume`"


def find_cut(calls: Sequence[LostCall], http_status: int | None) -> TimeCut | None:
    """Return the largest group of calls of this status that took about the same time, None if all differ."""
    least = _LEAST_TIMEOUT if http_status in _TIMEOUTS else _LEAST_CUT
    same = sorted((call for call in calls if call.http_status == http_status), key=lambda call: call.seconds)
    same = [call for call in same if call.seconds >= least or _is_own(call)]
    best: Sequence[LostCall] = ()
    for begin, first in enumerate(same):
        most = first.seconds + max(first.seconds * _SAME_SECONDS, _LEAST_SECONDS)
        group = same[begin : bisect.bisect_right(same, most, key=lambda call: call.seconds)]
        best = max(best, group, key=len)
    if len(best) < _SAME_CALLS:
        return None
    prices = [call.estimate_usd for call in best if call.estimate_usd is not None]
    cost = sum(prices) if len(prices) == len(best) else None
    return TimeCut(best[len(best) // 2].seconds, len(best), cost, all(map(_is_own, best)))


def _is_own(call: LostCall) -> bool:
    """Return whether `timeout_seconds` ended a call."""
    return call.http_status is None and "Timeout" in (call.error_type or "")


def advice_for_stop(kind: str, message: str, needed_usd: float | None) -> str | None:
    """Return what to do after a stop of this class; `needed_usd` is the budget that the rest of a job needs."""
    advice = STOP_ADVICE.get(kind)
    if kind == "WrongAddress":
        return next((text for words, text in _ON_THE_WAY.items() if words in message), advice)
    if kind != "BudgetSpent" or needed_usd is None:
        return advice
    return f"{advice}, to what the rest needs: {dollars(needed_usd)} in all"


def stop_advice(stops: Sequence[Stop], needed_usd: float | None = None) -> list[str]:
    """Return what to do before a stopped run is continued, each once."""
    found = (advice_for_stop(type(stop).__name__, stop.message, needed_usd) for stop in stops)
    return [advice for advice in dict.fromkeys(found) if advice]
