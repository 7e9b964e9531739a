"""The calls of the guide's Python examples, by openai 0.28; run by test_sdk_0_28.py in an environment of its own.

`python guide_calls.py BASE_URL guide|errors|more|once`, in a folder with the guide's pictures, prints one JSON object.
"""

# mypy: ignore-errors
# The names of openai 0.28 are not those of the package that is checked against.

from __future__ import annotations

import asyncio
import base64
import json
import sys
import urllib.request
from io import BytesIO
from pathlib import Path
from typing import Any

import openai
from PIL import Image


def picture(content: bytes) -> dict[str, Any]:
    """Say what the bytes are."""
    image = Image.open(BytesIO(content))
    image.load()
    return {"kind": image.format, "size": list(image.size)}


def download(response: Any) -> dict[str, Any]:
    """Fetch the first picture of a response, as the guide finds it there."""
    with urllib.request.urlopen(response["data"][0]["url"]) as answer:  # noqa: S310 - the sandbox's
        return picture(answer.read())


def described(response: Any) -> dict[str, Any]:
    """Say what a response holds and what is behind its URL."""
    return {**download(response), "keys": sorted(response.keys())}


def guide() -> dict[str, Any]:
    """Make the calls of the guide with their arguments."""
    seen = {"version": openai.version.VERSION}
    seen["create"] = described(openai.Image.create(prompt="a white siamese cat", n=1, size="1024x1024"))
    with Path("sunlit_lounge.png").open("rb") as image, Path("mask.png").open("rb") as mask:
        pool = "A sunlit indoor lounge area with a pool containing a flamingo"
        seen["create_edit"] = described(
            openai.Image.create_edit(image=image, mask=mask, prompt=pool, n=1, size="1024x1024")
        )
    with Path("corgi_and_cat_paw.png").open("rb") as image:
        seen["create_variation"] = described(openai.Image.create_variation(image=image, n=1, size="1024x1024"))

    stream = BytesIO(Path("image.png").read_bytes())
    seen["from memory"] = described(openai.Image.create_variation(image=stream.getvalue(), n=1, size="1024x1024"))

    small = BytesIO()
    Image.open("image.png").resize((256, 256)).save(small, format="PNG")
    seen["resized"] = described(openai.Image.create_variation(image=small.getvalue(), n=1, size="1024x1024"))
    return seen


def caught(call: Any, *arguments: Any, **parameters: Any) -> dict[str, Any]:
    """Make a call that fails, and handle it as the guide does."""
    try:
        call(*arguments, **parameters)
    except openai.error.OpenAIError as e:
        return told(e)
    return {"class": None}


def told(e: Any) -> dict[str, Any]:
    """Say what the guide reads of an error."""
    return {
        "class": type(e).__name__,
        "http_status": e.http_status,
        "error": dict(e.error) if e.error else None,
        "organization": e.organization,
    }


def errors() -> dict[str, Any]:
    """Make the guide's failing call, and one for each other way to be wrong."""
    with Path("oblong.png").open("rb") as oblong:
        seen = {"oblong": caught(openai.Image.create_variation, oblong, n=1, size="1024x1024")}
    create = openai.Image.create
    image = Path("image.png").read_bytes()
    seen["size"] = caught(create, prompt="a cat", size="500x500")
    seen["policy"] = caught(create, prompt="a forbidden cat", size="256x256")
    seen["model"] = caught(create, prompt="a cat", model="dall-e-9")
    seen["mime type"] = caught(openai.Image.create_edit, image=image, prompt="a cat", model="gpt-image-2")
    seen["key"] = caught(create, prompt="a cat", api_key="bad-key")
    return {"errors": seen}


def more() -> dict[str, Any]:
    """Make the calls that the guide only mentions."""
    response = openai.Image.create(prompt="a cat", n=2, size="256x256", response_format="b64_json")
    seen = {"base64": [picture(base64.b64decode(item["b64_json"])) for item in response["data"]]}
    seen["models"] = [model["id"] for model in openai.Model.list()["data"]]
    return {**seen, **asyncio.run(without_waiting())}


async def without_waiting() -> dict[str, Any]:
    """Make the calls by their asynchronous names."""
    image, mask = Path("sunlit_lounge.png").read_bytes(), Path("mask.png").read_bytes()  # noqa: ASYNC240 - a script
    made, edited, varied = await asyncio.gather(
        openai.Image.acreate(prompt="a cat", n=1, size="256x256"),
        openai.Image.acreate_edit(image=image, mask=mask, prompt="a pool", n=1, size="256x256"),
        openai.Image.acreate_variation(image=image, n=1, size="256x256"),
    )
    try:
        await openai.Image.acreate(prompt="a cat", n=11)
    except openai.error.OpenAIError as e:
        failure = told(e)
    names = ("acreate", "acreate_edit", "acreate_variation")
    pictures = await asyncio.gather(*(asyncio.to_thread(download, one) for one in (made, edited, varied)))
    return {**dict(zip(names, pictures, strict=True)), "aerror": failure}


def once() -> dict[str, Any]:
    """Make one call that fails."""
    return {"error": caught(openai.Image.create, prompt="a cat", size="256x256")}


if __name__ == "__main__":
    openai.api_base, openai.api_key = sys.argv[1], "sk-test"
    print(json.dumps({"guide": guide, "errors": errors, "more": more, "once": once}[sys.argv[2]]()))
