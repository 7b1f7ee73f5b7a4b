"""What the API takes and gives, as the OpenAPI document says it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

BoxText = Annotated[
    str,
    Field(
        pattern=r"^[0-9]{1,6},[0-9]{1,6},[0-9]{1,6},[0-9]{1,6}$",
        description="Look only here: left, top, right, bottom in pixels of the upright photo.",
        examples=["120,80,910,560"],
    ),
]
CropText = Annotated[
    Literal["auto", "none"],
    Field(
        description="auto: find the cars first, where the service has a detector; "
        "none: take the photo as a whole."
    ),
]


class Strict(BaseModel):
    """Parameters; names that do not exist are refused."""

    model_config = ConfigDict(extra="forbid")


class IdentifyQuery(Strict):
    """Parameters of identify."""

    top: Annotated[int, Field(ge=1, le=1000, description="How many candidates to give.")] = 5
    crop: CropText = "auto"
    box: BoxText | None = None
    coverage: Annotated[
        float | None,
        Field(
            gt=0,
            lt=1,
            description="Also give each car a set of names that holds the right one so often; "
            "one of the coverages that GET /v1/model names.",
            examples=[0.95],
        ),
    ] = None


class ExplainQuery(Strict):
    """Parameters of explain."""

    label: Annotated[
        str | None,
        Field(
            max_length=200,
            description="The class to explain; by default the most probable one of each car.",
            examples=["BMW M3 Coupe 2012"],
        ),
    ] = None
    crop: CropText = "auto"
    box: BoxText | None = None


class Parts(BaseModel):
    """A car's name and its parts; null where the level does not say, or the name has none."""

    label: str
    make: str | None
    model: str | None
    body: str | None
    year: int | None


class Candidate(Parts):
    """One possible car."""

    confidence: Annotated[float, Field(ge=0, le=1)]


class Answer(Candidate):
    """The finest answer that the calibrated probability supports."""

    level: Literal["exact", "model", "make", "unknown"]


class LabelSet(BaseModel):
    """Names of which one is the right one, as often as `coverage` says."""

    coverage: float
    candidates: list[Candidate]


Box = Annotated[list[int], Field(min_length=4, max_length=4)]


class Car(BaseModel):
    """A further car on the photo."""

    answer: Answer
    candidates: list[Candidate]
    box: Box
    set: LabelSet | None = None


class Failure(BaseModel):
    """Why a photo has no answer."""

    code: str
    message: str


class ModelName(BaseModel):
    """Which model answered."""

    name: str
    version: str
    sha256: str


_BMW: dict[str, Any] = {
    "label": "BMW M3 Coupe 2012",
    "make": "BMW",
    "model": "M3",
    "body": "Coupe",
    "year": 2012,
}
_MODEL: dict[str, Any] = {"name": "stanford-cars-lite2", "version": "1", "sha256": "9f2c..."}


class Result(BaseModel):
    """The result of one photo; `answer` is null where it failed, `error` where it did not."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "photo": "a.jpg",
                    "answer": {"level": "exact", **_BMW, "confidence": 0.94},
                    "candidates": [{**_BMW, "confidence": 0.94}],
                    "box": [120, 80, 910, 560],
                    "others": [],
                    "model": _MODEL,
                    "error": None,
                }
            ]
        }
    )

    photo: str
    answer: Answer | None
    candidates: list[Candidate]
    box: Box | None
    others: list[Car]
    model: ModelName
    error: Failure | None
    set: LabelSet | None = None


class Results(BaseModel):
    """The results of a request's photos, in their order."""

    results: list[Result]


class Limits(BaseModel):
    """What one request may have."""

    max_bytes: Annotated[int, Field(description="Of its photos together.")]
    max_pixels: Annotated[int, Field(description="Of each photo.")]
    max_photos: int


class GarageFacts(BaseModel):
    """The taught cars that are answered."""

    cars: int


class Model(BaseModel):
    """The model, and what the service allows."""

    name: str
    version: str
    sha256: str
    input_size: Annotated[int, Field(description="Side of its square input, in pixels.")]
    classes: list[Parts]
    newest_year: int | None
    accuracy: Annotated[dict[str, Any], Field(description="As the model's card has it.")]
    coverages: Annotated[list[float], Field(description="What `coverage` may be.")]
    detector: Annotated[bool, Field(description="Whether cars are looked for on each photo.")]
    explains: Annotated[bool, Field(description="Whether there are heat maps.")]
    teaching: Annotated[bool, Field(description="Whether cars may be taught.")]
    limits: Limits
    garage: GarageFacts | None


class TaughtCar(Parts):
    """A taught car."""

    photos: Annotated[int, Field(description="From how many it is known.")]


class Cars(BaseModel):
    """The taught cars, in the order of teaching."""

    cars: list[TaughtCar]


class FailedPhoto(BaseModel):
    """A photo that could not be used."""

    photo: str
    error: Failure


class TakenFor(Candidate):
    """A photo that the model is sure to know."""

    photo: str


class Lesson(TaughtCar):
    """What came of teaching."""

    added: list[str]
    skipped: list[str]
    failed: list[FailedPhoto]
    taken_for: list[TakenFor]


class FailedOne(Failure):
    """What is wrong with a photo."""

    photo: str


class Problem(BaseModel):
    """What went wrong (RFC 9457)."""

    type: str
    title: str
    status: int
    detail: Annotated[str, Field(description="For people; says what to do.")]
    instance: Annotated[str, Field(description="The request's id.")]
    code: Annotated[str, Field(description="For programs; stable.")]
    errors: Annotated[
        list[FailedOne] | None, Field(description="By photo, where all of them failed.")
    ] = None


class Health(BaseModel):
    """Whether the service is well."""

    status: str


def problem_responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """These statuses as problem documents, for the OpenAPI document."""
    return {
        status: {
            "description": _MEANING[status],
            "content": {
                "application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}
            },
        }
        for status in statuses
    }


_MEANING = {
    400: "No photo, or a request that cannot be read.",
    401: "No key, or a wrong one.",
    403: "Not allowed here.",
    404: "No such car.",
    408: "The upload came too slowly.",
    409: "A car of this name is there already.",
    413: "Too large, or too many photos.",
    415: "No image.",
    421: "The service does not go by the name that was asked for; see --allow-host.",
    422: "A broken image.",
    429: "Too many requests; see Retry-After.",
    501: "The model file carries no heat maps.",
    503: "No room for it now, or not ready; see Retry-After.",
}
_PHOTO = {"type": "string", "format": "binary"}


def body_schema(*, many: bool, fields: dict[str, Any] | None = None) -> dict[str, Any]:
    """A request body of photos, and of fields of text, for the OpenAPI document."""
    photo = {"type": "array", "items": _PHOTO, "minItems": 1} if many else _PHOTO
    required = ["photo", *(name for name in fields or {} if name == "name")]
    content: dict[str, Any] = {
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "properties": {"photo": photo, **(fields or {})},
                "required": required,
                "additionalProperties": False,
            }
        }
    }
    if fields is None:
        for media_type in ("image/*", "application/octet-stream"):
            content[media_type] = {"schema": _PHOTO}
    return {"requestBody": {"required": True, "content": content}}
