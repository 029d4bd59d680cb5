"""The API keeps to its own schema: schemathesis makes requests of it, good and bad, and checks the answers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from clients import Remote, Studio, served
from hypothesis import HealthCheck, given, settings

schemathesis = pytest.importorskip("schemathesis", reason="needs schemathesis")

EXAMPLES = 12


def test_every_operation_is_described(shared: Studio) -> None:
    schema = shared.get("/api/openapi.json").json()
    assert schema["openapi"].startswith("3.1")
    for path, methods in schema["paths"].items():
        for method, operation in methods.items():
            assert operation.get("description"), f"{method} {path} has no description"
            assert "401" in operation["responses"]
            for status, answer in operation["responses"].items():
                if int(status) >= 400:
                    assert answer["content"]["application/json"]["schema"]["$ref"].endswith("/Problem")


def test_answers_are_as_the_schema_says(tmp_path: Path) -> None:
    from schemathesis.checks import not_a_server_error
    from schemathesis.specs.openapi import checks

    wanted = [
        not_a_server_error,
        checks.status_code_conformance,
        checks.content_type_conformance,
        checks.response_schema_conformance,
        checks.negative_data_rejection,
    ]
    with served(tmp_path) as studio:
        schema = schemathesis.openapi.from_dict(studio.get("/api/openapi.json").json())
        operations = [result.ok() for result in schema.get_all_operations()]
        assert len(operations) > 20
        identifier = studio.start()
        studio.wait(identifier, "done")
        job = studio.job(identifier)
        for operation in operations:
            checked(operation, studio, wanted, {"jobs": identifier, "pictures": job["content"]})()


def checked(operation: Any, studio: Remote, wanted: list[Any], known: dict[str, str]) -> Callable[[], None]:
    """A test of one operation. Half of its identifiers are of a run or a picture that is there."""

    key = {"authorization": studio.headers["authorization"]}

    @settings(
        max_examples=EXAMPLES, deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck)
    )
    @given(case=operation.as_strategy())
    def check(case: Any) -> None:
        if (
            "id" in (case.path_parameters or {})
            and len(str(case.path_parameters["id"])) % 2 == 0
            and case.method != "DELETE"
        ):
            case.path_parameters["id"] = known[operation.path.split("/")[2]]
        case.call_and_validate(studio.place, headers=key, checks=wanted)

    return check
