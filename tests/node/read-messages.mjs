// What JavaScript reads in each message of a file: the method, and what it names.
import { readFileSync } from "node:fs";

const objects = ({ method, params }) => {
  params ??= {};
  switch (method) {
    case "tools/call":
      return [params.name, params.arguments ?? {}];
    case "prompts/get":
      return [params.name];
    case "resources/read":
      return [params.uri];
    case "completion/complete":
      return [params.ref.type === "ref/prompt" ? params.ref.name : params.ref.uri];
    case "subscriptions/listen":
      return [params.notifications?.resourceSubscriptions ?? [], params.notifications?.taskIds ?? []];
    case "tasks/get":
      return [params.taskId];
    default:
      return [];
  }
};

const read = (text) => {
  try {
    const message = JSON.parse(text);
    const asks = message.id !== undefined && message.result === undefined;
    return [message.method ?? "", asks ? objects(message) : []];
  } catch (fault) {
    return { fault: String(fault) };
  }
};

console.log(JSON.stringify(JSON.parse(readFileSync(process.argv[2], "utf8")).map(read)));
