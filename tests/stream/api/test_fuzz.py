"""Whatever a client may send by the API's own page, and what it may not: never a fault of ours."""

from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis import Case, GenerationMode
from schemathesis.checks import (
    content_type_conformance,
    not_a_server_error,
    response_schema_conformance,
    status_code_conformance,
)
from schemathesis.core.result import Ok

from tests.stream.api.conftest import Api

CHECKS = [not_a_server_error, content_type_conformance, response_schema_conformance, status_code_conformance]
PREDICT, EACH_OTHER = 2000, 20


@pytest.mark.timeout(600)
def test_no_request_is_a_fault_of_the_server(api: Api) -> None:
    schema = schemathesis.openapi.from_url(f"{api.url}/openapi.json")
    operations = [found.ok() for found in schema.get_all_operations() if isinstance(found, Ok)]
    asked = 0
    for operation in operations:
        cases = st.one_of([operation.as_strategy(generation_mode=mode) for mode in GenerationMode])

        @settings(
            max_examples=PREDICT if operation.path == "/predict" else EACH_OTHER,
            deadline=None,
            derandomize=True,
            database=None,
            suppress_health_check=list(HealthCheck),
        )
        @given(cases)
        def ask(case: Case[Any]) -> None:
            nonlocal asked
            asked += 1
            case.call_and_validate(checks=CHECKS)

        ask()
    assert len(operations) == 6 and asked > PREDICT
