"""How trouble is answered: ``{"detail": "…"}``, never a stack trace."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse

from prunella.api.hub import TooManyStreamsError
from prunella.errors import (
    HealingRefusedError,
    PermanentError,
    PrunellaError,
    StoreError,
    TransientError,
    UnknownServiceError,
    UnknownWordError,
)

_log = structlog.get_logger("prunella.api")

_STATUS: dict[type[PrunellaError], int] = {
    UnknownServiceError: 404,
    UnknownWordError: 422,
    HealingRefusedError: 409,
    TooManyStreamsError: 429,
    StoreError: 503,
    TransientError: 503,
    PermanentError: 409,
    PrunellaError: 500,
}


def answer_troubles(app: FastAPI) -> None:
    """Give `app` its answers to expected trouble, bad requests and defects."""
    app.add_exception_handler(PrunellaError, _expected)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(Exception, _defect)


def _status(error: PrunellaError) -> int:
    return next(_STATUS[kind] for kind in type(error).__mro__ if kind in _STATUS)


async def _expected(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, PrunellaError)
    status = _status(error)
    if status >= 500:
        _log.warning("request failed", path=request.url.path, error=str(error))
    content: dict[str, Any] = {"detail": str(error)}
    if isinstance(error, HealingRefusedError):
        content["vetoes"] = error.vetoes
    return JSONResponse(content, status)


async def _invalid(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    faults: Sequence[Any] = error.errors()
    words = [f"{'.'.join(str(part) for part in fault['loc'])}: {_said(fault)}" for fault in faults]
    return JSONResponse({"detail": "; ".join(words)}, 422)


def _said(fault: Any) -> str:
    """The validator's message, without what it puts before ours."""
    return str(fault["msg"]).removeprefix("Value error, ")


async def _defect(request: Request, error: Exception) -> JSONResponse:
    """A defect: answered without its inside; it goes on to the server, which logs its trace."""
    _log.error("request crashed", path=request.url.path, error=repr(error))
    return JSONResponse({"detail": "internal error"}, 500, headers={"Connection": "close"})
