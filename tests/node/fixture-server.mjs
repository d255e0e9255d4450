// The MCP server that the conformance suite and the client tests talk to: every fixture that the suite's `server`
// scenarios name, on the published SDK, in both eras on one URL (2025-11-25 and older with sessions, 2026-07-28 without).
//
//   node fixture-server.mjs PORT
//
// Listens on 127.0.0.1 only. Prints `ready`, then `call NAME` for every tool that ran, so that a test can tell what
// was executed from what was answered.

import { randomUUID } from 'node:crypto';
import { createServer } from 'node:http';

import { localhostHostValidation, localhostOriginValidation, toNodeHandler } from '@modelcontextprotocol/node';
import {
    acceptedContent,
    completable,
    createMcpHandler,
    inputRequired,
    isLegacyRequest,
    McpServer,
    ResourceTemplate,
    WebStandardStreamableHTTPServerTransport,
} from '@modelcontextprotocol/server';
import { z } from 'zod';

import { addTools, answers, IMAGE, object, PNG, sealed, string } from './fixture-tools.mjs';

function addResources(server) {
    const add = (name, uri, mimeType, contents) =>
        server.registerResource(name, uri, { description: `The fixture ${name}`, mimeType }, (read) => ({
            contents: [{ uri: read.href, mimeType, ...contents }],
        }));
    add('static-text', 'test://static-text', 'text/plain', {
        text: 'This is the content of the static text resource.',
    });
    add('static-binary', 'test://static-binary', 'image/png', { blob: PNG });
    add('watched-resource', 'test://watched-resource', 'text/plain', { text: 'Watched' });
    const complete = { id: (value) => ['123', '456'].filter((id) => id.startsWith(value)) };
    const template = new ResourceTemplate('test://template/{id}/data', { list: undefined, complete });
    const mimeType = 'application/json';
    server.registerResource('template', template, { description: 'By id', mimeType }, (read, { id }) => ({
        contents: [
            {
                uri: read.href,
                mimeType,
                text: JSON.stringify({ id, templateTest: true, data: `Data for ID: ${id}` }),
            },
        ],
    }));
}

function addPrompts(server) {
    const user = (content) => ({ role: 'user', content });
    const says = (value) => user({ type: 'text', text: value });
    const add = (name, argsSchema, run) =>
        server.registerPrompt(name, { description: `The fixture ${name}`, ...(argsSchema && { argsSchema }) }, run);
    add('test_simple_prompt', undefined, () => ({ messages: [says('This is a simple prompt for testing.')] }));
    const starting = (value) => ['paris', 'park', 'party'].filter((word) => word.startsWith(value ?? ''));
    add(
        'test_prompt_with_arguments',
        z.object({
            arg1: completable(z.string().describe('First test argument'), starting),
            arg2: z.string().describe('Second test argument'),
        }),
        ({ arg1, arg2 }) => ({ messages: [says(`Prompt with arguments: arg1='${arg1}', arg2='${arg2}'`)] }),
    );
    add('test_prompt_with_embedded_resource', z.object({ resourceUri: z.string() }), ({ resourceUri }) => ({
        messages: [
            user({
                type: 'resource',
                resource: {
                    uri: resourceUri,
                    mimeType: 'text/plain',
                    text: 'Embedded resource content for testing.',
                },
            }),
            says('Please process the embedded resource above.'),
        ],
    }));
    add('test_prompt_with_image', undefined, () => ({
        messages: [user(IMAGE), says('Please analyze the image above.')],
    }));
    add('test_input_required_result_prompt', undefined, (ctx) => {
        const context = acceptedContent(answers(ctx), 'user_context')?.context;
        if (context) return { messages: [says(`Context: ${context}`)] };
        const requestedSchema = object({ context: string() });
        const message = 'What context should the prompt use?';
        return inputRequired({ inputRequests: { user_context: inputRequired.elicit({ message, requestedSchema }) } });
    });
}

function fixture() {
    const capabilities = { logging: {}, completions: {}, resources: { subscribe: true } };
    const requestState = { verify: sealed.verify };
    const hint = { ttlMs: 60_000, cacheScope: 'public' };
    const cacheHints = { 'tools/list': hint, 'prompts/list': hint, 'resources/list': hint };
    const options = { capabilities, requestState, cacheHints };
    const server = new McpServer({ name: 'portcullis-fixture', version: '1.0.0' }, options);
    addTools(server, modern.notify);
    addResources(server);
    addPrompts(server);
    server.server.setRequestHandler('resources/subscribe', () => ({}));
    server.server.setRequestHandler('resources/unsubscribe', () => ({}));
    return server;
}

// ---------------------------------------------------------------------------------------------------------- serving

const modern = createMcpHandler(fixture, { legacy: 'reject' });

/** Legacy sessions by id; a session's streams can be resumed. */
const sessions = new Map();

/** What was sent, so that it can be sent again. */
class Events {
    #sent = [];

    async storeEvent(stream, message) {
        this.#sent.push({ stream, message });
        return `${stream}_${this.#sent.length}`;
    }

    async getStreamIdForEventId(id) {
        return id.slice(0, id.lastIndexOf('_'));
    }

    async replayEventsAfter(id, { send }) {
        const stream = await this.getStreamIdForEventId(id);
        const last = Number(id.slice(id.lastIndexOf('_') + 1));
        for (const [i, event] of this.#sent.entries()) {
            const replayed = i >= last && event.stream === stream && Object.keys(event.message).length > 0;
            if (replayed) await send(`${stream}_${i + 1}`, event.message);
        }
        return stream;
    }
}

async function legacy(request) {
    const id = request.headers.get('mcp-session-id');
    if (id !== null) {
        const transport = sessions.get(id);
        const error = { code: -32001, message: 'Session not found' };
        return transport?.handleRequest(request) ?? Response.json({ jsonrpc: '2.0', error, id: null }, { status: 404 });
    }
    const transport = new WebStandardStreamableHTTPServerTransport({
        sessionIdGenerator: randomUUID,
        eventStore: new Events(),
        retryInterval: 100,
        onsessioninitialized: (session) => void sessions.set(session, transport),
        onsessionclosed: (session) => void sessions.delete(session),
    });
    await fixture().connect(transport);
    return transport.handleRequest(request);
}

const serve = toNodeHandler({
    fetch: async (request) => ((await isLegacyRequest(request)) ? legacy(request) : modern.fetch(request)),
});
const hostIsLocal = localhostHostValidation();
const originIsLocal = localhostOriginValidation();

createServer((request, response) => {
    if (!hostIsLocal(request, response) || !originIsLocal(request, response)) return;
    serve(request, response);
}).listen(Number(process.argv[2]), '127.0.0.1', () => process.stdout.write('ready\n'));
