"""Shapes that several resources share: lists, bounds, bodies that refuse what they do not know."""

from __future__ import annotations

from typing import Annotated, Generic, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from prunella.wire import Wire

T = TypeVar("T")

MAX_PAGE_COUNT = 1000

Cursor = Annotated[int, Field(ge=1, lt=2**63)]
Limit = Annotated[int, Field(ge=1, le=MAX_PAGE_COUNT)]
Name = Annotated[str, Field(min_length=1, max_length=200)]
Text = Annotated[str, Field(max_length=1000)]


class Listing(Wire, Generic[T]):
    """Items, newest first where they have a time. ``next`` is the ``before`` of the following
    page, null at the end.
    """

    items: list[T]
    next: int | None = None


class Trouble(Wire):
    """Why a request was not carried out."""

    detail: str


class Refusal(Trouble):
    """Why guards refused: each guard's name with its reason."""

    vetoes: dict[str, str]


class Input(BaseModel):
    """What a client sends: unknown fields and other types are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Paging(BaseModel):
    """Which part of a list."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    limit: Limit = 100
    service: Name | None = None
    before: Cursor | None = None
