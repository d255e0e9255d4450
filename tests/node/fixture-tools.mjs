// The tools of the fixture server, by the names that the conformance suite calls them by.

import { randomBytes } from 'node:crypto';

import {
    acceptedContent,
    createRequestStateCodec,
    fromJsonSchema,
    inputRequired,
    MissingRequiredClientCapabilityError,
    ProtocolError,
    ProtocolErrorCode,
} from '@modelcontextprotocol/server';

export const PNG = 'iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8DwHwAFBQIAX8jx0gAAAABJRU5ErkJggg==';
const WAV = 'UklGRiYAAABXQVZFZm10IBAAAAABAAEAQB8AAAB9AAACABAAZGF0YQIAAAAAAA==';

const wait = (ms) => new Promise((done) => setTimeout(done, ms));
const text = (value) => ({ content: [{ type: 'text', text: value }] });
export const object = (properties = {}, required = Object.keys(properties)) => ({ type: 'object', properties, required });
export const string = (extra = {}) => ({ type: 'string', ...extra });

/** State that travels through the client, sealed: one key per process is enough here. */
export const sealed = createRequestStateCodec({ key: randomBytes(32) });

export const IMAGE = { type: 'image', data: PNG, mimeType: 'image/png' };

const plainTools = {
    test_simple_text: () => text('This is a simple text response for testing.'),
    test_image_content: () => ({ content: [IMAGE] }),
    test_audio_content: () => ({ content: [{ type: 'audio', data: WAV, mimeType: 'audio/wav' }] }),
    test_embedded_resource: () => ({
        content: [
            {
                type: 'resource',
                resource: {
                    uri: 'test://embedded-resource',
                    mimeType: 'text/plain',
                    text: 'This is an embedded resource content.',
                },
            },
        ],
    }),
    test_multiple_content_types: () => ({
        content: [
            { type: 'text', text: 'Multiple content types test:' },
            IMAGE,
            {
                type: 'resource',
                resource: {
                    uri: 'test://mixed-content-resource',
                    mimeType: 'application/json',
                    text: JSON.stringify({ test: 'data', value: 123 }),
                },
            },
        ],
    }),
    test_error_handling: () => {
        throw new Error('This tool intentionally returns an error for testing');
    },
    test_tool_with_logging: async (_, ctx) => {
        for (const line of ['Tool execution started', 'Tool processing data', 'Tool execution completed']) {
            await ctx.mcpReq.log('info', line);
            await wait(50);
        }
        return text('Tool with logging executed successfully');
    },
    test_tool_with_progress: async (_, ctx) => {
        const progressToken = ctx.mcpReq._meta?.progressToken;
        for (const progress of [0, 50, 100]) {
            if (progressToken !== undefined) {
                const params = { progressToken, progress, total: 100 };
                await ctx.mcpReq.notify({ method: 'notifications/progress', params });
            }
            await wait(50);
        }
        return text('Tool with progress executed successfully');
    },
    test_logging_tool: async (_, ctx) => {
        await ctx.mcpReq.log('info', 'Only for who asked for it');
        return text('Logged');
    },
    // Ends the stream of its own call before the answer: the client has to come back for it with Last-Event-ID.
    test_reconnection: async (_, ctx) => {
        ctx.http?.closeSSE?.();
        await wait(100);
        return text('Reconnection test completed');
    },
    test_missing_capability: (_, ctx) => {
        if (!ctx.mcpReq.envelope?.['io.modelcontextprotocol/clientCapabilities']?.sampling) {
            throw new MissingRequiredClientCapabilityError({ requiredCapabilities: { sampling: {} } });
        }
        return text('The client can sample');
    },
};

/** Tools that change what listeners were told. */
const announcingTools = (notify) => ({
    test_trigger_tool_change: () => {
        notify.toolsChanged();
        return text('Told everybody');
    },
    test_trigger_prompt_change: () => {
        notify.promptsChanged();
        return text('Told everybody');
    },
});

// On the stream of the call: the SDK's own shorthands use the session's GET stream, which may not be open yet.
const sample = (ctx, params) => ctx.mcpReq.send({ method: 'sampling/createMessage', params });
const elicit = (ctx, params) => ctx.mcpReq.send({ method: 'elicitation/create', params: { mode: 'form', ...params } });

/** Tools that ask the client something while they run, as servers did before 2026-07-28. */
const askingTools = {
    test_sampling: [
        object({ prompt: string() }),
        async ({ prompt }, ctx) => {
            const messages = [{ role: 'user', content: { type: 'text', text: prompt } }];
            const answer = await sample(ctx, { messages, maxTokens: 100 });
            return text(`LLM response: ${answer.content.text}`);
        },
    ],
    test_elicitation: [
        object({ message: string() }),
        async ({ message }, ctx) => {
            const requestedSchema = object({
                username: string({ description: "User's response" }),
                email: string({ description: "User's email address" }),
            });
            const { action, content } = await elicit(ctx, { message, requestedSchema });
            return text(`User response: action: ${action}, content: ${JSON.stringify(content)}`);
        },
    ],
    test_elicitation_sep1034_defaults: [
        object(),
        async (_, ctx) => {
            const requestedSchema = object(
                {
                    name: string({ default: 'John Doe' }),
                    age: { type: 'integer', default: 30 },
                    score: { type: 'number', default: 95.5 },
                    status: string({ enum: ['active', 'inactive', 'pending'], default: 'active' }),
                    verified: { type: 'boolean', default: true },
                },
                [],
            );
            return elicited(await elicit(ctx, { message: 'Please check the defaults', requestedSchema }));
        },
    ],
    test_elicitation_sep1330_enums: [
        object(),
        async (_, ctx) => {
            const plain = ['option1', 'option2', 'option3'];
            const titled = (ordinals, noun) =>
                ordinals.map((ordinal, i) => ({ const: `value${i + 1}`, title: `${ordinal} ${noun}` }));
            const ordinals = ['First', 'Second', 'Third'];
            const requestedSchema = object(
                {
                    untitledSingle: string({ enum: plain }),
                    titledSingle: string({ oneOf: titled(ordinals, 'Option') }),
                    legacyEnum: string({
                        enum: ['opt1', 'opt2', 'opt3'],
                        enumNames: ['Option One', 'Option Two', 'Option Three'],
                    }),
                    untitledMulti: { type: 'array', items: string({ enum: plain }) },
                    titledMulti: { type: 'array', items: { anyOf: titled(ordinals, 'Choice') } },
                },
                [],
            );
            return elicited(await elicit(ctx, { message: 'Please choose', requestedSchema }));
        },
    ],
};

const elicited = ({ action, content }) =>
    text(`Elicitation completed: action=${action}, content=${JSON.stringify(content ?? {})}`);

// --------------------------------------------------------------------- tools that answer with a question (2026-07-28)

const ask = {
    name: (message = 'What is your name?') =>
        inputRequired.elicit({ message, requestedSchema: object({ name: string() }) }),
    confirm: () =>
        inputRequired.elicit({ message: 'Please confirm', requestedSchema: object({ ok: { type: 'boolean' } }) }),
    sample: (question, maxTokens) =>
        inputRequired.createMessage({
            messages: [{ role: 'user', content: { type: 'text', text: question } }],
            maxTokens,
        }),
};

export const answers = (ctx) => ctx.mcpReq.inputResponses ?? {};

const questioningTools = {
    test_input_required_result_elicitation: (_, ctx) => {
        const name = acceptedContent(answers(ctx), 'user_name')?.name;
        if (typeof name === 'string') return text(`Hello, ${name}!`);
        return inputRequired({ inputRequests: { user_name: ask.name() } });
    },
    test_input_required_result_sampling: (_, ctx) => {
        const answer = answers(ctx).capital_question;
        if (answer) return text(`The model says: ${answer.content?.text ?? JSON.stringify(answer.content)}`);
        return inputRequired({ inputRequests: { capital_question: ask.sample('What is the capital of France?', 100) } });
    },
    test_input_required_result_list_roots: (_, ctx) => {
        const roots = answers(ctx).client_roots?.roots;
        if (roots) return text(`Roots: ${roots.map((root) => root.uri).join(', ')}`);
        return inputRequired({ inputRequests: { client_roots: inputRequired.listRoots() } });
    },
    test_input_required_result_request_state: async (_, ctx) => {
        const state = ctx.mcpReq.requestState();
        if (state?.asked === 'confirm' && answers(ctx).confirm) return text('state-ok');
        const requestState = await sealed.mint({ asked: 'confirm' }, ctx);
        return inputRequired({ inputRequests: { confirm: ask.confirm() }, requestState });
    },
    test_input_required_result_tampered_state: async (_, ctx) => {
        if (ctx.mcpReq.requestState()?.asked === 'tampered') return text('The state is as it was sent');
        const requestState = await sealed.mint({ asked: 'tampered' }, ctx);
        return inputRequired({ inputRequests: { confirm: ask.confirm() }, requestState });
    },
    test_input_required_result_multiple_inputs: async (_, ctx) => {
        const { user_name: name, greeting, client_roots: roots } = answers(ctx);
        if (name && greeting && roots) return text(`Got a name, a greeting and ${roots.roots?.length ?? 0} roots`);
        return inputRequired({
            inputRequests: {
                user_name: ask.name(),
                greeting: ask.sample('Generate a greeting', 50),
                client_roots: inputRequired.listRoots(),
            },
            requestState: await sealed.mint({ asked: 'three' }, ctx),
        });
    },
    test_input_required_result_multi_round: async (_, ctx) => {
        const round = ctx.mcpReq.requestState()?.round ?? 0;
        const given = answers(ctx);
        if (round === 2 && given.step2) return text('Both steps are done');
        if (round === 1 && given.step1) {
            const requestedSchema = object({ color: string() });
            const step2 = inputRequired.elicit({ message: 'Step 2: What is your favorite color?', requestedSchema });
            return inputRequired({ inputRequests: { step2 }, requestState: await sealed.mint({ round: 2 }, ctx) });
        }
        const step1 = ask.name('Step 1: What is your name?');
        return inputRequired({ inputRequests: { step1 }, requestState: await sealed.mint({ round: 1 }, ctx) });
    },
    test_input_required_result_capabilities: (_, ctx) => {
        const can = ctx.mcpReq.envelope?.['io.modelcontextprotocol/clientCapabilities'] ?? {};
        const given = answers(ctx);
        if (Object.keys(given).length > 0) return text(`Answered: ${Object.keys(given).join(', ')}`);
        const inputRequests = {};
        if (can.sampling) inputRequests.sampled = ask.sample('Say something', 20);
        if (can.elicitation) inputRequests.elicited = ask.name();
        if (can.roots) inputRequests.roots = inputRequired.listRoots();
        return Object.keys(inputRequests).length > 0 ? inputRequired({ inputRequests }) : text('Nothing to ask with');
    },
    test_streaming_elicitation: async (_, ctx) => {
        if (acceptedContent(answers(ctx), 'user_name')) return text('Done');
        await ctx.mcpReq.notify({ method: 'notifications/message', params: { level: 'info', data: 'asking' } });
        return inputRequired({ inputRequests: { user_name: ask.name() } });
    },
};

// -------------------------------------------------------------------------------------------------------- schemas

const schemas = {
    // Everything that a gateway might drop when it rewrites a list.
    json_schema_2020_12_tool: {
        $schema: 'https://json-schema.org/draft/2020-12/schema',
        type: 'object',
        $defs: {
            address: {
                $anchor: 'addressDef',
                type: 'object',
                properties: { street: string(), city: string() },
            },
        },
        properties: {
            name: string(),
            address: { $ref: '#/$defs/address' },
            contactMethod: string({ enum: ['phone', 'email'] }),
            phone: string(),
            email: string(),
        },
        allOf: [{ anyOf: [{ required: ['phone'] }, { required: ['email'] }] }],
        if: { properties: { contactMethod: { const: 'phone' } }, required: ['contactMethod'] },
        then: { required: ['phone'] },
        else: { required: ['email'] },
        additionalProperties: false,
    },
    test_custom_headers: object(
        {
            region: string({ 'x-mcp-header': 'Region' }),
            priority: { type: 'integer', 'x-mcp-header': 'Priority' },
            query: string(),
        },
        ['region'],
    ),
};

const schemaTools = {
    json_schema_2020_12_tool: () => text('The arguments fit the schema'),
    test_custom_headers: ({ region }) => text(`Region ${region}`),
};

/** Gives `server` every tool; `notify` tells who listens to the modern endpoint. */
export function addTools(server, notify) {
    const tools = new Map();
    const add = (name, inputSchema, run) => {
        tools.set(name, run);
        const config = { description: `The fixture ${name}`, inputSchema: fromJsonSchema(inputSchema) };
        server.registerTool(name, config, run);
    };
    for (const [name, run] of Object.entries({ ...plainTools, ...announcingTools(notify), ...questioningTools })) add(name, object(), run);
    for (const [name, [inputSchema, run]] of Object.entries(askingTools)) add(name, inputSchema, run);
    for (const [name, run] of Object.entries(schemaTools)) add(name, schemas[name], run);
    // The SDK's own handler makes a tool's result of every error, also of the protocol's.
    server.server.setRequestHandler('tools/call', async ({ params }, ctx) => {
        const run = tools.get(params.name);
        if (!run) throw new ProtocolError(ProtocolErrorCode.InvalidParams, `Unknown tool: ${params.name}`);
        process.stdout.write(`call ${params.name}\n`);
        try {
            return await run(params.arguments ?? {}, ctx);
        } catch (error) {
            if (error instanceof ProtocolError) throw error;
            return { ...text(error.message), isError: true };
        }
    });
}
