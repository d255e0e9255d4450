// `@ai-sdk/mcp` and `mcp-remote` as they are: each lists the tools, calls some, and says in one JSON document what came of it.
//
//   node frameworks.mjs WHICH URL KEY CALLS
//
// WHICH: ai-http, ai-sse (`@ai-sdk/mcp`), remote-http, remote-sse (`mcp-remote`, as a program that an MCP host starts).
// KEY: an API key; for `mcp-remote` also `oauth:`, for a login at the authorization server that the gateway names.
// CALLS: JSON, [["echo", {"message": "hi"}], …]; the call ["@pause", {}] prints `paused` and waits for a line.
// Prints {"tools": [names], "calls": [{"text", "isError"} or {"error": {"type", "message"}}]} as the last line.

import { mkdtempSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { createMCPClient } from '@ai-sdk/mcp';
import { Client } from '@modelcontextprotocol/sdk/client/index.js';
import { StdioClientTransport } from '@modelcontextprotocol/sdk/client/stdio.js';
import { login } from './login.mjs';

const [which, url, key, calls] = process.argv.slice(2);
const [kind, transport] = which.split('-');
const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]();

const textOf = ({ content = [], isError = false }) => ({ text: content.map(({ text }) => text ?? '').join(' '), isError });

async function ai() {
    const headers = { authorization: `Bearer ${key}` };
    const client = await createMCPClient({ transport: { type: transport, url, headers } });
    const tools = await client.tools();
    const call = async (name, args) =>
        textOf(
            name in tools
                ? await tools[name].execute(args, { toolCallId: '1', messages: [] })
                : await client.callTool({ name, arguments: args }),
        );
    return { names: Object.keys(tools), call, close: () => client.close() };
}

async function remote() {
    const proxy = join(import.meta.dirname, 'node_modules/mcp-remote/dist/proxy.js');
    const args = [proxy, url, '--transport', `${transport}-only`, '--host', '127.0.0.1'];
    if (key !== 'oauth:') {
        args.push('--header', `Authorization:Bearer ${key}`);
    }
    const state = mkdtempSync(join(tmpdir(), 'mcp-remote-'));
    const env = { ...process.env, MCP_REMOTE_CONFIG_DIR: state, BROWSER: 'true' };
    const stdio = new StdioClientTransport({ command: process.execPath, args, env, stderr: 'pipe' });
    let log = '';
    let browsed = false;
    stdio.stderr?.on('data', (chunk) => {
        log += chunk;
        const address = /https?:\/\/\S+\/auth\?\S+/.exec(log)?.[0];
        if (address && !browsed) {
            browsed = true;
            login(address).catch((fault) => process.stderr.write(`${fault}\n${log}\n`));
        }
    });
    const client = new Client({ name: 'portcullis-tests', version: '1.0.0' });
    try {
        await client.connect(stdio);
    } catch (fault) {
        fault.message += `\n${log}`;
        throw fault;
    }
    const { tools } = await client.listTools();
    const call = async (name, args) => textOf(await client.callTool({ name, arguments: args }, undefined, { timeout: 8000 }));
    return { names: tools.map(({ name }) => name), call, close: () => client.close() };
}

const described = (fault) => ({ type: fault.constructor.name, message: String(fault.message) });

async function run() {
    const { names, call, close } = await { ai, remote }[kind]();
    const outcomes = [];
    for (const [name, args] of JSON.parse(calls)) {
        if (name === '@pause') {
            process.stdout.write('paused\n');
            await lines.next();
        } else {
            outcomes.push(await call(name, args).catch((fault) => ({ error: described(fault) })));
        }
    }
    await close().catch(() => {});
    return { tools: names, calls: outcomes };
}

const said = await run().catch((fault) => ({ error: described(fault) }));
process.stdout.write(`${JSON.stringify(said)}\n`, () => process.exit('error' in said ? 1 : 0));
