"""The example of a schema file is a document that the cloud takes: whoever copies it begins with something that works."""
from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from simulated import SCHEMAS, Cloud

EXAMPLES = [pytest.param(kind, example, id=f"{kind}-{number}") for kind, schema in SCHEMAS.kinds.items()
            for number, example in enumerate(schema.document["examples"], 1)]
MADE_BY_AGENTS = {"node": "n1"}
SUITABLE = {"instance": 1}
"""Which example of a kind others can refer to, if not the first: a floating IP needs an interface."""


def put_with_all_it_names(cloud: Cloud, kind: str, name: str, spec: Mapping[str, Any]) -> Any:
    schema = SCHEMAS.kinds[kind]
    for reference in schema.references(spec):
        target = SCHEMAS.kinds[reference.kind].document["examples"][SUITABLE.get(reference.kind, 0)]
        put_with_all_it_names(cloud, reference.kind, reference.name, target)
    return cloud.put(kind, name, spec)


@pytest.mark.parametrize(("kind", "example"), EXAMPLES)
def test_every_example_is_taken_and_comes_back_as_it_was_written(cloud: Cloud, kind: str, example: dict[str, Any]) -> None:
    name = MADE_BY_AGENTS.get(kind, "example")
    schema = SCHEMAS.kinds[kind]
    shown = put_with_all_it_names(cloud, kind, name, example).document
    assert shown["spec"] == {field: value for field, value in schema.filled(example).items() if field not in schema.hidden}
    again = cloud.put(kind, name, example).document
    assert (again["uid"], again["generation"]) == (shown["uid"], shown["generation"])
