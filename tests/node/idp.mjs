// A real authorization server: `oidc-provider`, with client credentials, dynamic client registration (RFC 7591), the code
// flow with PKCE, and resource indicators (RFC 8707). Whoever logs in is `person-1` and consents. Its keys live in a file, so
// that it comes back with them, or with a further one.
//
//   node idp.mjs PORT KEYS GENERATION ORG [SUBJECTS [LIFE]]
//
// KEYS: a file that this program writes. GENERATION: how many keys there are; the newest signs, all are published.
// SUBJECTS: a key set. The client `gateway` exchanges tokens that it proves (RFC 8693) for tokens that live LIFE seconds; while
// the file KEYS.slow is there, that takes five seconds, and subjects in the lines of KEYS.refused get none. For
// `requested_token_type` ID-JAG they get one, which another of these takes for a token (RFC 7523), once, if SUBJECTS has its key.
// Writes a line `call jwks` or `call token` for each request for keys or for a token.

import { generateKeyPairSync, randomUUID } from 'node:crypto';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { SignJWT, createLocalJWKSet, importJWK, jwtVerify } from 'jose';
import Provider, { errors } from 'oidc-provider';

const [port, file, generation, org, subjects, life = '300'] = process.argv.slice(2);
const EXCHANGE = 'urn:ietf:params:oauth:grant-type:token-exchange';
const JWT_BEARER = 'urn:ietf:params:oauth:grant-type:jwt-bearer';
const ID_JAG = 'urn:ietf:params:oauth:token-type:id-jag';
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
        ...(subjects ? [{
            client_id: 'gateway',
            client_secret: 'the-gateways-secret',
            grant_types: [EXCHANGE, JWT_BEARER],
            redirect_uris: [],
            response_types: [],
            token_endpoint_auth_method: 'client_secret_basic',
            id_token_signed_response_alg: 'ES256',
        }] : []),
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
    extraTokenClaims: (context) => context.subject ?? { org, role: 'analyst', tier: 'wide' },
});

if (subjects) {
    const proves = createLocalJWKSet(JSON.parse(readFileSync(subjects)));
    const names = ['subject_token', 'subject_token_type', 'requested_token_type', 'audience', 'resource', 'scope'];
    provider.registerGrantType(EXCHANGE, (context) => exchange(context, proves), names, ['resource']);
    const seen = new Set();
    provider.registerGrantType(JWT_BEARER, (context) => redeem(context, proves, seen), ['assertion', 'scope'], []);
}

/** A token for the subject of another one, whose `act` goes along. */
async function exchange(context, proves) {
    const { client, params } = context.oidc;
    if (existsSync(`${file}.slow`)) {
        await new Promise((resolve) => { setTimeout(resolve, 5_000); });
    }
    const proven = await jwtVerify(params.subject_token, proves).catch(() => {
        throw new errors.InvalidGrant('the subject token does not hold');
    });
    const { sub, act } = proven.payload;
    const refused = existsSync(`${file}.refused`) ? readFileSync(`${file}.refused`, 'utf8').split('\n') : [];
    if (refused.includes(sub)) {
        throw new errors.InvalidGrant('no token for this subject');
    }
    if (params.requested_token_type === ID_JAG) {
        const claims = { client_id: client.clientId, scope: params.scope, resource: params.resource, act };
        const key = await importJWK(keys[0], 'ES256');
        const jag = await new SignJWT(claims)
            .setProtectedHeader({ alg: 'ES256', kid: keys[0].kid, typ: 'oauth-id-jag+jwt' })
            .setIssuer(issuer).setSubject(sub).setAudience(params.audience).setJti(randomUUID())
            .setIssuedAt().setExpirationTime('5m').sign(key);
        context.body = { access_token: jag, issued_token_type: ID_JAG, token_type: 'N_A', expires_in: 300 };
        return;
    }
    await issue(context, { audience: params.audience, scope: params.scope, sub, act });
}

/** A token for the subject of an ID-JAG that names this server and the client, and was not used before. */
async function redeem(context, proves, seen) {
    const { client, params } = context.oidc;
    const options = { typ: 'oauth-id-jag+jwt', audience: issuer, requiredClaims: ['jti', 'exp', 'iat', 'client_id'] };
    const proven = await jwtVerify(params.assertion, proves, options).catch(() => {
        throw new errors.InvalidGrant('the assertion does not hold');
    });
    const { sub, act, jti, client_id: of, resource, scope } = proven.payload;
    if (of !== client.clientId || seen.has(jti)) {
        throw new errors.InvalidGrant('the assertion is not for this client, or was used before');
    }
    seen.add(jti);
    await issue(context, { audience: resource, scope, sub, act });
}

async function issue(context, { audience, scope, sub, act }) {
    const { client } = context.oidc;
    const token = new provider.ClientCredentials({ client, scope });
    token.resourceServer = new provider.ResourceServer(audience, {
        scope: scopes,
        audience,
        accessTokenTTL: Number(life),
        accessTokenFormat: 'jwt',
        jwt: { sign: { alg: 'ES256' } },
    });
    context.subject = { user: sub, act };
    const value = await token.save();
    context.body = {
        access_token: value,
        issued_token_type: 'urn:ietf:params:oauth:token-type:access_token',
        token_type: 'Bearer',
        expires_in: token.expiration,
        scope: token.scope,
    };
}

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
