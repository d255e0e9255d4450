// The official TypeScript client as it is, with client credentials: it is refused, learns from the refusal where tokens
// are, gets one, calls a tool, and asks for further scopes when it is told to.
//
//   node oauth-client.mjs URL CLIENT SECRET TOOL ARGUMENTS
//
// Prints {"tools": [names], "call": result}, or {"error": {"type", "message"}}.

import { Client, ClientCredentialsProvider, StreamableHTTPClientTransport } from '@modelcontextprotocol/client';

const [url, clientId, clientSecret, tool, args] = process.argv.slice(2);

async function run() {
    const authProvider = new ClientCredentialsProvider({ clientId, clientSecret });
    const client = new Client({ name: 'portcullis-tests', version: '1.0.0' });
    await client.connect(new StreamableHTTPClientTransport(new URL(url), { authProvider }));
    const { tools } = await client.listTools();
    const call = await client.callTool({ name: tool, arguments: JSON.parse(args) });
    await client.close();
    return { tools: tools.map(({ name }) => name), call };
}

const described = (fault) => ({ error: { type: fault.constructor.name, message: fault.message } });
const said = await run().catch(described);
process.stdout.write(`${JSON.stringify(said)}\n`, () => process.exit('error' in said ? 1 : 0));
