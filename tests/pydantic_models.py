"""Models as people write them for `client.chat.completions.parse`."""

import datetime as dt
import decimal
import enum
import ipaddress
import uuid
from typing import Annotated, Any, Literal, Optional

from pydantic import BaseModel, ConfigDict, Field, HttpUrl, RootModel, StringConstraints


class Colour(enum.Enum):
    RED = "red"
    GREEN = "green"


class Grade(enum.IntEnum):
    GOOD = 1
    BAD = 2


class Part(BaseModel):
    """A part, described."""

    count: int = Field(ge=0, le=10, description="How many there are")
    weight_kg: float | None = None


class Item(BaseModel):
    name: str = Field(min_length=1, max_length=20, title="Name", examples=["a bolt"])
    colour: Colour
    grade: Grade
    part: Part
    parts: list[Part] = Field(min_length=1, max_length=3)
    spare: Part | None = None
    side: Literal["left", "right", 3]
    kind: Literal["item"] = "item"


class Tree(BaseModel):
    value: int
    children: list["Tree"] = []


class Chain(BaseModel):
    title: str
    next: Optional["Chain"] = None
    old: int = Field(deprecated=True, json_schema_extra={"readOnly": True})


class Cat(BaseModel):
    kind: Literal["cat"]
    lives: int


class Dog(BaseModel):
    kind: Literal["dog", "wolf"]
    name: str


class Pet(BaseModel):
    pet: Cat | Dog = Field(discriminator="kind")
    any_of_them: int | str | Cat | None


class Texts(BaseModel):
    day: dt.date
    moment: dt.datetime
    time: dt.time
    length: dt.timedelta
    identity: uuid.UUID
    code: Annotated[str, StringConstraints(pattern=r"^[A-Z]{3}-\d+$", max_length=12)]
    address: ipaddress.IPv4Address
    long_address: ipaddress.IPv6Address


class Loose(BaseModel):
    """Whose schema allows what the model itself refuses."""

    amount: decimal.Decimal = Field(max_digits=8, decimal_places=2)
    url: HttpUrl


class Numbers(BaseModel):
    positive: int = Field(gt=0, lt=100)
    share: float = Field(ge=0, le=1)
    pair: list[int] = Field(min_length=2, max_length=2)
    step: int = Field(multiple_of=5, ge=0, le=100)


class Maps(BaseModel):
    model_config = ConfigDict(extra="forbid")

    counts: dict[str, int]
    by_colour: dict[Colour, str]
    parts: dict[str, list[Part]]
    named: dict[Annotated[str, StringConstraints(pattern="^x_")], int]
    triple: tuple[int, str, bool]
    numbers: tuple[int, ...]
    anything: Any
    more: dict[str, Any]


class Open(BaseModel):
    model_config = ConfigDict(extra="allow")

    __pydantic_extra__: dict[str, int]
    title: str


class Parts(RootModel[list[Part]]):
    """A list at the root."""


MODELS: tuple[type[BaseModel], ...] = (Part, Item, Tree, Chain, Pet, Texts, Loose, Numbers, Maps, Open, Parts)
