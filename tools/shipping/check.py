"""Checks what observability/ has for systems that audit entries are shipped to.

  clickhouse DIR LOG OUT the table and the queries of DIR on ClickHouse's engine, with LOG; what comes back goes to OUT
  sigma DIR LOG          the rules of DIR: their form, and which of them find something in LOG

docs/guides/ship-the-audit-log.md says how to run it.
"""

import collections
import datetime
import json
import pathlib
import sqlite3
import sys


def statements(file):
    lines = pathlib.Path(file).read_text(encoding="utf-8").splitlines()
    text = "\n".join(line for line in lines if not line.startswith("--"))
    return [statement.strip() for statement in text.split(";") if statement.strip()]


# Proves: B15
def clickhouse(directory, log, out):
    from chdb.session import Session

    session = Session()
    session.query("CREATE DATABASE portcullis")
    session.query("USE portcullis")
    for statement in statements(f"{directory}/clickhouse.sql"):
        session.query(statement)
    lines = pathlib.Path(log).read_text(encoding="utf-8").splitlines()
    rows = pathlib.Path(out).with_suffix(".rows.jsonl")
    rows.write_text("".join(json.dumps({"line": line}) + "\n" for line in lines), encoding="utf-8")
    session.query(f"INSERT INTO audit SELECT line FROM file('{rows}', 'JSONEachRow', 'line String')")
    entries = [json.loads(line) for line in lines]
    # A long call has an entry at its start, too.
    calls = [entry for entry in entries if entry.get("mcp_method") == "tools/call" and entry["status"] != "open"]
    now = datetime.datetime.now(datetime.timezone.utc)
    of_today = [entry for entry in calls if entry["timestamp"] >= now.strftime("%Y-%m-%d")]
    clients = collections.Counter(
        (entry.get("org_id"), entry.get("api_key_id", entry.get("client_id"))) for entry in of_today
    )
    expected = sum(count for _, count in clients.most_common(100))
    yesterday = (now - datetime.timedelta(days=1)).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    failed = sum(entry["status"] != "success" for entry in calls if entry["timestamp"] >= yesterday)
    today, slowest, failures = [
        [json.loads(row) for row in str(session.query(f"{statement} FORMAT JSONEachRow")).splitlines()]
        for statement in statements(f"{directory}/queries/clickhouse.sql")
    ]
    found = sum(int(row["calls"]) for row in today)
    unsuccessful = sum(entry["status"] != "success" for entry in of_today)
    if len(clients) <= 100 and sum(int(row["not_successful"]) for row in today) != unsuccessful:
        sys.exit(f"not successful today: the log has {unsuccessful}")
    if found != expected:
        sys.exit(f"calls today: the query says {found}, the log {expected}")
    if len(failures) != min(failed, 100):
        sys.exit(f"failed calls: the query has {len(failures)}, the log {failed}")
    if not slowest or any(not row["tool_name"] for row in slowest):
        sys.exit(f"slowest tools: {slowest}")
    back = session.query("SELECT line FROM (SELECT DISTINCT chain, seq, line FROM audit) ORDER BY chain, seq FORMAT TSVRaw").bytes()
    pathlib.Path(out).write_bytes(back)
    print(f"ClickHouse: {len(entries)} entries; {len(today)} clients today, {len(slowest)} tools, {failed} failed calls")


def flat(value, prefix=""):
    fields = {}
    for name, inner in value.items():
        if isinstance(inner, dict):
            fields |= flat(inner, f"{prefix}{name}.")
        elif not isinstance(inner, list):
            fields[prefix + name] = inner
    return fields


# What each rule has to find; the rules that count have to find a burst.
PLANTED = [
    *({"events": [{"event": name}]} for name in
      ["misrouted", "state_went_back", "credential_echoed", "policy_unusable", "token_not_mapped"]),
    {"events": [{"event": "not_bound", "reason": "foreign"}]},
    {"events": [{"event": "schema_drift", "kind": "suspicious"}]},
    {"decision": {"rule": "auth.revoked"}},
    {"action": "policy.push"},
    {"action": "restore.accept"},
    {"envoy": {"details": "via_upstream"}},
    *[{"events": [{"event": "auth_failed"}], "client_address": "192.0.2.1"}] * 20,
    *[{"events": [{"event": "tool_access_denied", "client_id": "a"}]}] * 10,
]


def sigma(directory, log):
    from sigma.backends.elasticsearch import LuceneBackend
    from sigma.backends.sqlite import sqliteBackend
    from sigma.collection import SigmaCollection
    from sigma.correlations import SigmaCorrelationRule
    from sigma.validation import SigmaValidator
    from sigma.validators.core import validators

    rules = SigmaCollection.load_ruleset([directory])
    if rules.errors:
        sys.exit(f"errors: {rules.errors}")
    # Those of tags load a list from elsewhere.
    local = [it for it in validators.values() if not it.__module__.endswith((".tags", ".d3fend"))]
    issues = SigmaValidator(local).validate_rules(iter(rules.rules))
    if issues:
        sys.exit("\n".join(map(str, issues)))
    single = [rule for rule in rules.rules if not isinstance(rule, SigmaCorrelationRule)]
    LuceneBackend().convert(SigmaCollection(single))

    real = [json.loads(line) for line in pathlib.Path(log).read_text(encoding="utf-8").splitlines()]
    planted = [{"timestamp": "2026-11-29T12:00:00Z", **entry} for entry in PLANTED]

    def found(entries):
        rows = [
            # Columns of SQLite know no case, and members of arguments do.
            flat({**entry, "input": None, "events": event})
            for entry in entries
            for event in entry.get("events") or [{}]
        ]
        every = {name for row in [*rows, *map(flat, PLANTED)] for name in row}
        every |= {"events.event", "events.kind", "events.reason", "events.client_id"}
        names = sorted(every)
        base = sqlite3.connect(":memory:")
        base.execute(f"CREATE TABLE logs ({', '.join(f'`{name}`' for name in names)})")
        values = [[row.get(name) for name in names] for row in rows]
        base.executemany(f"INSERT INTO logs VALUES ({', '.join('?' * len(names))})", values)
        result = {}
        for rule, query in converted:
            result[rule] = len(base.execute(query).fetchall())
        return result

    converted = []
    for rule in rules.rules:
        rule._output = True
    queries = sqliteBackend().convert(rules)
    outputs = [rule.title for rule in rules.rules if rule._output]
    if len(queries) != len(outputs):
        sys.exit(f"{len(queries)} queries of {len(outputs)} rules")
    converted = list(zip(outputs, queries))
    silent = [rule for rule, count in found(planted).items() if not count]
    if silent:
        sys.exit(f"nothing planted is found by: {', '.join(silent)}")
    in_real = {rule: count for rule, count in found(real).items() if count}
    print(f"Sigma: {len(rules.rules)} rules, each finds what was planted; in the log: {in_real}")


if __name__ == "__main__":
    command, *arguments = sys.argv[1:]
    {"clickhouse": clickhouse, "sigma": sigma}[command](*arguments)
