"""CICIDS2017 as released: the 79-column MachineLearningCVE form and the 85-column form with addresses."""

from schemas.datasets import cicflowmeter as cic
from schemas.flow import BENIGN, Dropped, Family, FlowSchema, Metadata

__all__ = ["SCHEMA"]

_CONSTANT = "zero in every row of the release: it tells nothing"

SCHEMA = FlowSchema(
    name="cicids2017",
    version="1",
    title="CICIDS2017 (MachineLearningCVE and TrafficLabelling forms)",
    citation=(
        "I. Sharafaldin, A. H. Lashkari, A. A. Ghorbani: Toward Generating a New Intrusion Detection Dataset and "
        "Intrusion Traffic Characterization. ICISSP 2018."
    ),
    features=(*cic.COMMON, cic.CWR, cic.ECE, cic.SUBFLOW_BWD_PACKETS),
    metadata=(*cic.METADATA, Metadata(name="protocol", aliases=("proto",))),
    dropped=(
        Dropped(name="fwd_header_length_1", reason="the release prints Fwd Header Length twice, with the same values"),
        *cic.dropped((cic.RST_AND_ICMP[0], cic.BWD_URG, *cic.BULK), _CONSTANT),
    ),
    label_columns=cic.LABEL_COLUMNS,
    families=(
        Family(name=BENIGN, labels=("BENIGN", "Normal")),
        Family(name="Bot", labels=("Botnet",), techniques=("T1071.001",)),
        Family(name="DDoS", labels=(), techniques=("T1498.001",)),
        Family(name="DoS GoldenEye", labels=(), techniques=("T1499.002",)),
        Family(name="DoS Hulk", labels=(), techniques=("T1499.002",)),
        Family(name="DoS Slowhttptest", labels=(), techniques=("T1499.002",)),
        Family(name="DoS Slowloris", labels=(), techniques=("T1499.002",)),
        Family(name="FTP-Patator", labels=(), techniques=("T1110.001",)),
        Family(name="Heartbleed", labels=(), techniques=("T1190",)),
        Family(name="Infiltration", labels=(), techniques=("T1204.002", "T1046")),
        Family(name="PortScan", labels=("Port Scan",), techniques=("T1046",)),
        Family(name="SSH-Patator", labels=(), techniques=("T1110.001",)),
        Family(name="Web Attack - Brute Force", labels=(), techniques=("T1110.001",)),
        Family(name="Web Attack - Sql Injection", labels=(), techniques=("T1190",)),
        Family(name="Web Attack - XSS", labels=(), techniques=("T1059.007", "T1190")),
    ),
)
