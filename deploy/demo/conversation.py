"""`python -m deploy.demo.conversation`: what `make demo` shows, a conversation by the openai package, printed as it happens."""

import argparse
import base64
import io
import pathlib
import signal
import sys
import time
from typing import Any

import openai
from PIL import Image, ImageDraw

from deploy.demo.inspection import QUESTION, SYSTEM, LocatedInspectionResult, Scene, draw_scene
from deploy.evaluation.marking import ENOUGH_IOU
from deploy.evaluation.scores import as_box, iou
from deploy.local import LocalStack, StackError

SCENE = 66
"""The seed of the part that is shown: a scene that no model was trained on, as all below a million."""
IN_WORDS = "What do you see?"

_CATALOG = pathlib.Path(__file__).parents[1] / "catalogs" / "cpu-demo.yaml"
_PICTURE = pathlib.Path("build") / "demo-inspection.png"
_SHOWN_AT = 3
_FRAME = "#e01b24"


def hold_conversation(url: str, saved: pathlib.Path) -> None:
    """Asks the gateway at `url` what its models are, and each that answers chats about a drawn part; writes that to `saved`.

    Raises openai.OpenAIError, pydantic.ValidationError: an answer did not come, or does not fit the schema.
    """
    client = openai.OpenAI(base_url=f"{url}/v1", api_key="unused")
    print(f'\n>>> client = OpenAI(base_url="{url}/v1")\n>>> client.models.list()')
    models = list(client.models.list())
    print(", ".join(model.id for model in models))
    names = [model.id for model in models if _sees_parts(model)]
    scene = draw_scene(SCENE)
    print(f"\nA picture is drawn. The truth about it: {scene.questions[IN_WORDS]}")
    _ask_in_words(client, names[-1], scene)
    results = {name: _ask_by_schema(client, name, scene) for name in names}
    _ask_again(client, names[-1], scene)
    save_boxed(scene, results[names[-1]], saved)
    print(f"\nThe picture, with the box that {names[-1]} answered drawn in: {saved}")


def _sees_parts(model: Any) -> bool:
    """Whether it answers chats, and is none of the adapters, which were taught something else."""
    told = model.model_extra or {}
    return told["kind"] == "generate" and not told.get("parent")


def _ask_in_words(client: openai.OpenAI, model: str, scene: Scene) -> None:
    print(f'\n>>> client.chat.completions.create(model="{model}", stream=True, messages=[... image, "{IN_WORDS}"])')
    stream = client.chat.completions.create(
        model=model,
        messages=_about(scene, IN_WORDS),
        max_tokens=60,
        temperature=0,
        stream=True,
        stream_options={"include_usage": True},
    )
    for chunk in stream:
        for choice in chunk.choices:
            print(choice.delta.content or "", end="", flush=True)
        if chunk.usage is not None:
            print(f"\n    ({chunk.usage.prompt_tokens} tokens in, the image among them, {chunk.usage.completion_tokens} out)")


def _ask_by_schema(client: openai.OpenAI, model: str, scene: Scene) -> LocatedInspectionResult:
    print(f'\n>>> client.chat.completions.parse(model="{model}", response_format=LocatedInspectionResult, messages=[...])')
    result: LocatedInspectionResult = _inspection(client, model, scene).parse().choices[0].message.parsed
    print(result.model_dump_json(indent=2))
    print(f"    (it fits the schema, and {'is true' if is_true(result, scene) else 'is not all true'})")
    return result


def is_true(result: LocatedInspectionResult, scene: Scene) -> bool:
    """Every word, and a box whose IoU with the true one is 0.5 or more."""
    truth = scene.located_result
    if result.model_dump(exclude={"bbox"}) != truth.model_dump(exclude={"bbox"}):
        return False
    said, meant = as_box(result.bbox), as_box(truth.bbox)
    return said is meant if said is None or meant is None else iou(said, meant) >= ENOUGH_IOU


def _ask_again(client: openai.OpenAI, model: str, scene: Scene) -> None:
    """One question about one image is computed once."""
    print(f'\n>>> client.chat.completions.parse(model="{model}", ...)  # the same question once more')
    started_s = time.monotonic()
    answer = _inspection(client, model, scene)
    print(f"    (x-fovea-cache: {answer.headers['x-fovea-cache']}, {1000 * (time.monotonic() - started_s):.0f} ms)")


def _inspection(client: openai.OpenAI, model: str, scene: Scene) -> Any:
    """The raw response of the SDK: what it parses, and its headers."""
    return client.chat.completions.with_raw_response.parse(
        model=model,
        messages=_about(scene, QUESTION),
        response_format=LocatedInspectionResult,
        max_tokens=400,
        temperature=0,
    )


def _about(scene: Scene, question: str) -> Any:
    """A conversation that asks it of the scene's picture."""
    content = [{"type": "image_url", "image_url": {"url": _as_url(scene.picture)}}, {"type": "text", "text": question}]
    return [{"role": "system", "content": SYSTEM}, {"role": "user", "content": content}]


def _as_url(picture: Image.Image) -> str:
    """A data: URL."""
    file = io.BytesIO()
    picture.save(file, "PNG")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


def save_boxed(scene: Scene, result: LocatedInspectionResult, path: pathlib.Path) -> None:
    """Writes the scene's picture, three times as large, with the result's box and type drawn in."""
    side = scene.picture.width * _SHOWN_AT
    shown = scene.picture.resize((side, side), Image.Resampling.LANCZOS)
    if result.bbox is not None:
        left, top, right, bottom = (edge * side / 1000 for edge in result.bbox)
        draw = ImageDraw.Draw(shown)
        draw.rectangle((left, top, max(left, right), max(top, bottom)), outline=_FRAME, width=_SHOWN_AT)
        draw.text((left, max(0, top - 6 * _SHOWN_AT)), result.defect_type, fill=_FRAME, font_size=5 * _SHOWN_AT)
    path.parent.mkdir(parents=True, exist_ok=True)
    shown.save(path)


def main() -> None:
    """Starts the demo models, holds the conversation, and stays up until Ctrl-C unless told `--once`."""
    parser = argparse.ArgumentParser(prog="python -m deploy.demo.conversation")
    parser.add_argument("--catalog", type=pathlib.Path, default=_CATALOG)
    parser.add_argument("--port", type=int, choices=range(1, 65536), metavar="PORT", default=8000)
    parser.add_argument("--picture", type=pathlib.Path, default=_PICTURE, help=f"written here (default: {_PICTURE})")
    parser.add_argument("--once", action="store_true", help="end after the conversation")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with LocalStack(arguments.catalog, arguments.port, print) as stack:
            hold_conversation(stack.url, arguments.picture)
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
