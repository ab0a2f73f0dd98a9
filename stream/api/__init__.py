"""The detector over HTTP, for whoever has no Kafka: the same bundle, the same decoding, the same verdicts."""
