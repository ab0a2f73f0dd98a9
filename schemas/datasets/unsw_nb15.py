"""UNSW-NB15: the 45-column partition and the raw 49-column release, which has no header, no `rate`, and blanks for zeros."""

import numpy as np

from schemas.flow import BENIGN, Derivation, Family, Feature, FlowSchema, Kind, Metadata

__all__ = ["SCHEMA"]


def _numeric(name: str, unit: str, *aliases: str, blank: float | None = None) -> Feature:
    return Feature(name=name, unit=unit, aliases=aliases, blank=blank)


def _categorical(name: str) -> Feature:
    return Feature(name=name, kind=Kind.CATEGORICAL, unit="name")


def packet_rate(*, spkts: np.ndarray, dpkts: np.ndarray, dur: np.ndarray) -> np.ndarray:
    """`rate` as the partition has it: gaps between packets per second; 0 for a flow without duration. f64[B] → f64[B]."""
    gaps = spkts + dpkts - 1.0
    rate = np.divide(gaps, dur, out=np.zeros_like(dur), where=dur > 0)
    return np.where(np.isnan(gaps + dur), np.nan, rate)


SCHEMA = FlowSchema(
    name="unsw-nb15",
    version="1",
    title="UNSW-NB15 (45-column partition and raw 49-column release)",
    citation=(
        "N. Moustafa, J. Slay: UNSW-NB15: a comprehensive data set for network intrusion detection systems. MilCIS 2015."
    ),
    features=(
        _numeric("dur", "s"),
        _categorical("proto"),
        _categorical("service"),
        _categorical("state"),
        _numeric("spkts", "packets"),
        _numeric("dpkts", "packets"),
        _numeric("sbytes", "bytes"),
        _numeric("dbytes", "bytes"),
        _numeric("rate", "packets/s"),
        _numeric("sttl", "hops"),
        _numeric("dttl", "hops"),
        _numeric("sload", "bits/s"),
        _numeric("dload", "bits/s"),
        _numeric("sloss", "packets"),
        _numeric("dloss", "packets"),
        _numeric("sinpkt", "ms", "sintpkt"),
        _numeric("dinpkt", "ms", "dintpkt"),
        _numeric("sjit", "ms"),
        _numeric("djit", "ms"),
        _numeric("swin", "bytes"),
        _numeric("stcpb", "sequence number"),
        _numeric("dtcpb", "sequence number"),
        _numeric("dwin", "bytes"),
        _numeric("tcprtt", "s"),
        _numeric("synack", "s"),
        _numeric("ackdat", "s"),
        _numeric("smean", "bytes", "smeansz"),
        _numeric("dmean", "bytes", "dmeansz"),
        _numeric("trans_depth", "requests"),
        _numeric("response_body_len", "bytes", "res_bdy_len"),
        _numeric("ct_srv_src", "flows"),
        _numeric("ct_state_ttl", "class"),
        _numeric("ct_dst_ltm", "flows"),
        _numeric("ct_src_dport_ltm", "flows"),
        _numeric("ct_dst_sport_ltm", "flows"),
        _numeric("ct_dst_src_ltm", "flows"),
        _numeric("is_ftp_login", "0 or 1", blank=0.0),
        _numeric("ct_ftp_cmd", "flows", blank=0.0),
        _numeric("ct_flw_http_mthd", "flows", blank=0.0),
        _numeric("ct_src_ltm", "flows"),
        _numeric("ct_srv_dst", "flows"),
        _numeric("is_sm_ips_ports", "0 or 1"),
    ),
    metadata=(
        Metadata(name="id"),
        Metadata(name="src_ip", aliases=("srcip",)),
        Metadata(name="src_port", aliases=("sport",)),
        Metadata(name="dst_ip", aliases=("dstip",)),
        Metadata(name="dst_port", aliases=("dsport",)),
        Metadata(name="timestamp", aliases=("stime",)),
        Metadata(name="end_time", aliases=("ltime",)),
    ),
    dropped=(),
    label_columns=("attack_cat", "label"),
    families=(
        Family(name=BENIGN, labels=("Normal", "", "0", "-")),
        Family(name="Analysis", labels=(), techniques=("T1046", "T1595.002")),
        Family(name="Backdoor", labels=("Backdoors",), techniques=("T1071", "T1505.003")),
        Family(name="DoS", labels=(), techniques=("T1498", "T1499")),
        Family(name="Exploits", labels=(), techniques=("T1190", "T1203")),
        Family(name="Fuzzers", labels=(), techniques=("T1595.003", "T1499.004")),
        Family(name="Generic", labels=(), techniques=("T1600",)),
        Family(name="Reconnaissance", labels=(), techniques=("T1595", "T1046")),
        Family(name="Shellcode", labels=(), techniques=("T1059", "T1203")),
        Family(name="Worms", labels=(), techniques=("T1210", "T1080")),
    ),
    headerless=(
        *("srcip", "sport", "dstip", "dsport", "proto", "state", "dur", "sbytes", "dbytes", "sttl", "dttl", "sloss"),
        *("dloss", "service", "sload", "dload", "spkts", "dpkts", "swin", "dwin", "stcpb", "dtcpb", "smeansz"),
        *("dmeansz", "trans_depth", "res_bdy_len", "sjit", "djit", "stime", "ltime", "sintpkt", "dintpkt", "tcprtt"),
        *("synack", "ackdat", "is_sm_ips_ports", "ct_state_ttl", "ct_flw_http_mthd", "is_ftp_login", "ct_ftp_cmd"),
        *("ct_srv_src", "ct_srv_dst", "ct_dst_ltm", "ct_src_ltm", "ct_src_dport_ltm", "ct_dst_sport_ltm"),
        *("ct_dst_src_ltm", "attack_cat", "label"),
    ),
    derivations=(Derivation(name="rate", inputs=("spkts", "dpkts", "dur"), formula=packet_rate),),
)
