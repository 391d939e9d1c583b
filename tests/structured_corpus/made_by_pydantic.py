"""Schemas that Pydantic makes of classes, as its users hand them over: `Class.model_json_schema()`.

`STRICT` are those that OpenAI's SDK makes of them for `client.chat.completions.parse`.
"""

import datetime as dt
import decimal
import enum
import uuid
from typing import Annotated, Any, Final, Literal

from openai.lib._pydantic import to_strict_json_schema
from pydantic import (
    AnyUrl,
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeInt,
    PositiveFloat,
    StringConstraints,
    TypeAdapter,
)


class Currency(enum.StrEnum):
    EUR = "EUR"
    USD = "USD"
    GBP = "GBP"


class LineItem(BaseModel):
    description: str
    quantity: int = 1
    unit_price: decimal.Decimal
    discount: float | None = None


class Invoice(BaseModel):
    """An invoice with what it charges for."""

    number: str
    issued: dt.date
    due: dt.date | None = None
    currency: Currency
    lines: list[LineItem]
    paid: bool = False


class Priority(enum.IntEnum):
    LOW = 1
    MEDIUM = 2
    HIGH = 3


class Ticket(BaseModel):
    subject: str = Field(max_length=80, description="What it is about, in a few words")
    priority: Priority
    tags: list[str] = Field(default_factory=list, max_length=8)
    opened: dt.datetime
    ticket_id: uuid.UUID


class Step(BaseModel):
    explanation: str
    output: str


class MathReasoning(BaseModel):
    steps: list[Step]
    final_answer: str


class Cat(BaseModel):
    kind: Literal["cat"]
    indoor: bool


class Dog(BaseModel):
    kind: Literal["dog"]
    breed: str | None
    weight_kg: PositiveFloat


class Bird(BaseModel):
    kind: Literal["bird"]
    wingspan_cm: float = Field(ge=5, le=400)
    caged: bool = True


class Household(BaseModel):
    pets: list[Annotated[Cat | Dog | Bird, Field(discriminator="kind")]]
    address: str


class Comment(BaseModel):
    author: str
    text: str
    replies: list["Comment"] = []


class Point(BaseModel):
    x: float
    y: float


class Detection(BaseModel):
    label: str
    corners: tuple[Point, Point]
    score: float = Field(ge=0, le=1)


class Scene(BaseModel):
    model_config = ConfigDict(extra="forbid", title="What the camera sees")

    detections: list[Detection]
    counts: dict[str, int]
    weather: Literal["sun", "rain", "snow", "fog"] | None = None


class Address(BaseModel):
    street: str
    city: str
    postcode: Annotated[str, StringConstraints(pattern=r"^[0-9]{5}$")]
    country: Annotated[str, StringConstraints(min_length=2, max_length=2)] = "DE"


class Customer(BaseModel):
    model_config = ConfigDict(alias_generator=lambda name: name.title().replace("_", ""), populate_by_name=True)

    full_name: str
    home_address: Address
    work_address: Address | None = None
    birth_year: Annotated[int, Field(ge=1900, le=2030)]


class Reading(BaseModel):
    at: AwareDatetime
    value: float
    unit: Literal["C", "F", "K"]
    duration: dt.timedelta | None = None


class Thermometer(BaseModel):
    serial: str = Field(pattern=r"^SN-\d{8}$")
    readings: list[Reading] = Field(min_length=1, max_length=24)


class Recipe(BaseModel):
    name: str
    servings: NonNegativeInt
    ingredients: dict[str, str]
    steps: list[str] = Field(min_length=1)
    source: AnyUrl | None = None


class Employee(BaseModel):
    name: str
    manager: "Employee | None" = None
    reports: "list[Employee]" = Field(default_factory=list)
    skills: set[str] = Field(default_factory=set)


class Answer(BaseModel):
    """Answer with a verdict, and say how sure you are."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"verdict": True, "sure": 0.9, "because": "It is red."}]})

    verdict: bool
    sure: float = Field(gt=0, lt=1)
    because: str = Field(description="One sentence", examples=["It is red."])


class Payment(BaseModel):
    amount: Annotated[decimal.Decimal, Field(max_digits=10, decimal_places=2)]
    method: Literal["cash", "card"]
    approval: str | None


class TillSlip(BaseModel):
    shop: str
    opened_at: dt.time
    payments: list[Payment] | None
    customer_number: int | str | None = None


class Page(BaseModel):
    number: int = Field(ge=1)
    blocks: "list[TextBlock | TableBlock | FigureBlock]"


class TextBlock(BaseModel):
    text: str
    bold: bool = False


class TableBlock(BaseModel):
    rows: list[list[str | float | None]]


class FigureBlock(BaseModel):
    caption: str
    legend: dict[str, Literal["solid", "dashed", "dotted"]]


class Document(BaseModel):
    title: str | None
    pages: list[Page]
    metadata: dict[str, Any] = {}


class Slot(BaseModel):
    every_minutes: Annotated[int, Field(multiple_of=15, gt=0)]
    room: str


class Colour(enum.Enum):
    RED = "red"
    GREEN = "green"
    BLUE = "blue"


class Bead(BaseModel):
    colour: Colour = Colour.RED
    holes: Literal[1, 2, 4]


class Necklace(BaseModel):
    beads: Annotated[list[Bead], Field(min_length=10)]
    clasp: Bead | None = Field(default=None, deprecated=True)


class Candidate(BaseModel):
    first_name: Annotated[str, StringConstraints(min_length=1, strip_whitespace=True)]
    email: Annotated[str, StringConstraints(pattern=r"^[^@\s]+@[^@\s]+\.[a-z]{2,}$")]
    years: Annotated[float, Field(ge=0, le=60)]
    languages: dict[str, Literal["A1", "A2", "B1", "B2", "C1", "C2"]]
    references: tuple[str, ...]


class Element(BaseModel):
    tag: Literal["div", "span", "button", "input"]
    attributes: list["Attribute"]
    children: list["Element"]


class Attribute(BaseModel):
    name: str
    value: str


class Wireframe(BaseModel):
    ui: Element
    width: int
    dark: bool


MODELS: Final[tuple[type[BaseModel], ...]] = (
    Invoice, Ticket, Household, Comment, Scene, Customer, Thermometer, Recipe, Employee, Answer, TillSlip, Document, Slot,
    Necklace, Candidate,
)  # fmt: skip

STRICT: Final[tuple[type[BaseModel], ...]] = (MathReasoning, Invoice, Household, Wireframe, Document, Thermometer)


def schemas() -> dict[str, dict[str, Any]]:
    """By the name of the class."""
    made = {model.__name__: model.model_json_schema() for model in MODELS}
    made |= {f"{model.__name__} strict": to_strict_json_schema(model) for model in STRICT}
    made["list of LineItem"] = TypeAdapter(list[LineItem]).json_schema()
    made["Cat or Dog"] = TypeAdapter(Cat | Dog).json_schema()
    made["pair"] = TypeAdapter(tuple[int, Annotated[str, Field(max_length=3)]] | None).json_schema()
    return made
