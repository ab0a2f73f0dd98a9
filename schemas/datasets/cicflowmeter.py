"""The columns that CICFlowMeter writes, once for every data set made with it.

Units are those of CICFlowMeter: times in µs, lengths in bytes. `aliases` are the spellings of its other releases: the
2018 dialect (`Tot Fwd Pkts`), its Python port (`tot_fwd_pkts`) and the corrected one (`Total Fwd Packet`).
"""

from schemas.flow import Dropped, Feature, Metadata

__all__ = ["BULK", "COMMON", "LABEL_COLUMNS", "METADATA", "RST_AND_ICMP", "numeric"]


def numeric(name: str, unit: str, *aliases: str) -> Feature:
    """A numeric feature, its unit and its other spellings."""
    return Feature(name=name, unit=unit, aliases=aliases)


METADATA = (
    Metadata(name="flow_id"),
    Metadata(name="src_ip", aliases=("Source IP", "srcip")),
    Metadata(name="src_port", aliases=("Source Port", "sport")),
    Metadata(name="dst_ip", aliases=("Destination IP", "dstip")),
    Metadata(name="dst_port", aliases=("Destination Port", "dsport")),
    Metadata(name="timestamp"),
)

LABEL_COLUMNS = ("label",)

COMMON = (
    numeric("flow_duration", "µs"),
    numeric("total_fwd_packets", "packets", "Total Fwd Packet", "Tot Fwd Pkts"),
    numeric("total_bwd_packets", "packets", "Total Backward Packets", "Tot Bwd Pkts"),
    numeric("total_length_of_fwd_packets", "bytes", "Total Length of Fwd Packet", "TotLen Fwd Pkts"),
    numeric("total_length_of_bwd_packets", "bytes", "Total Length of Bwd Packet", "TotLen Bwd Pkts"),
    numeric("fwd_packet_length_max", "bytes", "Fwd Pkt Len Max"),
    numeric("fwd_packet_length_min", "bytes", "Fwd Pkt Len Min"),
    numeric("fwd_packet_length_mean", "bytes", "Fwd Pkt Len Mean"),
    numeric("fwd_packet_length_std", "bytes", "Fwd Pkt Len Std"),
    numeric("bwd_packet_length_max", "bytes", "Bwd Pkt Len Max"),
    numeric("bwd_packet_length_min", "bytes", "Bwd Pkt Len Min"),
    numeric("bwd_packet_length_mean", "bytes", "Bwd Pkt Len Mean"),
    numeric("bwd_packet_length_std", "bytes", "Bwd Pkt Len Std"),
    numeric("flow_bytes_s", "bytes/s", "Flow Byts/s"),
    numeric("flow_packets_s", "packets/s", "Flow Pkts/s"),
    numeric("flow_iat_mean", "µs"),
    numeric("flow_iat_std", "µs"),
    numeric("flow_iat_max", "µs"),
    numeric("flow_iat_min", "µs"),
    numeric("fwd_iat_total", "µs", "Fwd IAT Tot"),
    numeric("fwd_iat_mean", "µs"),
    numeric("fwd_iat_std", "µs"),
    numeric("fwd_iat_max", "µs"),
    numeric("fwd_iat_min", "µs"),
    numeric("bwd_iat_total", "µs", "Bwd IAT Tot"),
    numeric("bwd_iat_mean", "µs"),
    numeric("bwd_iat_std", "µs"),
    numeric("bwd_iat_max", "µs"),
    numeric("bwd_iat_min", "µs"),
    numeric("fwd_psh_flags", "packets"),
    numeric("fwd_urg_flags", "packets"),
    numeric("fwd_header_length", "bytes", "Fwd Header Len"),
    numeric("bwd_header_length", "bytes", "Bwd Header Len"),
    numeric("fwd_packets_s", "packets/s", "Fwd Pkts/s"),
    numeric("bwd_packets_s", "packets/s", "Bwd Pkts/s"),
    numeric("packet_length_min", "bytes", "Min Packet Length", "Pkt Len Min"),
    numeric("packet_length_max", "bytes", "Max Packet Length", "Pkt Len Max"),
    numeric("packet_length_mean", "bytes", "Pkt Len Mean"),
    numeric("packet_length_std", "bytes", "Pkt Len Std"),
    numeric("packet_length_variance", "bytes²", "Pkt Len Var"),
    numeric("fin_flag_count", "packets", "FIN Flag Cnt"),
    numeric("syn_flag_count", "packets", "SYN Flag Cnt"),
    numeric("rst_flag_count", "packets", "RST Flag Cnt"),
    numeric("psh_flag_count", "packets", "PSH Flag Cnt"),
    numeric("ack_flag_count", "packets", "ACK Flag Cnt"),
    numeric("urg_flag_count", "packets", "URG Flag Cnt"),
    numeric("down_up_ratio", "ratio"),
    numeric("average_packet_size", "bytes", "Pkt Size Avg"),
    numeric("avg_fwd_segment_size", "bytes", "Fwd Segment Size Avg", "Fwd Seg Size Avg"),
    numeric("avg_bwd_segment_size", "bytes", "Bwd Segment Size Avg", "Bwd Seg Size Avg"),
    numeric("subflow_fwd_packets", "packets", "Subflow Fwd Pkts"),
    numeric("subflow_fwd_bytes", "bytes", "Subflow Fwd Byts"),
    numeric("subflow_bwd_bytes", "bytes", "Subflow Bwd Byts"),
    numeric("init_win_bytes_forward", "bytes", "FWD Init Win Bytes", "Init Fwd Win Byts"),
    numeric("init_win_bytes_backward", "bytes", "Bwd Init Win Bytes", "Init Bwd Win Byts"),
    numeric("act_data_pkt_fwd", "packets", "Fwd Act Data Pkts"),
    numeric("min_seg_size_forward", "bytes", "Fwd Seg Size Min"),
    numeric("active_mean", "µs"),
    numeric("active_std", "µs"),
    numeric("active_max", "µs"),
    numeric("active_min", "µs"),
    numeric("idle_mean", "µs"),
    numeric("idle_std", "µs"),
    numeric("idle_max", "µs"),
    numeric("idle_min", "µs"),
)

BULK = (
    numeric("fwd_avg_bytes_bulk", "bytes", "Fwd Bytes/Bulk Avg", "Fwd Byts/b Avg"),
    numeric("fwd_avg_packets_bulk", "packets", "Fwd Packet/Bulk Avg", "Fwd Pkts/b Avg"),
    numeric("fwd_avg_bulk_rate", "bytes/s", "Fwd Bulk Rate Avg", "Fwd Blk Rate Avg"),
    numeric("bwd_avg_bytes_bulk", "bytes", "Bwd Bytes/Bulk Avg", "Bwd Byts/b Avg"),
    numeric("bwd_avg_packets_bulk", "packets", "Bwd Packet/Bulk Avg", "Bwd Pkts/b Avg"),
    numeric("bwd_avg_bulk_rate", "bytes/s", "Bwd Bulk Rate Avg", "Bwd Blk Rate Avg"),
)

RST_AND_ICMP = (
    numeric("bwd_psh_flags", "packets"),
    numeric("fwd_rst_flags", "packets"),
    numeric("bwd_rst_flags", "packets"),
    numeric("icmp_code", "code"),
    numeric("icmp_type", "code"),
    numeric("total_tcp_flow_time", "µs"),
)


def dropped(features: tuple[Feature, ...], reason: str) -> tuple[Dropped, ...]:
    """The same columns, left out for `reason`."""
    return tuple(Dropped(name=feature.name, aliases=feature.aliases, reason=reason) for feature in features)


CWR = numeric("cwr_flag_count", "packets", "CWE Flag Count", "CWE Flag Cnt", "CWR Flag Cnt")
ECE = numeric("ece_flag_count", "packets", "ECE Flag Cnt")
SUBFLOW_BWD_PACKETS = numeric("subflow_bwd_packets", "packets", "Subflow Bwd Pkts")
BWD_URG = numeric("bwd_urg_flags", "packets")
