"""The corrected CICIDS2017 (91 columns): same captures as CICIDS2017, flows rebuilt and relabelled."""

from schemas.datasets import cicflowmeter as cic
from schemas.flow import BENIGN, Dropped, Family, Feature, FlowSchema, Kind, Metadata

__all__ = ["SCHEMA"]

SCHEMA = FlowSchema(
    name="cicids2017-improved",
    version="1",
    title="Improved CICIDS2017 (corrected CICFlowMeter)",
    citation=(
        "L. Liu, G. Engelen, T. Lynar, D. Essam, W. Joosen: Error Prevalence in NIDS datasets: A Case Study on "
        "CIC-IDS-2017 and CSE-CIC-IDS-2018. IEEE CNS 2022."
    ),
    features=(
        *cic.COMMON,
        *cic.BULK,
        *cic.RST_AND_ICMP,
        Feature(name="protocol", kind=Kind.CATEGORICAL, unit="IANA protocol number", aliases=("proto",)),
    ),
    metadata=(*cic.METADATA, Metadata(name="id")),
    dropped=(
        Dropped(name="fwd_header_length_1", reason="the uncorrected release prints Fwd Header Length twice"),
        *cic.dropped(
            (cic.BWD_URG, cic.CWR, cic.ECE, cic.SUBFLOW_BWD_PACKETS),
            "zero in every row that we hold (42,049): it tells nothing",
        ),
    ),
    label_columns=(*cic.LABEL_COLUMNS, "attempted_category"),
    families=(
        Family(name=BENIGN, labels=("BENIGN", "Normal")),
        Family(name="Botnet", labels=("Bot",), techniques=("T1071.001",)),
        Family(name="DDoS", labels=(), techniques=("T1498.001",)),
        Family(name="DoS GoldenEye", labels=(), techniques=("T1499.002",)),
        Family(name="DoS Hulk", labels=(), techniques=("T1499.002",)),
        Family(name="DoS Slowhttptest", labels=(), techniques=("T1499.002",)),
        Family(name="DoS Slowloris", labels=(), techniques=("T1499.002",)),
        Family(name="FTP-Patator", labels=(), techniques=("T1110.001",)),
        Family(name="Heartbleed", labels=(), techniques=("T1190",)),
        Family(name="Infiltration", labels=(), techniques=("T1204.002",)),
        Family(name="Infiltration - Portscan", labels=(), techniques=("T1046",)),
        Family(name="Portscan", labels=("Port Scan",), techniques=("T1046",)),
        Family(name="SSH-Patator", labels=(), techniques=("T1110.001",)),
        Family(name="Web Attack - Brute Force", labels=(), techniques=("T1110.001",)),
        Family(name="Web Attack - SQL Injection", labels=(), techniques=("T1190",)),
        Family(name="Web Attack - XSS", labels=(), techniques=("T1059.007", "T1190")),
    ),
)
