"""An alert's parts in words that fit on one line. Text from a record is made harmless to a terminal."""

from schemas.alert import FlowRef, Reason, Severity

__all__ = ["COLOURS", "UNKNOWN", "endpoint", "printable", "reason_in_words"]

UNKNOWN = "–"
COLOURS = {
    Severity.LOW: "cyan",
    Severity.MEDIUM: "yellow",
    Severity.HIGH: "red",
    Severity.CRITICAL: "bold white on red",
}
# Units that say what a value is, not how much of it: "1 0 or 1" would not read.
_SILENT_UNITS = frozenset({"", "0 or 1", "class", "code", "name", "ratio", "sequence number", "IANA protocol number"})


def printable(text: str) -> str:
    """The text with every control character (an escape sequence, a line break) as `?`: whoever sends flows writes it."""
    return text if text.isprintable() else "".join(char if char.isprintable() else "?" for char in text)


def endpoint(flow: FlowRef) -> str:
    """`10.0.0.1:80 → 10.0.0.2:443`, with `–` for what the record does not say."""
    return f"{_side(flow.src_ip, flow.src_port)} → {_side(flow.dst_ip, flow.dst_port)}"


def _side(address: str | None, port: int | None) -> str:
    host = printable(address) if address else UNKNOWN
    if port is None:
        return host
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def reason_in_words(reason: Reason) -> str:
    """`flow_packets_s 2.0e6 packets/s, benign 0.1–5.0e4`; for a category `service "irc", 0.1% of benign flows`."""
    words = f"{printable(reason.feature)} {_value(reason)}"
    low, high = reason.benign_low, reason.benign_high
    if low is not None and high is not None:
        return f"{words}, benign {_number(low)}" + (f"–{_number(high)}" if high != low else "")
    if low is not None or high is not None:
        return f"{words}, benign " + (f"from {_number(low)}" if low is not None else f"up to {_number(high or 0.0)}")
    if reason.benign_share is not None:
        return f"{words}, {_percent(reason.benign_share)} of benign flows"
    return words


def _value(reason: Reason) -> str:
    if reason.value is None:
        return "missing"
    if isinstance(reason.value, str):
        return f'"{printable(reason.value)}"'
    unit = "" if reason.unit in _SILENT_UNITS else f" {printable(reason.unit)}"
    return _number(reason.value) + unit


def _number(value: float) -> str:
    """Four digits from 0.001 to 9999, else an exponent without its padding: `2.0e6`."""
    short = f"{value:.4g}"
    if value == 0 or ("e" not in short and abs(value) >= 1e-3):
        return short.replace("-0", "0") if value == 0 else short
    digits, _, exponent = f"{value:.1e}".partition("e")
    return f"{digits}e{int(exponent)}" if exponent else digits


def _percent(share: float) -> str:
    return "0%" if share == 0 else "<0.1%" if share < 0.001 else f"{share:.1%}"
