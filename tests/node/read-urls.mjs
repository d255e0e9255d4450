// What Node makes of each URI in a file: its protocol, and where a server may end up, host and path in lower case.
import { readFileSync } from "node:fs";
import { posix } from "node:path";

const decoded = (text) => {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
};

const read = (text) => {
  let url;
  try {
    url = new URL(text);
  } catch {
    return null;
  }
  // As the parser has it, and decoded once: what a server opens.
  const paths = [url.pathname, decoded(url.pathname)].map((path) => {
    const host = decoded(url.hostname);
    const file = posix.normalize(`/${path.replaceAll("\\", "/")}`);
    return `${url.protocol === "file:" ? `${host}/` : host}${file}`.toLowerCase();
  });
  return { protocol: url.protocol, paths, href: url.href };
};

console.log(JSON.stringify(JSON.parse(readFileSync(process.argv[2], "utf8")).map(read)));
