"""What a flow record is: the columns of a data set, their names in every dialect, and what its labels mean.

A `FlowSchema` holds one ordered tuple of features; every width in the code base derives from it. Nothing here reads or
writes: a header or a record's keys come in as strings, a `Binding` goes out.
"""

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property

import numpy as np

from schemas.errors import HeaderError, LabelError

__all__ = [
    "BENIGN",
    "Binding",
    "Derivation",
    "Dropped",
    "Family",
    "Feature",
    "FlowSchema",
    "Kind",
    "Metadata",
    "key_of",
]

BENIGN = "Benign"
UNKNOWN = "Unknown"
"""The family of flows that are like no benign one, nor a known attack."""
FLOAT32_MAX = float(np.finfo(np.float32).max)

_SEPARATORS = re.compile(r"[^a-z0-9]+")


def key_of(name: str) -> str:
    """The spelling that all dialects of one column name share: `" Flow Bytes/s"` and `FLOW_BYTES_S` → `flow_bytes_s`."""
    return _SEPARATORS.sub("_", name.lower()).strip("_")


class Kind(StrEnum):
    """How a feature's values are read and tokenized."""

    NUMERIC = "numeric"
    CATEGORICAL = "categorical"


@dataclass(frozen=True, slots=True, kw_only=True)
class Feature:
    """One model input. `blank` is the value that an empty cell stands for, where a release defines one."""

    name: str
    kind: Kind = Kind.NUMERIC
    unit: str = ""
    aliases: tuple[str, ...] = ()
    blank: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Metadata:
    """A column that travels into the alert and never into the model: an address, a port, a time, an id."""

    name: str
    aliases: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Dropped:
    """A column of the release that is neither feature nor metadata, and why."""

    name: str
    reason: str
    aliases: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """One attack family (or `Benign`): the label spellings that mean it and its MITRE ATT&CK technique ids."""

    name: str
    labels: tuple[str, ...]
    techniques: tuple[str, ...] = ()

    @property
    def is_attack(self) -> bool:
        return self.name != BENIGN


@dataclass(frozen=True, slots=True, kw_only=True)
class Derivation:
    """A feature that one dialect leaves out and that follows from others: `formula(**inputs)`, all float64[B] → float64[B]."""

    name: str
    inputs: tuple[str, ...]
    formula: Callable[..., np.ndarray]


@dataclass(frozen=True, slots=True)
class Binding:
    """Where each column of one header stands, by position.

    `features` and `metadata` map a column's name to its position; `label` and `family` are the positions of the label
    columns; `ignored` are header names that the schema does not know.
    """

    header: tuple[str, ...]
    features: Mapping[str, int]
    metadata: Mapping[str, int]
    labels: Mapping[str, int]
    missing: tuple[str, ...]
    ignored: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class FlowSchema:
    """The contract of one data set. `features` is THE ordered list: a feature's index is its place in every array."""

    name: str
    version: str
    title: str
    citation: str
    features: tuple[Feature, ...]
    metadata: tuple[Metadata, ...]
    dropped: tuple[Dropped, ...]
    label_columns: tuple[str, ...]
    families: tuple[Family, ...]
    headerless: tuple[str, ...] = ()
    derivations: tuple[Derivation, ...] = field(default=())

    @cached_property
    def names(self) -> tuple[str, ...]:
        return tuple(feature.name for feature in self.features)

    @cached_property
    def numeric(self) -> tuple[Feature, ...]:
        return tuple(feature for feature in self.features if feature.kind is Kind.NUMERIC)

    @cached_property
    def categorical(self) -> tuple[Feature, ...]:
        return tuple(feature for feature in self.features if feature.kind is Kind.CATEGORICAL)

    @cached_property
    def attack_families(self) -> tuple[Family, ...]:
        return tuple(family for family in self.families if family.is_attack)

    @cached_property
    def roles(self) -> Mapping[str, Feature | Metadata | Dropped | str]:
        """Every known spelling (as `key_of` gives it) → the column it means; a label column maps to its name."""
        roles: dict[str, Feature | Metadata | Dropped | str] = {}
        columns: Iterable[Feature | Metadata | Dropped] = (*self.features, *self.metadata, *self.dropped)
        for column in columns:
            for spelling in (column.name, *column.aliases):
                key = key_of(spelling)
                if key in roles and roles[key] is not column:
                    raise ValueError(f"schema {self.name}: two columns are spelled {spelling!r}")
                roles[key] = column
        roles.update((key_of(name), name) for name in self.label_columns)
        return roles

    @cached_property
    def _family_of_label(self) -> Mapping[str, Family]:
        return {key_of(label): family for family in self.families for label in (family.name, *family.labels)}

    @cached_property
    def family_by_name(self) -> Mapping[str, Family]:
        return {family.name: family for family in self.families}

    def knows(self, spelling: str) -> bool:
        """Whether some column, of whatever role, is spelled so."""
        return key_of(spelling) in self.roles

    def fingerprint(self) -> str:
        """sha256 over what decides a model's inputs and outputs: name, version, features in order, families."""
        content = {
            "name": self.name,
            "version": self.version,
            "features": [[feature.name, feature.kind.value, feature.unit] for feature in self.features],
            "families": [family.name for family in self.families],
        }
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    def bind(self, header: Sequence[str]) -> Binding:
        """Find each column of `header`; a doubled column that the release itself doubles is read once.

        Raises:
            HeaderError: no column is a feature of this data set, or two columns mean the same one.
        """
        features: dict[str, int] = {}
        metadata: dict[str, int] = {}
        labels: dict[str, int] = {}
        ignored: list[str] = []
        for position, spelling in enumerate(header):
            role = self.roles.get(key_of(spelling))
            match role:
                case Feature():
                    places, name = features, role.name
                case Metadata():
                    places, name = metadata, role.name
                case str():
                    places, name = labels, role
                case _:
                    if role is None:
                        ignored.append(spelling)
                    continue
            if name in places:
                if name in self.doubled:
                    continue
                raise HeaderError(
                    f"columns {header[places[name]]!r} (number {places[name] + 1}) and {spelling!r} "
                    f"(number {position + 1}) both mean {name!r}: keep one of them"
                )
            places[name] = position
        if not features:
            raise HeaderError(
                f"none of the {len(header)} columns is a feature of {self.name}: the first is "
                f"{_shorten(header[0]) if header else ''!r}, expected for example {self.names[0]!r}. "
                "Is it another data set, or a file without a header?"
            )
        derivable = {
            derivation.name for derivation in self.derivations if all(name in features for name in derivation.inputs)
        }
        missing = tuple(name for name in self.names if name not in features and name not in derivable)
        return Binding(tuple(header), features, metadata, labels, missing, tuple(ignored))

    @cached_property
    def doubled(self) -> frozenset[str]:
        """Features that the release itself prints twice, with the same values."""
        return frozenset(column.name.removesuffix("_1") for column in self.dropped if column.name.endswith("_1"))

    def derive(self, columns: dict[str, np.ndarray]) -> None:
        """Fill in, in place and row by row, what is missing (NaN) and follows from other columns; float64[B] each.

        What follows but fits no float32 stays missing.
        """
        for derivation in self.derivations:
            if all(name in columns for name in derivation.inputs):
                with np.errstate(over="ignore", invalid="ignore"):
                    derived = derivation.formula(**{name: columns[name] for name in derivation.inputs})
                derived = np.where(np.abs(derived) <= FLOAT32_MAX, derived, np.nan)
                given = columns.get(derivation.name)
                columns[derivation.name] = derived if given is None else np.where(np.isnan(given), derived, given)

    def family_of(self, label: str) -> Family:
        """The family that a label means, in any dialect: case, dashes and trailing spaces do not matter.

        `… - Attempted` (a payload never arrived) counts as benign, as the authors of the improved data set advise.

        Raises:
            LabelError: a label that the schema does not list.
        """
        key = key_of(label)
        family = self._family_of_label.get(key)
        if family is not None:
            return family
        if key.endswith("_attempted") and key.removesuffix("_attempted") in self._family_of_label:
            return self._family_of_label[key_of(BENIGN)]
        known = ", ".join(family.name for family in self.families)
        raise LabelError(f"label {_shorten(label)!r} is not one of {self.name}'s: {known}")


def _shorten(text: str, limit: int = 80) -> str:
    return text if len(text) <= limit else text[:limit] + "…"
