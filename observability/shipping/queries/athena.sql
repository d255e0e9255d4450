-- Lines in S3, as Vector or Fluent Bit write them: one JSON object a line, gzip.
CREATE EXTERNAL TABLE IF NOT EXISTS audit (line string)
ROW FORMAT SERDE 'org.apache.hadoop.hive.serde2.RegexSerDe' WITH SERDEPROPERTIES ('input.regex' = '^(.*)$')
LOCATION 's3://YOUR-BUCKET/portcullis-audit/';

-- Calls today by client.
SELECT json_extract_scalar(line, '$.org_id') AS org_id, coalesce(json_extract_scalar(line, '$.api_key_id'), json_extract_scalar(line, '$.client_id')) AS client, count(*) AS calls, count_if(json_extract_scalar(line, '$.status') <> 'success') AS not_successful
FROM audit
WHERE json_extract_scalar(line, '$.mcp_method') = 'tools/call' AND json_extract_scalar(line, '$.status') <> 'open' AND from_iso8601_timestamp(json_extract_scalar(line, '$.timestamp')) >= current_date
GROUP BY 1, 2 ORDER BY calls DESC LIMIT 100;

-- Slowest tools of the last week.
SELECT json_extract_scalar(line, '$.connector') AS connector, json_extract_scalar(line, '$.tool_name') AS tool_name, count(*) AS calls, approx_percentile(CAST(json_extract_scalar(line, '$.latency_ms') AS bigint), 0.95) AS p95_ms
FROM audit
WHERE json_extract_scalar(line, '$.mcp_method') = 'tools/call' AND json_extract_scalar(line, '$.status') <> 'open' AND json_extract_scalar(line, '$.decision.effect') <> 'deny' AND from_iso8601_timestamp(json_extract_scalar(line, '$.timestamp')) >= current_timestamp - interval '7' day
GROUP BY 1, 2 ORDER BY p95_ms DESC LIMIT 100;

-- Failed calls of the last day.
SELECT line
FROM audit
WHERE json_extract_scalar(line, '$.mcp_method') = 'tools/call' AND json_extract_scalar(line, '$.status') <> 'open' AND json_extract_scalar(line, '$.status') <> 'success' AND from_iso8601_timestamp(json_extract_scalar(line, '$.timestamp')) >= current_timestamp - interval '1' day
ORDER BY json_extract_scalar(line, '$.timestamp') DESC LIMIT 100;
