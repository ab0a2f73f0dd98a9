"""The errors that a caller may want to tell apart.

FlowsentryError
├── HeaderError   a CSV header or a record's keys do not fit the schema
├── LabelError    a label that the data set does not have
├── ParamsError   a wrong key or value in params.yaml, the environment or an option
├── BundleError   a bundle that is damaged, incomplete or of an unknown version
└── FencedError   another instance of the service has this one's name
"""

__all__ = ["BundleError", "FencedError", "FlowsentryError", "HeaderError", "LabelError", "ParamsError"]


class FlowsentryError(Exception):
    """Something that the user can mend; its message says what and how. Commands print it and exit 2."""


class HeaderError(FlowsentryError):
    """A CSV header or a record's keys do not fit the schema."""


class LabelError(FlowsentryError):
    """A label that the data set does not have."""


class ParamsError(FlowsentryError):
    """A wrong key or value in params.yaml, the environment or an option."""


class BundleError(FlowsentryError):
    """A bundle that is damaged, incomplete or of an unknown version."""


class FencedError(FlowsentryError):
    """Another instance of the service has this one's name, and Kafka listens to that one now."""
