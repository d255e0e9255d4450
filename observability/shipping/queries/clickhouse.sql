-- Calls today by client.
SELECT org_id, client_id, any(principal) AS principal, count() AS calls, countIf(status != 'success') AS not_successful
FROM audit
WHERE timestamp >= toStartOfDay(now('UTC')) AND mcp_method = 'tools/call' AND status != 'open'
GROUP BY org_id, client_id
ORDER BY calls DESC
LIMIT 100;

-- Slowest tools of the last week.
SELECT connector, tool_name, count() AS calls, round(quantile(0.5)(latency_ms)) AS p50_ms, round(quantile(0.95)(latency_ms)) AS p95_ms, max(latency_ms) AS max_ms
FROM audit
WHERE timestamp >= now('UTC') - INTERVAL 7 DAY AND mcp_method = 'tools/call' AND status != 'open' AND effect != 'deny'
GROUP BY connector, tool_name
ORDER BY p95_ms DESC
LIMIT 100;

-- Failed calls of the last day.
SELECT timestamp, org_id, client_id, connector, tool_name, status, rule, http_status, error_code, request_id
FROM audit
WHERE timestamp >= now('UTC') - INTERVAL 1 DAY AND mcp_method = 'tools/call' AND status != 'open' AND status != 'success'
ORDER BY timestamp DESC
LIMIT 100;
