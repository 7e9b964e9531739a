"""A description of the API's paths, and what schemathesis makes of it, against a running sandbox.

The description knows no error answers and none of the newest sizes and models. Held are: no server error, no content
type that is not described, no success that breaks the described shape, and the envelope around every error.
"""

from __future__ import annotations

import base64
import json
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import jsonschema_rs
import openai
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.core.result import Ok
from schemathesis.specs.openapi.checks import content_type_conformance, response_schema_conformance

from tests.support.api_description import DESCRIPTION, STREAM
from tests.support.sandbox_client import hole, png
from tests.support.stage import staged

if TYPE_CHECKING:
    from collections.abc import Iterator

    from schemathesis import APIOperation, Response

    Operation: TypeAlias = APIOperation[Any, Any, Any, Any]
    Case: TypeAlias = schemathesis.Case[Any]

OPERATIONS = ("createImage", "createImageEdit", "createImageVariation")
CHECKS = [not_a_server_error, content_type_conformance]
FILES = [png(), png("L"), png("RGB"), hole(), png("RGB", kind="JPEG"), png(size=(64, 32)), b"no picture", b""]
URLS = [f"data:image/png;base64,{base64.b64encode(png()).decode()}", "data:,", "https://example.com/a.png"]


def seeded(examples: int) -> settings:
    return settings(
        max_examples=examples,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )


@dataclass(frozen=True)
class Vendor:
    """The sandbox and its description."""

    base_url: str
    operations: dict[str, Operation]

    def ask(self, case: Case) -> Response:
        """Send a call with a good key and hold the answer to the description."""
        response = case.call(base_url=self.base_url, headers={"Authorization": "Bearer k"})
        streamed = response.headers["content-type"] == [STREAM]
        case.validate_response(response, checks=[*CHECKS, *([] if streamed else [response_schema_conformance])])
        if streamed:
            self._hold_events(case, response)
        elif response.status_code != 200:
            assert 400 <= response.status_code < 500
            assert response.headers["content-type"] == ["application/json"]
            assert response.json()["error"].keys() >= {"message", "type", "param", "code"}
        return response

    def _hold_events(self, case: Case, response: Response) -> None:
        """Hold each event to its schema, which describes what `data` is and not the lines around it."""
        schema = case.operation.definition.raw["responses"]["200"]["content"][STREAM]["schema"]
        validator = jsonschema_rs.Draft202012Validator({**schema, "components": DESCRIPTION["components"]})
        *events, rest = response.content.decode().split("\n\n")
        assert events
        assert not rest
        for event in events:
            name, data = event.split("\n")
            content = json.loads(data.removeprefix("data: "))
            assert name == f"event: {content['type']}"
            validator.validate(content)


@pytest.fixture(scope="module")
def vendor(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Vendor]:
    schemathesis.openapi.format("binary", st.sampled_from(FILES) | st.binary(max_size=50))
    schemathesis.openapi.format("uri", st.sampled_from(URLS))
    found = [
        result.ok()
        for result in schemathesis.openapi.from_dict(DESCRIPTION).get_all_operations()
        if isinstance(result, Ok)
    ]
    operations = {operation.definition.raw["operationId"]: operation for operation in found}
    with staged(tmp_path_factory.mktemp("described")) as stage:
        yield Vendor(stage.serve(rate_limit=None).base_url, operations)


def _examples(short: int, long: int) -> pytest.MarkDecorator:
    marked = pytest.param(long, id="long", marks=pytest.mark.long)
    return pytest.mark.parametrize("examples", [pytest.param(short, id="short"), marked])


@_examples(40, 400)
@pytest.mark.parametrize("mode", list(GenerationMode), ids=lambda mode: mode.value)
@pytest.mark.parametrize("name", OPERATIONS)
def test_whatever_is_sent_the_answer_is_as_described(
    vendor: Vendor, name: str, mode: GenerationMode, examples: int
) -> None:
    statuses: Counter[int] = Counter()

    @seeded(examples)
    @given(case=vendor.operations[name].as_strategy(generation_mode=mode))
    def run(case: Case) -> None:
        statuses[vendor.ask(case).status_code] += 1

    run()
    assert statuses[400] > examples / 4


def sensible(operation: Operation) -> st.SearchStrategy[Case]:
    """Cases that some model may well take: one of the described models, a prompt, few parameters, a whole picture."""

    @st.composite
    def cases(draw: st.DrawFn) -> Case:
        case = draw(operation.as_strategy())
        given_body: Any = case.body
        if not isinstance(given_body, dict) or case.media_type is None:
            return case
        reference = operation.definition.raw["requestBody"]["content"][case.media_type]["schema"]["$ref"]
        schema = DESCRIPTION["components"]["schemas"][reference.rpartition("/")[2]]
        optional = sorted(schema["properties"].keys() - schema["required"])
        kept = {*schema["required"], *draw(st.lists(st.sampled_from(optional), max_size=3))}
        body = {name: value for name, value in given_body.items() if name in kept and value is not None}
        body["model"] = draw(st.sampled_from(schema["properties"]["model"]["anyOf"][1]["enum"]))
        if "prompt" in body:
            body["prompt"] = body["prompt"] or "a cat"
        if "images" in body:
            body["images"] = [{"image_url": URLS[0]}] * draw(st.integers(1, 3))
        if "gpt" in body["model"] and draw(st.booleans()):
            body |= {"stream": True, "partial_images": draw(st.integers(0, 3))}
        case.body = body
        return case

    return cases()


@_examples(30, 240)
@pytest.mark.parametrize("name", OPERATIONS)
def test_a_success_has_the_described_shape(vendor: Vendor, name: str, examples: int) -> None:
    kinds: Counter[str] = Counter()

    @seeded(examples)
    @given(case=sensible(vendor.operations[name]))
    def run(case: Case) -> None:
        response = vendor.ask(case)
        if response.status_code == 200:
            kinds[response.headers["content-type"][0]] += 1

    run()
    assert kinds["application/json"] >= examples / 12
    assert kinds["text/event-stream"] >= examples / 12 or name == "createImageVariation"


@pytest.mark.parametrize("mode", list(GenerationMode), ids=lambda mode: mode.value)
@pytest.mark.parametrize("name", ["createFile", "listFiles", "createBatch", "listBatches"])
def test_files_and_batches_answer_as_described(vendor: Vendor, name: str, mode: GenerationMode) -> None:
    statuses: Counter[int] = Counter()
    with openai.OpenAI(base_url=vendor.base_url, api_key="k") as client:
        uploaded = client.files.create(file=("in.jsonl", b"{}"), purpose="batch").id

    @seeded(50)
    @given(case=vendor.operations[name].as_strategy(generation_mode=mode))
    def run(case: Case) -> None:
        if name == "createBatch" and mode is GenerationMode.POSITIVE:
            body: Any = case.body
            case.body = {**body, "input_file_id": uploaded}
        statuses[vendor.ask(case).status_code] += 1

    run()
    assert statuses[200 if mode is GenerationMode.POSITIVE else 400] >= 3  # forms have fields that nobody knows
