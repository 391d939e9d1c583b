"""`python -m deploy.grammar`, with the xgrammar and the vocabularies that the engines of the demo have."""

import asyncio
import json
import os
import pathlib
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

import httpx
import psutil
import pytest

from deploy.compiling.vllm_checks import vllm_checks
from gateway.structured.grammar_client import Constraint, GrammarClient
from tests.conftest import CATALOG, free_port

ROOT = pathlib.Path(__file__).parents[2]
DEMO = ROOT / "deploy" / "catalogs" / "cpu-demo.yaml"
MIB = 1024**2


class Grammars:
    """The process, starting from when it is made."""

    def __init__(self, folder: pathlib.Path, catalog: pathlib.Path, *options: str) -> None:
        port = free_port()
        self._log = folder / "log"
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "deploy.grammar", "--catalog", str(catalog), "--port", str(port), *options],
                cwd=ROOT,
                stderr=log,
                env=os.environ | {"XDG_CACHE_HOME": str(folder), "FOVEA_REDIS_URL": "redis://:secret@nowhere"},
            )
        self.client = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60, trust_env=False)

    @property
    def log(self) -> str:
        return self._log.read_text()

    def wait(self) -> None:
        """Returns once it can be asked."""
        deadline = time.monotonic() + 200
        while time.monotonic() < deadline:
            assert self.process.poll() is None, self.log
            try:
                if self.client.get("/healthz").status_code == 200:
                    return
            except httpx.TransportError:
                pass
            time.sleep(0.1)
        raise AssertionError(f"not up within 200 s: {self.log}")

    def ask(self, kind: str, text: str, model: str = "small") -> httpx.Response:
        return self.client.post("/v1/grammars", json={"model": model, "kind": kind, "text": text})

    def verdict(self, kind: str, text: str, model: str = "small") -> tuple[bool, str | None]:
        response = self.ask(kind, text, model)
        for _ in range(10):  # on a machine that others use
            if "too busy" not in response.text:
                break
            response = self.ask(kind, text, model)
        assert response.status_code == 200, response.text
        verdict = response.json()
        assert verdict["seconds"] >= 0
        return verdict["accepted"], verdict["reason"]

    def keeper(self) -> psutil.Process:
        (keeper,) = psutil.Process(self.process.pid).children()
        return keeper

    def worker(self) -> psutil.Process:
        """The one that is at a question."""
        return within(20, lambda: next(iter(self.keeper().children()), None))

    def end(self) -> None:
        self.client.close()
        self.process.terminate()
        self.process.wait(30)


_Found = TypeVar("_Found")


def within(seconds: float, look: Callable[[], _Found | None]) -> _Found:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found = look()
        if found is not None:
            return found
        time.sleep(0.005)
    raise AssertionError(f"not within {seconds} s")


def objects(count: int, **more: Any) -> str:
    return json.dumps({"type": "object", "properties": {f"p{i}": {"type": "string"} for i in range(count)}, **more})


ORDINARY = {
    "person": json.dumps(
        {"type": "object", "properties": {"name": {"type": "string"}, "age": {"type": "integer"}}, "required": ["name", "age"]}
    ),
    "any object": '{"type": "object"}',
    "nullable": json.dumps({"anyOf": [{"type": "string", "maxLength": 80}, {"type": "null"}]}),
    "fifty required": objects(50, required=[f"p{i}" for i in range(50)]),
    "a hundred optional": objects(100),
    "an enum of 1,000": json.dumps({"enum": [f"value number {i}" for i in range(1000)]}),
    "recursive": json.dumps(
        {
            "$defs": {"node": {"type": "object", "properties": {"next": {"$ref": "#/$defs/node"}, "name": {"type": "string"}}}},
            "$ref": "#/$defs/node",
        }
    ),
    "an invoice": json.dumps(
        {
            "type": "object",
            "properties": {
                "number": {"type": "string", "pattern": "^[A-Z]{2}-[0-9]{6}$"},
                "date": {"type": "string", "format": "date"},
                "lines": {
                    "type": "array",
                    "maxItems": 50,
                    "items": {
                        "type": "object",
                        "properties": {"sku": {"type": "string"}, "quantity": {"type": "integer", "minimum": 1}},
                        "required": ["sku", "quantity"],
                        "additionalProperties": False,
                    },
                },
            },
            "required": ["number", "date", "lines"],
        }
    ),
}

HANGING = {
    "3,000 optional properties": objects(3000),
    "at least 100 of 200 optional properties": objects(200, minProperties=100),
}
"""Each takes xgrammar 0.2.8 more than 6 s, of a vocabulary of some hundred tokens."""


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Grammars]:
    """Of the demo's models, with the limits that it has by itself."""
    folder = tmp_path_factory.mktemp("demo")
    grammars = Grammars(folder, DEMO, "--seconds", "2")
    try:
        grammars.wait()
        yield grammars
    finally:
        grammars.end()


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Grammars]:
    """Of models without tokenizers, with limits of its own: much time, little memory, one worker."""
    folder = tmp_path_factory.mktemp("strict")
    catalog = folder / "catalog.yaml"
    catalog.write_text(CATALOG.replace("nowhere", str(folder / "nowhere")))
    limits = ("--seconds", "30", "--memory-mib", "64", "--mask-ms", "3", "--workers", "1", "--queue", "1")
    grammars = Grammars(folder, catalog, *limits)
    try:
        grammars.wait()
        yield grammars
    finally:
        grammars.end()


@pytest.mark.parametrize("model", ["small", "large"])
@pytest.mark.parametrize("text", ORDINARY.values(), ids=ORDINARY.keys())
def test_ordinary_schemas_are_accepted(demo: Grammars, text: str, model: str) -> None:
    assert demo.verdict("json_schema", text, model) == (True, None)


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("regex", r"[A-Z]{2}-\d{6}"),
        ("grammar", 'root ::= "yes" | "no"'),
        ("grammar", 'start: "yes" | "no"'),
        ("choice", '["yes", "no", "a \\"quoted\\" line\\n", "été"]'),
    ],
)
def test_what_is_no_schema_is_compiled_too(demo: Grammars, kind: str, text: str) -> None:
    assert demo.verdict(kind, text) == (True, None)


@pytest.mark.parametrize(
    ("kind", "text", "reason"),
    [
        ("json_schema", "{nope", "Expecting property name enclosed in double quotes"),
        ("json_schema", '{"$ref": "#/nowhere"}', "Cannot find field nowhere in #/nowhere"),
        ("json_schema", '{"type": "integer", "multipleOf": 3}', "vLLM refuses it"),
        ("json_schema", '{"items":' * 30_000 + "{}" + "}" * 30_000, "maximum recursion depth exceeded"),
        ("regex", "(" * 30_000 + "a" + ")" * 30_000, "Nest layer exceeded the maximum limit"),
        ("regex", "a\0b", "NUL"),
        ("grammar", "root ::= nowhere", "nowhere"),
    ],
    ids=["no JSON", "no such $ref", "multipleOf", "deep", "parentheses", "NUL", "no such rule"],
)
def test_what_does_not_compile_is_refused_in_the_compiler_s_words(demo: Grammars, kind: str, text: str, reason: str) -> None:
    is_accepted, said = demo.verdict(kind, text)
    assert not is_accepted
    assert reason in (said or "")
    assert "/project/" not in (said or "")
    assert len(said or "") <= 300


@pytest.mark.parametrize("text", HANGING.values(), ids=HANGING.keys())
def test_one_that_hangs_is_refused_after_its_time_and_the_next_is_served(demo: Grammars, text: str) -> None:
    started_s = time.monotonic()
    assert demo.verdict("json_schema", text) == (False, "took more than 2 s")
    assert time.monotonic() - started_s >= 2
    assert demo.verdict("json_schema", ORDINARY["person"]) == (True, None)


def test_one_that_eats_memory_is_refused_and_the_next_is_served(strict: Grammars) -> None:
    text = json.dumps({"enum": [f"value number {i}" for i in range(20_000)]})
    assert strict.verdict("json_schema", text, "tiny") == (False, "took more than 64 MiB")
    assert strict.verdict("json_schema", ORDINARY["person"], "tiny") == (True, None)


def test_one_that_would_hold_up_an_engine_at_each_token_is_refused(strict: Grammars) -> None:
    text = json.dumps({"anyOf": [{"type": "string", "pattern": f"^.*{i}.*$"} for i in range(1000)]})
    expected = (False, "would take an engine more than 3 ms for each token")
    assert strict.verdict("json_schema", text, "tiny") == expected


def test_models_without_a_tokenizer_have_bytes_and_the_log_says_so_once(strict: Grammars) -> None:
    assert strict.verdict("json_schema", ORDINARY["an invoice"], "tiny") == (True, None)
    assert strict.verdict("json_schema", ORDINARY["an invoice"], "mute") == (True, None)
    assert strict.log.count("tokenizer_not_loaded") == 1


def test_questions_beyond_the_queue_are_turned_away_at_once(strict: Grammars) -> None:
    with ThreadPoolExecutor(8) as pool:
        first = pool.submit(strict.ask, "json_schema", HANGING["3,000 optional properties"], "tiny")
        at_it = strict.worker()
        at_it.suspend()
        asked = [pool.submit(strict.ask, "json_schema", ORDINARY["person"], "tiny") for _ in range(7)]
        turned_away = within(10, lambda: answers if len(answers := answered(asked)) >= 6 else None)
        assert not first.done()
        at_it.kill()
        assert first.result().status_code == 503
    assert {(answer.status_code, answer.headers["retry-after"]) for answer in turned_away} == {(503, "1")}
    assert strict.verdict("json_schema", ORDINARY["person"], "tiny") == (True, None)


def answered(asked: list[Future[httpx.Response]]) -> list[httpx.Response]:
    return [future.result() for future in asked if future.done()]


def test_a_killed_worker_says_nothing_of_its_constraint_and_the_next_is_served(demo: Grammars) -> None:
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(demo.ask, "json_schema", HANGING["3,000 optional properties"])
        demo.worker().kill()
        assert asked.result().status_code == 503
    assert demo.verdict("json_schema", ORDINARY["person"]) == (True, None)


def test_a_worker_that_gets_no_core_says_nothing_of_its_constraint(demo: Grammars) -> None:
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(demo.ask, "json_schema", HANGING["3,000 optional properties"])
        demo.worker().suspend()
        assert asked.result().json() == {"error": "the machine was too busy to tell"}
    assert demo.verdict("json_schema", ORDINARY["person"]) == (True, None)


def test_a_killed_keeper_is_replaced_and_the_process_lives(demo: Grammars) -> None:
    before = demo.keeper()
    before.kill()
    within(30, lambda: demo.ask("json_schema", ORDINARY["person"]).status_code == 503 or None)
    demo.wait()
    assert demo.verdict("json_schema", ORDINARY["person"]) == (True, None)
    assert demo.keeper().pid != before.pid
    assert demo.process.poll() is None


def test_a_hostile_one_does_not_hold_up_the_others(demo: Grammars) -> None:
    with ThreadPoolExecutor(1) as pool:
        hostile = pool.submit(demo.verdict, "json_schema", HANGING["3,000 optional properties"])
        demo.worker()
        served = 0
        while not hostile.done():
            served += demo.verdict("json_schema", ORDINARY["person"]) == (True, None)
        assert hostile.result() == (False, "took more than 2 s")
    assert served > 5


def test_as_many_hostile_ones_as_workers_hold_up_the_others_for_their_time_at_most(demo: Grammars) -> None:
    with ThreadPoolExecutor(2) as pool:
        hostile = [pool.submit(demo.ask, "json_schema", HANGING["3,000 optional properties"]) for _ in range(2)]
        within(20, lambda: len(demo.keeper().children()) == 2 or None)
        started_s = time.monotonic()
        answer = demo.ask("json_schema", ORDINARY["person"])
        assert time.monotonic() - started_s < 4
        assert answer.status_code in {200, 503}
        assert {future.result().status_code for future in hostile} <= {200, 503}


def test_the_gateway_s_client_understands_it(demo: Grammars) -> None:
    counted: list[str] = []

    async def ask() -> list[str | None]:
        async with GrammarClient(str(demo.client.base_url), NoStore(), counted.append, at_most_s=30) as client:
            texts = (ORDINARY["an invoice"], '{"$ref": "#/nowhere"}', ORDINARY["an invoice"])
            return [await client.verdict("small", Constraint("json_schema", text)) for text in texts]

    assert asyncio.run(ask()) == [None, "Cannot find field nowhere in #/nowhere", None]
    assert counted == ["accepted", "refused"]


class NoStore:
    async def get(self, model: str, digest: bytes) -> bytes | None:
        return None

    async def put(self, model: str, digest: bytes, verdict: bytes) -> None:
        pass


def test_no_secret_of_the_gateway_reaches_a_worker(demo: Grammars) -> None:
    assert psutil.Process(demo.process.pid).environ()["FOVEA_REDIS_URL"] == "redis://:secret@nowhere"
    assert [name for name in demo.keeper().environ() if name.startswith("FOVEA_")] == []


def test_what_is_no_question_is_a_400_that_says_why(demo: Grammars) -> None:
    def ask(**document: object) -> httpx.Response:
        return demo.client.post("/v1/grammars", json=document)

    refused = {
        "must be an object of model, kind and text": ask(model="small", kind="regex"),
        "each a text": ask(model="small", kind="regex", text=5),
        "of model, kind and text,": ask(model="small", kind="regex", text="a", more=1),
        "it has small, large": ask(model="nobody", kind="regex", text="a"),
        "there are json_schema, regex, grammar, choice": ask(model="small", kind="lark", text="a"),
        "a list of texts": ask(model="small", kind="choice", text="[1]"),
        "must be JSON": ask(model="small", kind="choice", text="yes"),
        "the text is longer than": ask(model="small", kind="regex", text="a" * (MIB + 1)),
        "the body is longer than": ask(model="small", kind="regex", text="a" * (3 * MIB)),
        "is not JSON": demo.client.post("/v1/grammars", content=b"{nope"),
    }
    for reason, response in refused.items():
        assert response.status_code == 400, reason
        assert reason in response.json()["error"]
    assert demo.client.get("/v1/grammars").status_code == 405


def test_the_process_that_is_asked_is_small_and_knows_no_torch(demo: Grammars) -> None:
    process = psutil.Process(demo.process.pid)
    assert process.memory_info().rss < 120 * MIB
    assert [mapped.path for mapped in process.memory_maps() if "torch" in mapped.path or "xgrammar" in mapped.path] == []


def test_the_keeper_that_forks_has_one_thread(demo: Grammars) -> None:
    assert demo.keeper().num_threads() == 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_nothing_outlives_it(tmp_path: pathlib.Path, number: signal.Signals) -> None:
    catalog = tmp_path / "catalog.yaml"
    catalog.write_text(CATALOG.replace("nowhere", str(tmp_path / "nowhere")))
    grammars = Grammars(tmp_path, catalog, "--seconds", "60")
    try:
        grammars.wait()
        with ThreadPoolExecutor(1) as pool:
            pool.submit(grammars.ask, "json_schema", HANGING["3,000 optional properties"], "tiny")
            below = [grammars.worker(), grammars.keeper()]
            grammars.process.send_signal(number)
            _, alive = psutil.wait_procs(below, 20)
            assert alive == []
    finally:
        grammars.end()


def test_vllm_s_checks_are_vllm_s_own() -> None:
    from vllm.v1.structured_output import backend_xgrammar, utils  # noqa: PLC0415  # it takes ten seconds

    cut_out = vllm_checks()
    schemas: list[dict[str, Any]] = [
        {"type": "integer", "multipleOf": 2},
        {"type": "array", "uniqueItems": True},
        {"type": "string", "format": "color"},
        {"type": "string", "format": "date"},
        {"type": "string", "pattern": "a", "maxLength": 3},
        {"properties": {"a": {"allOf": [{}, {}]}}},
        {"type": "object", "propertyNames": {"pattern": "a"}, "properties": {}},
        {"type": "object", "properties": {"a": {"type": "string"}}},
    ]
    said = [cut_out.has_unsupported_json_features(schema) for schema in schemas]
    assert said == [backend_xgrammar.has_xgrammar_unsupported_json_features(schema) for schema in schemas]
    assert said == [True, True, True, False, True, True, True, False]
    choices = ["yes", 'a "quoted" one', "two\nlines", "\\"]
    assert cut_out.choice_as_grammar(choices) == utils.choice_as_grammar(choices)
    for grammar in ('root ::= "a"', 'start: "a"', "# nothing"):
        assert cut_out.is_likely_lark(grammar) == utils.grammar_is_likely_lark(grammar)
