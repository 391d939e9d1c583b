"""Which model a request goes to, and which comes next if that one fails it."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from functools import partial
from typing import TypeAlias

from gateway.catalog.entry import Answerer
from gateway.catalog.image_rules import Sizes
from gateway.catalog.models import Catalog, served_name
from gateway.errors import InvalidField, ModelNotFound, NoModelFits, RequestError, shortened
from gateway.images.sized import Image, SizedImage
from gateway.pipeline.images import all_sized, check_context
from gateway.pipeline.prepare import Asked, Understood, written
from gateway.routing.choose import Choice, Chooser, Present, Standing, Target
from gateway.routing.signals import Signals, applies, tokens_of
from gateway.wire.chat import ChatCompletionRequest, JsonSchemaFormat

_SHOWN = 8
"""Models that a header names: longer ones are not taken by everybody."""


class Doubt(Enum):
    """Why a model may not do, though it could be asked; from the least reason on."""

    LANGUAGE = "language"
    """It was not trained for it, and may answer in it all the same."""
    CONTEXT = "context"


@dataclass(frozen=True, slots=True)
class Way:
    """A model that may answer, with the request's images as it gets them, and why it.

    `prompt_tokens` is how long its prompt is, its words by an estimate. `over` are the ways that the rules put before it, each
    with why another is taken now.
    """

    asked: Asked
    images: list[SizedImage]
    prompt_tokens: int
    choice: Choice
    over: tuple["PassedOver", ...] = ()


PassedOver: TypeAlias = tuple[Standing | Doubt, Way]


@dataclass(frozen=True, slots=True)
class Preview:
    """Where a request would go, and why.

    `rules` have the tier that each asks for and whether it applies, by name; `ways` are in their order, and `lacking` says of
    models, by what requests call them and by their own names, why they do not take it.
    """

    signals: Signals
    rules: Mapping[str, tuple[str, bool]]
    ways: list[Way]
    lacking: Mapping[tuple[str, str], RequestError]


class Routes:
    """The ways of requests among the models of `catalog`; `present` says how one is doing right now."""

    def __init__(self, catalog: Catalog, present: Callable[[str], Present]) -> None:
        self._catalog = catalog
        self._models = catalog.answerers
        self._chooser = Chooser(catalog, present)
        self.present = present
        self._longest_of: dict[str, float] = {}
        by_size = sorted(catalog.generating, key=lambda name: catalog.models[name].parameters_b)
        self._by_size = (*by_size, *catalog.providers)
        self._told_names = (*catalog.answerers, *catalog.adapters)

    def models(self, name: str) -> tuple[str, ...]:
        """The models that a name stands for. Raises ModelNotFound."""
        if name in self._catalog.embedding_names:
            return self._catalog.embedding_names[name]
        if not self._chooser.knows(name):
            raise unknown_model(name, self._told_names)
        return tuple(dict.fromkeys(model for target in self._chooser.targets([name]) for model in target.models))

    def targets(self, request: ChatCompletionRequest) -> tuple[Target, ...]:
        """What the names in `model` and `models` stand for.

        Raises ModelNotFound; InvalidField: it stands for models that make embeddings.
        """
        names = [request.model, *(request.models or ())]
        for place, name in enumerate(names):
            if self._chooser.knows(name):
                continue
            param = "model" if place == 0 else f"models[{place - 1}]"
            if name in self._catalog.embedding_names:
                raise InvalidField(f"'{name}' makes embeddings, and answers no chats: ask it at /v1/embeddings.", param=param)
            raise unknown_model(name, self._told_names, param=param)
        return self._chooser.targets(names)

    def check(self, asked: Understood, targets: Sequence[Target]) -> None:
        """Passes a request that one of the models may take, as far as that is known before its images are here.

        Raises NoModelFits; where there is but one model, what that lacks.
        """
        lacking: dict[str, RequestError] = {}
        for target in targets:
            for name in target.models:
                if name not in lacking:
                    try:
                        asked.check(name, self._models[name])
                    except RequestError as error:
                        lacking[name] = _bare(error)
                    else:
                        return
        raise _nothing_fits(asked.request.model, lacking)

    def longest_answer_s(self, targets: Sequence[Target]) -> float:
        """The most that one of the models may take for an answer."""
        return max(map(self._longest_s, targets))

    def _longest_s(self, target: Target) -> float:
        """Looked up: `auto` stands for all models, and each request asks."""
        known = self._longest_of.get(target.name)
        if known is None:
            known = max(self._models[name].longest_answer_s for name in target.models)
            self._longest_of[target.name] = known
        return known

    def ways(self, asked: Understood, targets: Sequence[Target], images: list[Image], language: str | None) -> Iterator[Way]:
        """Every model that takes the request, the best first.

        One that may be too small for it by an estimate, or that was not trained for `language`, comes after the others of its
        standing. Raises as `check` does, before the first.
        """
        lacking: dict[str, RequestError] = {}
        doubtful: list[tuple[Doubt, Way]] = []
        found = False
        standing = Standing.OPEN
        work = _Work(asked, images)
        for choice in self._chooser.choices(targets, partial(self._signals, work)):
            if choice.standing != standing:
                # Who may do, and has room, comes before who has none.
                yield from _likeliest_first(doubtful)
                doubtful.clear()
                standing = choice.standing
            way = self._way(work, choice, lacking)
            if way is None:
                continue
            found = True
            doubt = _doubt(way, language)
            if doubt is not None:
                doubtful.append((doubt, way))
            else:
                yield replace(way, over=(*way.over, *doubtful)) if doubtful else way
        if not found:
            raise _nothing_fits(asked.request.model, lacking)
        yield from _likeliest_first(doubtful)

    def _way(self, work: "_Work", choice: Choice, lacking: dict[str, RequestError]) -> Way | None:
        """The way to a model; None where it does not take the request, with what it lacks put into `lacking`."""
        model = self._models[choice.model]
        try:
            work.asked.check(choice.model, model)
            images, tokens = work.images_for(choice.model, model)
        except RequestError as error:
            lacking[choice.model] = _bare(error)
            return None
        over = tuple(self._passed_over(work, choice.over)) if choice.over else ()
        return Way(work.asked.of(choice.model, model, choice.target.adapter), images, work.prompt_tokens + tokens, choice, over)

    def _passed_over(self, work: "_Work", choices: Iterable[Choice]) -> Iterator["PassedOver"]:
        for better in choices:
            way = self._way(work, better, {})
            if way is not None:
                yield better.standing, way

    def preview(self, asked: Understood, targets: Sequence[Target], images: list[Image], language: str | None) -> Preview:
        """All that decides where the request would go now. Raises as `check` does."""
        work = _Work(asked, images)
        signals = self._signals(work)
        lacking: dict[str, RequestError] = {}
        choices = list(self._chooser.choices(targets, lambda: signals))
        for choice in choices:
            self._way(work, choice, lacking)
        names = [(served_name(one.model, one.target.adapter), one.model) for one in choices]
        return Preview(
            signals,
            {name: (rule.tier, applies(rule, signals)) for name, rule in self._catalog.routing.rules.items()},
            list(self.ways(asked, targets, images, language)),
            {(served, name): lacking[name] for served, name in names if name in lacking},
        )

    def _signals(self, work: "_Work") -> Signals:
        looks_closely = any(image.detail in ("high", "original") for image in work.asked.images)
        return Signals(
            images=len(work.images),
            visual_tokens=self._visual_tokens(work) if work.images else 0,
            prompt_tokens=work.prompt_tokens,
            schema_bytes=_schema_bytes(work.asked.request),
            detail="high" if looks_closely else None,
        )

    def _visual_tokens(self, work: "_Work") -> int:
        """As the smallest model counts them that takes them all."""
        for name in self._by_size:
            model = self._models[name]
            if len(work.images) > model.images_per_request:
                continue  # the usual reason, without the price of an error
            try:
                work.asked.check(name, model)
                return work.images_for(name, model)[1]
            except RequestError:
                continue
        return 0


class _Work:
    """A request whose images are here, and what they become for the models that were looked at."""

    def __init__(self, asked: Understood, images: list[Image]) -> None:
        self.asked = asked
        self.images = images
        self.prompt_tokens = _prompt_tokens(asked.request)
        self._sized: dict[Sizes, tuple[list[SizedImage], int]] = {}

    def images_for(self, name: str, model: Answerer) -> tuple[list[SizedImage], int]:
        """See `fitted`; and how many tokens they are. They are sized once for all models that get the same of them."""
        if not self.images:
            return [], 0
        known = self._sized.get(model.image_sizes)
        if known is None:
            sized = all_sized(self.asked.images, self.images, model)
            known = self._sized[model.image_sizes] = sized, sum(image.tokens for image in sized)
        check_context(known[1], name, model)
        return known


def unknown_model(name: str, models: Iterable[str], param: str = "model") -> ModelNotFound:
    """The error for a name that stands for nothing in the catalog, where one of `models` could have been named."""
    known = ", ".join(models) or "none"
    return ModelNotFound(f"The model '{shortened(name)}' does not exist. Models: {known}.", param=param)


def only_model(targets: Sequence[Target]) -> str | None:
    """The one model that may answer; None where there are several."""
    first = targets[0].models
    return first[0] if len(first) == 1 and all(target.models == first for target in targets) else None


def spoken(headers: Mapping[str, str]) -> str | None:
    """The language that the request is said to be for (RFC 9110, 8.5), the first if there are several; its main tag only."""
    said = headers.get("content-language", "").split(",")[0].split("-")[0].strip().lower()
    return said or None


def route_header(way: Way, after: Mapping[str, str]) -> str:
    """What was asked for, how that led to the model, and which models were passed over, or had failed before, and why."""
    said = [way.choice.target.name]
    if way.choice.target.leaning is not None:
        said.append(f"leaning={way.choice.target.leaning}")
    said.append(f"tier={way.choice.tier}")
    if way.choice.rules:
        said.append(f"rules={','.join(way.choice.rules)}")
    if way.over:
        over = [f"{better.asked.served}:{why.value}" for why, better in way.over]
        more = [] if len(over) <= _SHOWN else [f"and {len(over) - _SHOWN} more"]
        said.append(f"over={','.join([*over[:_SHOWN], *more])}")
    if after:
        said.append(f"after={','.join(f'{name}:{code}' for name, code in after.items())}")
    return "; ".join(said)


def _doubt(way: Way, language: str | None) -> Doubt | None:
    model = way.asked.model
    if way.prompt_tokens + (way.asked.request.most_tokens or 1) > model.context_tokens:
        return Doubt.CONTEXT
    speaks = language is None or model.languages is None or language in model.languages
    return None if speaks else Doubt.LANGUAGE


def _likeliest_first(doubtful: Iterable[tuple[Doubt, Way]]) -> list[Way]:
    reasons = list(Doubt)
    return [way for _, way in sorted(doubtful, key=lambda one: reasons.index(one[0]))]


def _prompt_tokens(request: ChatCompletionRequest) -> int:
    """Of its words, and of what it says of tools. Raises InvalidField: that is nested too deeply."""
    tools = request.model_dump(include={"tools"}, exclude_none=True, warnings=False) if request.tools else None
    return tokens_of(request.word_bytes + (len(written(tools)) if tools else 0))


def _schema_bytes(request: ChatCompletionRequest) -> int:
    """Raises InvalidField: it is nested too deeply."""
    if isinstance(request.response_format, JsonSchemaFormat):
        return len(written(request.response_format.json_schema.json_schema))
    if request.structured_outputs is not None and request.structured_outputs.json_schema is not None:
        return len(written(request.structured_outputs.json_schema))
    return 0


def _bare(error: RequestError) -> RequestError:
    """The error without the frames that it has passed: they hold the body of the request, and may come to hold the error."""
    error.__cause__ = error.__context__ = None
    return error.with_traceback(None)


def _nothing_fits(name: str, lacking: dict[str, RequestError]) -> RequestError:
    """The error to raise; nothing is left in `lacking`.

    Whoever raises it is in its traceback: did he hold it in turn, what he holds would stay until the garbage collector runs.
    """
    errors = list(lacking.items())
    lacking.clear()
    if len(errors) == 1:
        return errors[0][1]
    told = " ".join(f"{model}: {error.message}" for model, error in errors)
    params = {error.param for _, error in errors}
    return NoModelFits(
        f"No model of '{shortened(name)}' takes the request. {told}", param=params.pop() if len(params) == 1 else None
    )
