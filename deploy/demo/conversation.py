"""`python -m deploy.demo.conversation`: what `make demo` shows, a conversation by the openai package, printed as it happens."""

import argparse
import base64
import io
import pathlib
import signal
import sys
import time
from typing import Any, Literal

import openai
from PIL import Image, ImageDraw
from pydantic import BaseModel, Field

from deploy.local import LocalStack, StackError

_CATALOG = pathlib.Path(__file__).parents[1] / "catalogs" / "cpu-demo.yaml"
_NOISE = "The demo models have random weights: what they say is noise, and how it comes to you is real."


class ProductInspectionResult(BaseModel):
    """What an inspection of a part found. The lengths keep a model of random weights from talking for ever."""

    defect_detected: bool
    defect_type: Literal["none", "scratch", "dent", "crack", "stain", "missing_hole"]
    defect_location: str = Field(max_length=40)
    severity: Literal["none", "minor", "major", "critical"]
    confidence: float = Field(ge=0, le=1)
    notes: str = Field(max_length=80)


def hold_conversation(url: str) -> None:
    """Asks the gateway at `url` what its models are, and each that answers chats about a picture of a part.

    Raises openai.OpenAIError, pydantic.ValidationError: an answer did not come, or does not fit the schema.
    """
    client = openai.OpenAI(base_url=f"{url}/v1", api_key="unused")
    print(f'\n>>> client = OpenAI(base_url="{url}/v1")\n>>> client.models.list()')
    models = list(client.models.list())
    print(", ".join(model.id for model in models))
    names = [model.id for model in models if (model.model_extra or {})["kind"] == "generate"]
    picture = _picture()
    print(f"\n{_NOISE}")
    _ask_in_words(client, names[0], picture)
    for name in names:
        _ask_by_schema(client, name, picture)
    _ask_again(client, names[0], picture)


def _ask_in_words(client: openai.OpenAI, model: str, picture: str) -> None:
    print(f'\n>>> client.chat.completions.create(model="{model}", stream=True, messages=[... image, "What do you see?"])')
    stream = client.chat.completions.create(
        model=model,
        messages=[
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "What do you see?"},
                    {"type": "image_url", "image_url": {"url": picture}},
                ],
            }
        ],
        max_tokens=40,
        temperature=0.8,
        seed=1,
        stream=True,
        stream_options={"include_usage": True},
    )
    for chunk in stream:
        for choice in chunk.choices:
            print(choice.delta.content or "", end="", flush=True)
        if chunk.usage is not None:
            print(f"\n    ({chunk.usage.prompt_tokens} tokens in, the image among them, {chunk.usage.completion_tokens} out)")


def _ask_by_schema(client: openai.OpenAI, model: str, picture: str) -> None:
    print(f'\n>>> client.chat.completions.parse(model="{model}", response_format=ProductInspectionResult, messages=[...])')
    result = _inspection(client, model, picture).parse().choices[0].message.parsed
    print(result.model_dump_json(indent=2))
    print("    (it fits the schema)")


def _ask_again(client: openai.OpenAI, model: str, picture: str) -> None:
    """One question about one image is computed once."""
    print(f'\n>>> client.chat.completions.parse(model="{model}", ...)  # the same question once more')
    started_s = time.monotonic()
    answer = _inspection(client, model, picture)
    print(f"    (x-fovea-cache: {answer.headers['x-fovea-cache']}, {1000 * (time.monotonic() - started_s):.0f} ms)")


def _inspection(client: openai.OpenAI, model: str, picture: str) -> Any:
    """The raw response of the SDK: what it parses, and its headers."""
    return client.chat.completions.with_raw_response.parse(
        model=model,
        messages=[
            {"role": "system", "content": "You inspect machined parts."},
            {
                "role": "user",
                "content": [
                    {"type": "image_url", "image_url": {"url": picture}},
                    {"type": "text", "text": "Is there a defect on this part?"},
                ],
            },
        ],
        response_format=ProductInspectionResult,
        max_tokens=400,
        temperature=0,
    )


def _picture() -> str:
    """A plate with three holes and a scratch, as a data: URL."""
    image = Image.new("RGB", (448, 336), "#d9dde2")
    draw = ImageDraw.Draw(image)
    draw.rounded_rectangle((64, 56, 384, 280), radius=28, fill="#8a949e", outline="#5d666f", width=4)
    for x, y in ((112, 104), (336, 104), (112, 232)):
        draw.ellipse((x - 18, y - 18, x + 18, y + 18), fill="#2f353b")
    draw.line((210, 120, 290, 210), fill="#e8ecf0", width=3)
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def main() -> None:
    """Starts the demo models, holds the conversation, and stays up until Ctrl-C unless told `--once`."""
    parser = argparse.ArgumentParser(prog="python -m deploy.demo.conversation")
    parser.add_argument("--catalog", type=pathlib.Path, default=_CATALOG)
    parser.add_argument("--port", type=int, choices=range(1, 65536), metavar="PORT", default=8000)
    parser.add_argument("--once", action="store_true", help="end after the conversation")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with LocalStack(arguments.catalog, arguments.port, print) as stack:
            hold_conversation(stack.url)
            if not arguments.once:
                print(f"\nThe gateway stays up at {stack.url}; Ctrl-C ends it.", flush=True)
                stack.watch()
    except StackError as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        pass
    print("\nStopped; no process is left.")


if __name__ == "__main__":
    main()
