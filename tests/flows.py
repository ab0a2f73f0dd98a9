"""Invented labelled flows, in every CSV dialect that the releases have: small, and easy enough for a tiny model.

    table = flows("unsw-partition", rows=200, seed=1)   # deterministic
    table.set(3, "dur", "-1")                           # a cell, by the schema's name of its column
    table.write(folder / "flows.csv.gz")                # packed if the name ends in .gz

Only the headers and label spellings are the releases' own; every value is drawn from a distribution made up here, and
addresses are those kept for documentation.
"""

import csv
import gzip
import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from schemas.datasets import SCHEMAS
from schemas.flow import Feature, FlowSchema, Kind, Metadata, key_of

__all__ = ["DIALECTS", "FlowTable", "dialects_of", "flows"]

_UNSW_PARTITION = """id,dur,proto,service,state,spkts,dpkts,sbytes,dbytes,rate,sttl,dttl,sload,dload,sloss,dloss,sinpkt,
dinpkt,sjit,djit,swin,stcpb,dtcpb,dwin,tcprtt,synack,ackdat,smean,dmean,trans_depth,response_body_len,ct_srv_src,
ct_state_ttl,ct_dst_ltm,ct_src_dport_ltm,ct_dst_sport_ltm,ct_dst_src_ltm,is_ftp_login,ct_ftp_cmd,ct_flw_http_mthd,
ct_src_ltm,ct_srv_dst,is_sm_ips_ports,attack_cat,label"""

_UNSW_RAW = """srcip,sport,dstip,dsport,proto,state,dur,sbytes,dbytes,sttl,dttl,sloss,dloss,service,Sload,Dload,Spkts,Dpkts,
swin,dwin,stcpb,dtcpb,smeansz,dmeansz,trans_depth,res_bdy_len,Sjit,Djit,Stime,Ltime,Sintpkt,Dintpkt,tcprtt,synack,ackdat,
is_sm_ips_ports,ct_state_ttl,ct_flw_http_mthd,is_ftp_login,ct_ftp_cmd,ct_srv_src,ct_srv_dst,ct_dst_ltm,ct_src_ ltm,
ct_src_dport_ltm,ct_dst_sport_ltm,ct_dst_src_ltm,attack_cat,label"""

# Leading spaces, a doubled column and misspellings as released.
_CIC = """ Destination Port, Flow Duration, Total Fwd Packets, Total Backward Packets,Total Length of Fwd Packets, Total \
Length of Bwd Packets, Fwd Packet Length Max, Fwd Packet Length Min, Fwd Packet Length Mean, Fwd Packet Length Std,
Bwd Packet Length Max, Bwd Packet Length Min, Bwd Packet Length Mean, Bwd Packet Length Std,Flow Bytes/s, Flow Packets/s,
 Flow IAT Mean, Flow IAT Std, Flow IAT Max, Flow IAT Min,Fwd IAT Total, Fwd IAT Mean, Fwd IAT Std, Fwd IAT Max,
 Fwd IAT Min,Bwd IAT Total, Bwd IAT Mean, Bwd IAT Std, Bwd IAT Max, Bwd IAT Min,Fwd PSH Flags, Bwd PSH Flags,
 Fwd URG Flags, Bwd URG Flags, Fwd Header Length, Bwd Header Length,Fwd Packets/s, Bwd Packets/s, Min Packet Length,
 Max Packet Length, Packet Length Mean, Packet Length Std, Packet Length Variance,FIN Flag Count, SYN Flag Count,
 RST Flag Count, PSH Flag Count, ACK Flag Count, URG Flag Count, CWE Flag Count, ECE Flag Count, Down/Up Ratio,
 Average Packet Size, Avg Fwd Segment Size, Avg Bwd Segment Size, Fwd Header Length,Fwd Avg Bytes/Bulk,
 Fwd Avg Packets/Bulk, Fwd Avg Bulk Rate, Bwd Avg Bytes/Bulk, Bwd Avg Packets/Bulk,Bwd Avg Bulk Rate,Subflow Fwd Packets,
 Subflow Fwd Bytes, Subflow Bwd Packets, Subflow Bwd Bytes,Init_Win_bytes_forward, Init_Win_bytes_backward,
 act_data_pkt_fwd, min_seg_size_forward,Active Mean, Active Std, Active Max, Active Min,Idle Mean, Idle Std, Idle Max,
 Idle Min, Label"""

_CIC_ADDRESSES = _CIC.replace(
    " Destination Port, Flow",
    "Flow ID, Source IP, Source Port, Destination IP, Destination Port, Protocol, Timestamp, Flow",
    1,
)

_IMPROVED = """id,Flow ID,Src IP,Src Port,Dst IP,Dst Port,Protocol,Timestamp,Flow Duration,Total Fwd Packet,
Total Bwd packets,Total Length of Fwd Packet,Total Length of Bwd Packet,Fwd Packet Length Max,Fwd Packet Length Min,
Fwd Packet Length Mean,Fwd Packet Length Std,Bwd Packet Length Max,Bwd Packet Length Min,Bwd Packet Length Mean,
Bwd Packet Length Std,Flow Bytes/s,Flow Packets/s,Flow IAT Mean,Flow IAT Std,Flow IAT Max,Flow IAT Min,Fwd IAT Total,
Fwd IAT Mean,Fwd IAT Std,Fwd IAT Max,Fwd IAT Min,Bwd IAT Total,Bwd IAT Mean,Bwd IAT Std,Bwd IAT Max,Bwd IAT Min,
Fwd PSH Flags,Bwd PSH Flags,Fwd URG Flags,Bwd URG Flags,Fwd RST Flags,Bwd RST Flags,Fwd Header Length,Bwd Header Length,
Fwd Packets/s,Bwd Packets/s,Packet Length Min,Packet Length Max,Packet Length Mean,Packet Length Std,
Packet Length Variance,FIN Flag Count,SYN Flag Count,RST Flag Count,PSH Flag Count,ACK Flag Count,URG Flag Count,
CWR Flag Count,ECE Flag Count,Down/Up Ratio,Average Packet Size,Fwd Segment Size Avg,Bwd Segment Size Avg,
Fwd Bytes/Bulk Avg,Fwd Packet/Bulk Avg,Fwd Bulk Rate Avg,Bwd Bytes/Bulk Avg,Bwd Packet/Bulk Avg,Bwd Bulk Rate Avg,
Subflow Fwd Packets,Subflow Fwd Bytes,Subflow Bwd Packets,Subflow Bwd Bytes,FWD Init Win Bytes,Bwd Init Win Bytes,
Fwd Act Data Pkts,Fwd Seg Size Min,Active Mean,Active Std,Active Max,Active Min,Idle Mean,Idle Std,Idle Max,Idle Min,
ICMP Code,ICMP Type,Total TCP Flow Time,Label,Attempted Category"""

# The first column has no name: the Python port writes a row number there.
_PYTHON_PORT = """,dst_port,protocol,timestamp,flow_duration,tot_fwd_pkts,tot_bwd_pkts,totlen_fwd_pkts,totlen_bwd_pkts,
fwd_pkt_len_max,fwd_pkt_len_min,fwd_pkt_len_mean,fwd_pkt_len_std,bwd_pkt_len_max,bwd_pkt_len_min,bwd_pkt_len_mean,
bwd_pkt_len_std,flow_byts_s,flow_pkts_s,flow_iat_mean,flow_iat_std,flow_iat_max,flow_iat_min,fwd_iat_tot,fwd_iat_mean,
fwd_iat_std,fwd_iat_max,fwd_iat_min,bwd_iat_tot,bwd_iat_mean,bwd_iat_std,bwd_iat_max,bwd_iat_min,fwd_psh_flags,
bwd_psh_flags,fwd_urg_flags,bwd_urg_flags,fwd_header_len,bwd_header_len,fwd_pkts_s,bwd_pkts_s,pkt_len_min,pkt_len_max,
pkt_len_mean,pkt_len_std,pkt_len_var,fin_flag_cnt,syn_flag_cnt,rst_flag_cnt,psh_flag_cnt,ack_flag_cnt,urg_flag_cnt,
cwe_flag_count,ece_flag_cnt,down_up_ratio,pkt_size_avg,fwd_seg_size_avg,bwd_seg_size_avg,fwd_byts_b_avg,fwd_pkts_b_avg,
fwd_blk_rate_avg,bwd_byts_b_avg,bwd_pkts_b_avg,bwd_blk_rate_avg,subflow_fwd_pkts,subflow_fwd_byts,subflow_bwd_pkts,
subflow_bwd_byts,init_fwd_win_byts,init_bwd_win_byts,fwd_act_data_pkts,fwd_seg_size_min,active_mean,active_std,active_max,
active_min,idle_mean,idle_std,idle_max,idle_min,label"""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Dialect:
    dataset: str
    header: str
    labels: Mapping[str, str]
    encoding: str = "utf-8"
    has_header: bool = True


_CIC_LABELS = {"Benign": "BENIGN", "DoS Slowloris": "DoS slowloris", "Web Attack - XSS": "Web Attack – XSS"}

# Family → how the release spells it, where it is not the family's own name.
_DIALECTS: Mapping[str, _Dialect] = {
    "unsw-partition": _Dialect(dataset="unsw-nb15", header=_UNSW_PARTITION, labels={"Benign": "Normal"}),
    "unsw-raw": _Dialect(
        dataset="unsw-nb15",
        header=_UNSW_RAW,
        labels={"Benign": "", "Fuzzers": " Fuzzers ", "Backdoor": "Backdoors"},
        encoding="utf-8-sig",
    ),
    "unsw-raw-headerless": _Dialect(
        dataset="unsw-nb15",
        header=_UNSW_RAW,
        labels={"Benign": "", "Fuzzers": " Fuzzers", "Backdoor": "Backdoors"},
        has_header=False,
    ),
    "cicids2017": _Dialect(dataset="cicids2017", header=_CIC, labels=_CIC_LABELS, encoding="cp1252"),
    "cicids2017-addresses": _Dialect(
        dataset="cicids2017", header=_CIC_ADDRESSES, labels=_CIC_LABELS, encoding="cp1252"
    ),
    "cicids2017-port": _Dialect(dataset="cicids2017", header=_PYTHON_PORT, labels={}),
    "improved": _Dialect(dataset="cicids2017-improved", header=_IMPROVED, labels={"Benign": "BENIGN"}),
    "improved-port": _Dialect(dataset="cicids2017-improved", header=_PYTHON_PORT, labels={}),
}
DIALECTS = tuple(_DIALECTS)

_FAMILIES = {
    "unsw-nb15": ("Benign", "Fuzzers", "DoS", "Backdoor"),
    "cicids2017": ("Benign", "DoS Slowloris", "PortScan", "Web Attack - XSS"),
    "cicids2017-improved": ("Benign", "DoS Slowloris", "Portscan", "Web Attack - XSS"),
}
_CATEGORIES: Mapping[str, tuple[str, ...]] = {
    "proto": ("tcp", "udp", "arp"),
    "service": ("-", "dns", "http"),
    "state": ("FIN", "CON", "INT"),
    "protocol": ("6", "17", "1"),
}
# A feature is shifted alike for a family, and follows a flow's size alike, in every dialect.
_SHIFTS_SEED = 20171103
_SIZE_SHARE = 0.6


@dataclass(slots=True)
class FlowTable:
    """A header, rows of cells and the family of each row; cells can be changed before it is written."""

    schema: FlowSchema
    header: list[str]
    rows: list[list[str]]
    families: list[str]
    encoding: str = "utf-8"
    has_header: bool = True

    def place(self, name: str) -> int:
        """The position of a column, by the schema's name of it (or a label column's)."""
        for position, spelling in enumerate(self.header):
            role = self.schema.roles.get(key_of(spelling))
            if role == name or (not isinstance(role, str) and role is not None and role.name == name):
                return position
        raise KeyError(f"{name} is no column of this table")

    def has(self, name: str) -> bool:
        """Whether the dialect has that column."""
        try:
            self.place(name)
        except KeyError:
            return False
        return True

    def column(self, name: str) -> list[str]:
        """The cells of a column."""
        position = self.place(name)
        return [cells[position] for cells in self.rows]

    def get(self, row: int, name: str) -> str:
        return self.rows[row][self.place(name)]

    def set(self, row: int, name: str, cell: str) -> None:
        self.rows[row][self.place(name)] = cell

    def drop(self, name: str) -> None:
        """Leave a column out."""
        position = self.place(name)
        for cells in (self.header, *self.rows):
            del cells[position]

    def repeat(self, row: int) -> int:
        """Append a copy of a row; its number."""
        self.rows.append(list(self.rows[row]))
        self.families.append(self.families[row])
        return len(self.rows) - 1

    def write(self, path: Path) -> Path:
        """Write the table as the release does, gzipped if the name says so; returns `path`."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerows([self.header] if self.has_header else [])
        writer.writerows(self.rows)
        content = text.getvalue().encode(self.encoding)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(gzip.compress(content, 1, mtime=0) if path.suffix == ".gz" else content)
        return path


def dialects_of(dataset: str) -> tuple[str, ...]:
    """The dialects in which that data set can come."""
    return tuple(name for name, dialect in _DIALECTS.items() if dialect.dataset == dataset)


def flows(
    dialect: str, *, rows: int = 120, seed: int = 0, families: Mapping[str, int] | None = None, separation: float = 2.0
) -> FlowTable:
    """Invented flows: half benign and half attacks of three families, or as many of each as `families` says.

    Args:
        separation: how far, in standard deviations of the logarithm, an attack lies from benign flows in each of the
            features that its family shifts (a third of them).
    """
    spoken = _DIALECTS[dialect]
    schema = SCHEMAS[spoken.dataset]
    header = spoken.header.replace("\n", "").split(",")
    rng = np.random.default_rng([seed, DIALECTS.index(dialect)])
    if families is None:
        benign, *attacks = _FAMILIES[schema.name]
        families = {benign: rows - rows // 2} | {
            name: rows // 2 // len(attacks) + (index < rows // 2 % len(attacks)) for index, name in enumerate(attacks)
        }
    wanted = [name for name, count in families.items() for _ in range(count)]
    order = [wanted[index] for index in rng.permutation(len(wanted))]
    means = {
        family: {name: shift * separation for name, shift in of_feature.items()}
        for family, of_feature in _shifts(schema).items()
    }
    follows = _follows(schema)
    table = [_row(header, schema, spoken, name, number, means[name], follows, rng) for number, name in enumerate(order)]
    return FlowTable(schema, header, table, order, spoken.encoding, spoken.has_header)


def _follows(schema: FlowSchema) -> dict[str, float]:
    """Whether a feature grows (1) or falls (-1) with the size of a flow: what masked features are guessed from."""
    rng = np.random.default_rng(_SHIFTS_SEED + 1)
    return {name: float(rng.choice([-1.0, 1.0])) for name in schema.names}


def _shifts(schema: FlowSchema) -> dict[str, dict[str, float]]:
    rng = np.random.default_rng(_SHIFTS_SEED)
    return {
        family.name: {
            name: float(rng.choice([-1.0, 0.0, 0.0, 0.0, 1.0, 1.0])) * family.is_attack for name in schema.names
        }
        for family in schema.families
    }


def _row(
    header: list[str],
    schema: FlowSchema,
    dialect: _Dialect,
    family: str,
    number: int,
    means: Mapping[str, float],
    follows: Mapping[str, float],
    rng: np.random.Generator,
) -> list[str]:
    cells: dict[str, str] = {}
    row: list[str] = []
    size = rng.normal()
    for spelling in header:
        role = schema.roles.get(key_of(spelling))
        if isinstance(role, Feature):
            # A doubled column holds the same value twice, as in the release.
            cell = _cell(role, means[role.name], follows[role.name] * size, rng)
            row.append(cells.setdefault(role.name, cell))
        elif isinstance(role, Metadata):
            row.append(_metadata(role.name, number, rng))
        elif role == schema.label_columns[0]:
            row.append(dialect.labels.get(family, family))
        elif role == "attempted_category":
            row.append("-1")
        elif role == "label":
            row.append(str(int(schema.family_by_name[family].is_attack)))
        else:
            row.append("0")
    return row


def _cell(feature: Feature, mean: float, size: float, rng: np.random.Generator) -> str:
    if feature.kind is Kind.CATEGORICAL:
        names = _CATEGORIES[feature.name]
        weights = np.array([1.0, 1.0, 1.0])
        weights[round(mean) % len(names)] += 2.0
        return str(rng.choice(names, p=weights / weights.sum()))
    value = float(np.exp(mean + _SIZE_SHARE**0.5 * size + (1 - _SIZE_SHARE) ** 0.5 * rng.normal()))
    if feature.unit in ("packets", "flows", "requests", "bytes", "hops", "class", "code", "0 or 1"):
        return str(round(value * (1.0 if feature.unit == "0 or 1" else 20.0)))
    return f"{value:.6f}"


def _metadata(name: str, number: int, rng: np.random.Generator) -> str:
    match name:
        case "src_ip" | "dst_ip":
            return f"{'192.0.2' if name == 'src_ip' else '198.51.100'}.{rng.integers(1, 255)}"
        case "src_port" | "dst_port":
            return str(rng.integers(1, 65536))
        case "timestamp" | "end_time":
            return str(1_500_000_000 + number)
        case "protocol":
            return "6"
        case _:
            return str(number + 1)
