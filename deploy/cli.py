"""The `fovea` command."""

import pathlib
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress

import click
import httpx
from rich.console import Console
from rich.live import Live
from rich.table import Table

from deploy.chart.schema import CHART
from deploy.chart.values import ValuesError, plan_values
from deploy.evaluation.answers import AnswersError
from deploy.evaluation.asking import NobodyThere, Question
from deploy.evaluation.dataset import DatasetError
from deploy.evaluation.marking import Boxes
from deploy.evaluation.run import Evaluation, evaluate
from deploy.evaluation.schemas import SchemaError, response_format
from deploy.local import LocalStack, StackError
from deploy.placement import PlacementError, plan_catalog
from deploy.plan_table import plan_table, profiles_table
from deploy.processes import UnkillableError
from deploy.status_table import status_table, work_of
from gateway import __version__
from gateway.__main__ import main as gateway_main
from gateway.catalog.models import Catalog
from gateway.catalog.read import CatalogError, load_catalog
from gateway.errors import shortened
from gateway.tenants.keys import digest, new_key

_WATCH_EVERY_S = 2.0
_WIDTH = 140
_INTERRUPTED = 130

_CATALOGS = pathlib.Path(__file__).parent / "catalogs"


def _default_catalog() -> pathlib.Path:
    """The demo of this machine: on its GPU if it has one."""
    nvidia_smi = shutil.which("nvidia-smi")
    has_gpu = nvidia_smi is not None and subprocess.run([nvidia_smi, "-L"], capture_output=True, check=False).returncode == 0
    return _CATALOGS / ("gpu-demo.yaml" if has_gpu else "cpu-demo.yaml")


_CATALOG = click.argument("catalog", type=click.Path(path_type=pathlib.Path), default=_default_catalog, required=False)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="fovea")
def main() -> None:
    """Serve vision-language models on your own hardware."""


@main.command()
@_CATALOG
@click.option(
    "--port",
    type=click.IntRange(1, 65535),
    default=8000,
    show_default=True,
    help="The port of 127.0.0.1 that the gateway listens on.",
)
def up(catalog: pathlib.Path, port: int) -> None:
    """Serve CATALOG on this machine, and to it alone, until Ctrl-C: Ray, engines, gateway.

    Without CATALOG, small demo models are served.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        click.echo(f"fovea {__version__}: {catalog}")
        models = load_catalog(catalog)
        plan_catalog(models)
        with LocalStack(catalog, port, click.echo) as stack:
            click.echo(_how_to_ask(stack.url, models))
            stack.watch()
    except KeyboardInterrupt:
        click.echo("stopped; no process is left")
    except (CatalogError, PlacementError, StackError, UnkillableError) as error:
        sys.exit(_failed(error))


@main.command()
@click.argument("catalog", type=click.Path(path_type=pathlib.Path), required=False)
@click.option(
    "--values",
    "values",
    type=click.Path(path_type=pathlib.Path),
    multiple=True,
    help="Plan these values of the Helm chart instead, profile by profile; several are merged as Helm does.",
)
@click.option(
    "--chart",
    type=click.Path(path_type=pathlib.Path),
    default=CHART,
    help="The folder of the chart, for its defaults. Default: helm/fovea of the checkout that this was installed from.",
)
def plan(catalog: pathlib.Path | None, values: tuple[pathlib.Path, ...], chart: pathlib.Path) -> None:
    """Print where the models of CATALOG go: GPUs, memory, and how many requests they hold."""
    if catalog is not None and values:
        raise click.UsageError("say a catalog or --values, not both")
    try:
        if values:
            click.echo(profiles_table(plan_values(values, chart)))
        else:
            click.echo(plan_table(plan_catalog(load_catalog(catalog or _default_catalog()))))
    except (CatalogError, PlacementError, ValuesError) as error:
        sys.exit(_failed(error))


@main.command()
@click.argument("name")
def key(name: str) -> None:
    """Make an API key for NAME: print it, once, and the line for the file that FOVEA_API_KEYS_FILE names."""
    made = new_key()
    click.echo(f"key   {made}\nline  {name} {digest(made)}")


def _checked_url(_context: click.Context, _option: click.Parameter, url: str) -> str:
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise click.BadParameter(f"{error}, got {shortened(repr(url))}") from error
    if parsed.scheme not in {"http", "https"} or not parsed.host:
        raise click.BadParameter(f"must be http:// or https:// and a host, got {shortened(repr(url))}")
    return url


def _checked_key(_context: click.Context, _option: click.Parameter, key: str | None) -> str | None:
    if key is not None and not (key.isascii() and key.isprintable()):
        raise click.BadParameter("a key is of visible ASCII characters, since it is sent in a header")
    return key


_URL = click.option(
    "--url", default="http://127.0.0.1:8000", show_default=True, callback=_checked_url, help="Where the gateway is."
)
_API_KEY = click.option(
    "--api-key", envvar="OPENAI_API_KEY", callback=_checked_key, help="A key of the gateway's, if it asks for one."
)


@main.command()
@_URL
@_API_KEY
@click.option("--watch", is_flag=True, help="Show it again every two seconds, until Ctrl-C.")
def status(url: str, api_key: str | None, *, watch: bool) -> None:
    """Print the models of a running gateway: which can answer, what they have to do, and what the cache spares them."""
    try:
        with _gateway_at(url, api_key) as client:
            if watch:
                _watch(client)
            else:
                # A pipe has no width, and rich would take it for a narrow one.
                Console(width=None if sys.stdout.isatty() else _WIDTH).print(_status(client))
    except httpx.HTTPError as error:
        sys.exit(_failed(error))


def _watch(client: httpx.Client) -> None:
    with Live(_status(client), auto_refresh=False) as live, suppress(KeyboardInterrupt):
        while True:
            time.sleep(_WATCH_EVERY_S)
            live.update(_status(client), refresh=True)


def _status(client: httpx.Client) -> Table:
    listed = client.get("/v1/models").raise_for_status().json()["data"]
    own = [model["id"] for model in listed if "parent" not in model and "stands_for" not in model]
    models = [client.get(f"/v1/models/{name}").raise_for_status().json() for name in own]
    return status_table(models, work_of(client.get("/metrics").raise_for_status().text))


@main.group()
def cache() -> None:
    """Look after the answers that a running gateway has stored."""


@cache.command()
@_URL
@_API_KEY
@click.option("--model", help="Forget the answers of this model only.")
@click.option("--tenant", help="Forget the answers that the API key of this name was given only.")
@click.option("--all", "everything", is_flag=True, help="Forget all answers.")
def flush(url: str, api_key: str | None, model: str | None, tenant: str | None, *, everything: bool) -> None:
    """Forget stored answers: of a model whose weights have changed under the same name, say."""
    if everything == bool(model or tenant):
        raise click.UsageError("say --all, or which: --model, --tenant, or both")
    parameters = {name: value for name, value in (("model", model), ("tenant", tenant)) if value}
    try:
        with _gateway_at(url, api_key) as client:
            response = client.delete("/v1/cache", params=parameters)
            if response.is_client_error or response.is_server_error:
                sys.exit(_failed(click.ClickException(_reason(response))))
            click.echo(f"{response.json()['deleted']} answers forgotten")
    except httpx.HTTPError as error:
        sys.exit(_failed(error))


def _gateway_at(url: str, api_key: str | None) -> httpx.Client:
    return httpx.Client(base_url=url, headers={"authorization": f"Bearer {api_key}"} if api_key else {})


def _reason(response: httpx.Response) -> str:
    """What the gateway, or whatever else is at its address, says went wrong."""
    try:
        return str(response.json()["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return f"{response.url} answered {response.status_code}"


@main.command("evaluate")
@click.argument("dataset", type=click.Path(path_type=pathlib.Path))
@click.option("--model", required=True, help="Whom to ask.")
@click.option(
    "--schema", help="What answers that are objects have to fit: a file with a JSON Schema, or module:Class of pydantic."
)
@_URL
@_API_KEY
@click.option("--out", type=click.Path(path_type=pathlib.Path), help="Where to write. Default: evaluations/DATASET-MODEL.")
@click.option("--concurrency", default=16, show_default=True, type=click.IntRange(1, 1024), help="Rows asked at once.")
@click.option("--max-tokens", default=512, show_default=True, type=click.IntRange(1), help="The longest answer.")
@click.option("--temperature", default=0.0, show_default=True, type=click.FloatRange(0, 2), help="Chance in the answers.")
@click.option("--detail", type=click.Choice(["low", "high", "auto"]), help="How closely images are looked at.")
@click.option("--system", help="A system message before every question.")
@click.option("--limit", type=click.IntRange(1), help="Ask the first rows only, as many as this.")
@click.option(
    "--boxes",
    type=click.Choice(["sent", "thousandths"]),
    default="sent",
    show_default=True,
    help="What the numbers of a box count: pixels of the image as it was sent, or thousandths of its sides.",
)
@click.option("--seed", default=0, show_default=True, help="Of the intervals that are drawn by lot.")
def evaluate_command(
    *,
    dataset: pathlib.Path,
    model: str,
    schema: str | None,
    url: str,
    api_key: str | None,
    out: pathlib.Path | None,
    concurrency: int,
    max_tokens: int,
    temperature: float,
    detail: str | None,
    system: str | None,
    limit: int | None,
    boxes: Boxes,
    seed: int,
) -> None:
    """Ask a model the questions of DATASET, a JSONL file of images, questions and answers, and print how right it is.

    Ctrl-C keeps what was answered; the same command goes on from there. Exits with 1 where rows have no answer.
    """
    try:
        wanted = response_format(schema) if schema else None
        question = Question(model, wanted, max_tokens, temperature, detail, system)
        told = Evaluation(dataset, question, url, api_key, out, limit, concurrency, boxes, seed)
        sys.exit(1 if evaluate(told, Console(width=None if sys.stdout.isatty() else _WIDTH)) else 0)
    except KeyboardInterrupt:
        click.echo("stopped; what was answered is kept, and the same command goes on from there", err=True)
        sys.exit(_INTERRUPTED)
    except (AnswersError, DatasetError, NobodyThere, OSError, SchemaError) as error:
        sys.exit(_failed(error))


@main.command()
def gateway() -> None:
    """Run the gateway alone, against engines anywhere, as the FOVEA_ variables say."""
    gateway_main()


_QUESTION = '"messages": [{"role": "user", "content": "What do you see?"}], "max_tokens": 32'


def _how_to_ask(url: str, catalog: Catalog) -> str:
    if catalog.generating:
        path, model, asked = "chat/completions", next(iter(catalog.generating)), _QUESTION
    else:
        path, model, asked = "embeddings", next(iter(catalog.embedding)), '"input": "red dress with floral pattern"'
    return f"""
Ready. Ask it something:

    curl {url}/v1/{path} -H 'Content-Type: application/json' \\
      -d '{{"model": "{model}", {asked}}}'

or give the OpenAI SDK base_url="{url}/v1". Ctrl-C stops everything.
"""


def _failed(error: Exception) -> int:
    click.echo(str(error), err=True)
    return 1


if __name__ == "__main__":
    main()
