// A real authorization server: `oidc-provider`, with client credentials, dynamic client registration (RFC 7591), the code
// flow with PKCE, and resource indicators (RFC 8707). Whoever logs in is `person-1` and consents. Its keys live in a file, so
// that it comes back with them, or with a further one.
//
//   node idp.mjs PORT KEYS GENERATION ORG
//
// KEYS: a file that this program writes. GENERATION: how many keys there are; the newest signs, all are published.
// Writes a line `call jwks` or `call token` for each request for keys or for a token.

import { generateKeyPairSync } from 'node:crypto';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import Provider from 'oidc-provider';

const [port, file, generation, org] = process.argv.slice(2);
const issuer = `http://127.0.0.1:${port}`;

const keys = existsSync(file) ? JSON.parse(readFileSync(file)) : [];
while (keys.length < Number(generation)) {
    const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
    keys.unshift({ ...privateKey.export({ format: 'jwk' }), kid: `key-${keys.length + 1}`, use: 'sig', alg: 'ES256' });
}
writeFileSync(file, JSON.stringify(keys));

const scopes = 'tools:use users:read';
const provider = new Provider(issuer, {
    clients: [
        {
            client_id: 'agent-1',
            client_secret: 'agent-1-secret',
            grant_types: ['client_credentials'],
            redirect_uris: [],
            response_types: [],
            token_endpoint_auth_method: 'client_secret_basic',
            id_token_signed_response_alg: 'ES256',
        },
    ],
    clientDefaults: { id_token_signed_response_alg: 'ES256', application_type: 'native' },
    jwks: { keys },
    scopes: ['openid', 'offline_access', ...scopes.split(' ')],
    pkce: { required: () => true },
    interactions: { url: (context, interaction) => `/interaction/${interaction.uid}` },
    loadExistingGrant: consent,
    features: {
        devInteractions: { enabled: false },
        clientCredentials: { enabled: true },
        registration: { enabled: true },
        resourceIndicators: {
            enabled: true,
            getResourceServerInfo: (context, resource) => ({
                scope: scopes,
                audience: resource,
                accessTokenTTL: 300,
                accessTokenFormat: 'jwt',
                jwt: { sign: { alg: 'ES256' } },
            }),
        },
    },
    extraTokenClaims: () => ({ org, role: 'analyst', tier: 'wide' }),
});

/** What the person agrees to: everything that the client asks for. */
async function consent(context) {
    const { client, session, params } = context.oidc;
    const grant = new context.oidc.provider.Grant({ clientId: client.clientId, accountId: session.accountId });
    grant.addOIDCScope(`openid offline_access ${scopes}`);
    for (const resource of [params.resource].flat().filter(Boolean)) {
        grant.addResourceScope(resource, scopes);
    }
    await grant.save();
    return grant;
}

const handle = provider.callback();
const server = createServer((request, response) => {
    const path = request.url.split('?')[0];
    if (path.startsWith('/interaction/')) {
        const login = { login: { accountId: 'person-1' }, consent: {} };
        provider.interactionFinished(request, response, login, { mergeWithLastSubmission: false });
        return;
    }
    if (path === '/jwks' || path === '/token') {
        process.stdout.write(`call ${path.slice(1)}\n`);
    }
    handle(request, response);
});
server.listen(Number(port), '127.0.0.1');
