"""The data sets that Flowsentry speaks, by name."""

from collections.abc import Mapping

from schemas.datasets import cicids2017, cicids2017_improved, unsw_nb15
from schemas.errors import ParamsError
from schemas.flow import FlowSchema

__all__ = ["SCHEMAS", "schema_named"]

SCHEMAS: Mapping[str, FlowSchema] = {
    schema.name: schema for schema in (cicids2017.SCHEMA, cicids2017_improved.SCHEMA, unsw_nb15.SCHEMA)
}


def schema_named(name: str) -> FlowSchema:
    """The schema of that name.

    Raises:
        ParamsError: there is none; the message lists those there are.
    """
    if name not in SCHEMAS:
        raise ParamsError(f"data.dataset {name!r} is not known: it is one of {', '.join(SCHEMAS)}")
    return SCHEMAS[name]
