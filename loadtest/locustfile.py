"""Users that ask about images: in words, streamed, and by schema.

    locust -f loadtest/locustfile.py --host http://127.0.0.1:8000                              its web page, on port 8089
    locust -f loadtest/locustfile.py --host http://127.0.0.1:8000 --headless -u 8 -t 60s       a run in the terminal

With a stream, the time to first token has its own line in the statistics. `MODEL` chooses the model (default: the first that
the gateway lists), `OPENAI_API_KEY` is sent as the key. Images are drawn, each one different, so that no cache helps.
"""

import base64
import io
import json
import os
import random
import time
from typing import Any

from locust import HttpUser, between, events, task
from PIL import Image, ImageDraw

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "defect_detected": {"type": "boolean"},
        "severity": {"enum": ["none", "minor", "major"]},
        "count": {"type": "integer", "minimum": 0, "maximum": 99},
    },
    "required": ["defect_detected", "severity", "count"],
    "additionalProperties": False,
}


class ImageAsker(HttpUser):
    """Somebody who has a picture and a question, waits for the answer, and soon has another."""

    wait_time = between(0.05, 0.5)

    def on_start(self) -> None:
        """Takes a key, and finds out whom to ask."""
        if key := os.environ.get("OPENAI_API_KEY"):
            self.client.headers["Authorization"] = f"Bearer {key}"
        self.model = os.environ.get("MODEL") or self.client.get("/v1/models").json()["data"][0]["id"]

    @task(2)
    def ask_in_words(self) -> None:
        """A whole answer."""
        self._post("words", self._question("What do you see?"))

    @task(2)
    def ask_by_schema(self) -> None:
        """JSON; an answer that does not fit is a failure, and so is one that was cut."""
        by_schema = {"type": "json_schema", "json_schema": {"name": "inspection", "schema": SCHEMA}}
        question = self._question("Is there a defect?") | {"response_format": by_schema, "max_tokens": 200}
        with self.client.post("/v1/chat/completions", json=question, name="schema", catch_response=True) as response:
            if response.status_code != 200:
                response.failure(response.text)
                return
            choice = response.json()["choices"][0]
            if choice["finish_reason"] != "stop" or not _fits(choice["message"]["content"]):
                response.failure(f"not the JSON that was asked for: {choice}")

    @task(3)
    def ask_streamed(self) -> None:
        """A stream; its first words are timed, and it must come to its end."""
        question = self._question("Describe the part.") | {"stream": True}
        started_s = time.perf_counter()
        with self.client.post(
            "/v1/chat/completions", json=question, name="stream", stream=True, catch_response=True
        ) as response:
            last = b""
            for line in response.iter_lines():
                if line and not last:
                    self._tell_first_token(time.perf_counter() - started_s)
                last = line or last
            if response.status_code != 200 or last != b"data: [DONE]":
                response.failure(f"the stream ended with {last[:200]!r}")

    def _post(self, name: str, question: dict[str, Any]) -> None:
        self.client.post("/v1/chat/completions", json=question, name=name)

    def _tell_first_token(self, seconds: float) -> None:
        events.request.fire(  # type: ignore[no-untyped-call]
            request_type="STREAM",
            name="time to first token",
            response_time=seconds * 1000,
            response_length=0,
            exception=None,
            context={},
        )

    def _question(self, words: str) -> dict[str, Any]:
        content = [{"type": "text", "text": words}, {"type": "image_url", "image_url": {"url": picture()}}]
        return {"model": self.model, "messages": [{"role": "user", "content": content}], "max_tokens": 32}


def picture() -> str:
    """A part with a scratch somewhere, as a data: URL of some 20 KB."""
    image = Image.effect_noise((448, 336), 24).convert("RGB")
    draw = ImageDraw.Draw(image)
    x, y = random.randrange(400), random.randrange(300)
    draw.line((x, y, x + random.randrange(-60, 60), y + random.randrange(-60, 60)), fill="white", width=3)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=70)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def _fits(text: str) -> bool:
    try:
        answer = json.loads(text)
    except json.JSONDecodeError:
        return False
    return isinstance(answer, dict) and answer.keys() == SCHEMA["properties"].keys()
