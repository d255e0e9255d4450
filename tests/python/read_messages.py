"""What Python reads in each message of a file: the method, and what it names."""

import json
import sys


def objects(message):
    params = message.get("params") or {}
    method = message.get("method")
    if method == "tools/call":
        return [params.get("name"), params.get("arguments") or {}]
    if method == "prompts/get":
        return [params.get("name")]
    if method == "resources/read":
        return [params.get("uri")]
    if method == "completion/complete":
        ref = params["ref"]
        return [ref["name"] if ref["type"] == "ref/prompt" else ref["uri"]]
    if method == "subscriptions/listen":
        wanted = params.get("notifications") or {}
        return [wanted.get("resourceSubscriptions", []), wanted.get("taskIds", [])]
    if method == "tasks/get":
        return [params.get("taskId")]
    return []


def read(text):
    try:
        message = json.loads(text)
        asks = "id" in message and "result" not in message
        return [message.get("method", ""), objects(message) if asks else []]
    except Exception as fault:
        return {"fault": str(fault)}


with open(sys.argv[1], encoding="utf-8") as file:
    print(json.dumps([read(text) for text in json.load(file)]))
