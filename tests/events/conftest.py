"""Instances of every event type, built from the models themselves."""

from __future__ import annotations

import types
from collections.abc import Callable
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import pytest
from pydantic import BaseModel
from pydantic.fields import FieldInfo

SAMPLES: dict[Any, Any] = {str: "text", int: 7, float: 0.5, bool: True, type(None): None, Any: {"any": [1, None]}}


def sample(annotation: Any, last: bool) -> Any:
    """A JSON-ready value of a field's type: of a choice the first alternative, or the last."""
    origin, args = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return sample(args[0], last)
    if origin is Literal:
        return args[-1] if last else args[0]
    if origin in (Union, types.UnionType):
        return sample(args[-1] if last else args[0], last)
    if origin is list:
        return [sample(args[0], last)]
    if origin is dict:
        return {"key": sample(args[1], last)}
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return instance(annotation, required_only=False, last=last)
    return SAMPLES[annotation]


def instance(model: type[BaseModel], *, required_only: bool, last: bool = False) -> dict[str, Any]:
    wanted: dict[str, FieldInfo] = {
        name: field for name, field in model.model_fields.items() if field.is_required() or not required_only
    }
    return {name: sample(field.annotation, last) for name, field in wanted.items()}


@pytest.fixture
def minimal() -> Callable[[type[BaseModel]], dict[str, Any]]:
    """The smallest values that a model accepts."""
    return lambda model: instance(model, required_only=True)


@pytest.fixture(params=["first alternatives", "last alternatives"])
def full(request: pytest.FixtureRequest) -> Callable[[type[BaseModel]], dict[str, Any]]:
    """A value for every field of a model."""
    return lambda model: instance(model, required_only=False, last=request.param == "last alternatives")
