// The official TypeScript clients as they are: lists the tools, calls some, says what came of it in one JSON document.
//
//   node client.mjs WHICH URL KEY CALLS
//
// WHICH: v1-http, v1-sse (`@modelcontextprotocol/sdk`), v2-auto, v2-legacy (`@modelcontextprotocol/client`).
// CALLS: JSON, [["echo", {"message": "hi"}], …].
// Prints {"protocol", "tools": [names], "calls": [{"result"} or {"error": {"type", "code", "status", "message"}}]}.

import { Client as ClientV1 } from '@modelcontextprotocol/sdk/client/index.js';
import { SSEClientTransport } from '@modelcontextprotocol/sdk/client/sse.js';
import { StreamableHTTPClientTransport as HttpV1 } from '@modelcontextprotocol/sdk/client/streamableHttp.js';
import { Client as ClientV2, StreamableHTTPClientTransport as HttpV2 } from '@modelcontextprotocol/client';

const [which, address, key, calls] = process.argv.slice(2);
const url = new URL(address);
const me = { name: 'portcullis-tests', version: '1.0.0' };
const authorised = { requestInit: { headers: { authorization: `Bearer ${key}` } } };

const kinds = {
    'v1-http': () => [new ClientV1(me), new HttpV1(url, authorised)],
    'v1-sse': () => [new ClientV1(me), new SSEClientTransport(url, authorised)],
    'v2-auto': () => [new ClientV2(me, { versionNegotiation: { mode: 'auto' } }), new HttpV2(url, authorised)],
    'v2-legacy': () => [new ClientV2(me), new HttpV2(url, authorised)],
};

const described = (fault) => {
    const { code, message } = fault;
    const type = fault.constructor.name;
    // v1 has the status as its code, v2 in its data.
    return { type, code: code ?? null, status: fault.data?.status ?? null, message };
};

async function run() {
    const [client, transport] = kinds[which]();
    await client.connect(transport);
    const { tools } = await client.listTools();
    const outcomes = [];
    for (const [name, args] of JSON.parse(calls)) {
        const called = client.callTool({ name, arguments: args });
        outcomes.push(await called.then((result) => ({ result }), (fault) => ({ error: described(fault) })));
    }
    const protocol = client.getNegotiatedProtocolVersion?.() ?? transport.protocolVersion ?? null;
    await client.close();
    return { protocol, tools: tools.map((tool) => tool.name), calls: outcomes };
}

const said = await run().catch((fault) => ({ error: described(fault) }));
process.stdout.write(`${JSON.stringify(said)}\n`, () => process.exit('error' in said ? 1 : 0));
