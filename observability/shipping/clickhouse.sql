-- The table of audit entries in ClickHouse. A shipper inserts the line, unchanged: `line` is what `portcullis audit verify` reads,
-- and all other columns are made of it.
--   clickhouse-client --multiquery < clickhouse.sql
--   clickhouse-client -q "SELECT line FROM (SELECT DISTINCT chain, seq, line FROM audit) ORDER BY chain, seq FORMAT TSVRaw" | portcullis audit verify --start anywhere -
CREATE TABLE IF NOT EXISTS audit
(
    line String CODEC(ZSTD(3)),
    timestamp DateTime64(6, 'UTC') MATERIALIZED parseDateTime64BestEffortOrZero(JSONExtractString(line, 'timestamp'), 6, 'UTC'),
    request_id String MATERIALIZED JSONExtractString(line, 'request_id'),
    org_id LowCardinality(String) MATERIALIZED JSONExtractString(line, 'org_id'),
    client_id String MATERIALIZED if(JSONHas(line, 'api_key_id'), JSONExtractString(line, 'api_key_id'), JSONExtractString(line, 'client_id')),
    principal String MATERIALIZED JSONExtractString(line, 'principal'),
    role LowCardinality(String) MATERIALIZED JSONExtractString(line, 'role'),
    connector LowCardinality(String) MATERIALIZED JSONExtractString(line, 'connector'),
    mcp_method LowCardinality(String) MATERIALIZED JSONExtractString(line, 'mcp_method'),
    tool_name LowCardinality(String) MATERIALIZED JSONExtractString(line, 'tool_name'),
    status LowCardinality(String) MATERIALIZED JSONExtractString(line, 'status'),
    effect LowCardinality(String) MATERIALIZED JSONExtractString(line, 'decision', 'effect'),
    rule LowCardinality(String) MATERIALIZED JSONExtractString(line, 'decision', 'rule'),
    http_status UInt16 MATERIALIZED JSONExtractUInt(line, 'http_status'),
    error_code Int32 MATERIALIZED JSONExtractInt(line, 'error_code'),
    latency_ms UInt32 MATERIALIZED JSONExtractUInt(line, 'latency_ms'),
    input String MATERIALIZED JSONExtractRaw(line, 'input'),
    events Array(String) MATERIALIZED JSONExtract(line, 'events', 'Array(Tuple(event String))').event,
    client_address String MATERIALIZED JSONExtractString(line, 'client_address'),
    chain String MATERIALIZED JSONExtractString(line, 'chain'),
    seq UInt64 MATERIALIZED JSONExtractUInt(line, 'seq')
)
ENGINE = MergeTree
PARTITION BY toYYYYMM(timestamp)
ORDER BY (org_id, timestamp, chain, seq);
