// A loopback hop that adds the API key to every request and changes nothing else: the conformance suite cannot send
// credentials. Streams both ways unbuffered, and closes one side as soon as the other does.
//
//   node add-key.mjs PORT UPSTREAM_PORT KEY

import { createServer, request as send } from 'node:http';

const [port, upstreamPort, key] = process.argv.slice(2);

const server = createServer((request, response) => {
    const { method, url: path, rawHeaders } = request;
    const headers = [...rawHeaders, 'x-api-key', key];
    const onward = send({ host: '127.0.0.1', port: Number(upstreamPort), method, path, headers, setHost: false });
    onward.on('response', (answer) => {
        response.writeHead(answer.statusCode, answer.statusMessage, answer.rawHeaders);
        response.flushHeaders();
        answer.on('error', () => response.destroy());
        answer.pipe(response);
    });
    onward.on('error', () => response.destroy());
    response.on('close', () => onward.destroy());
    request.pipe(onward);
});

server.listen(Number(port), '127.0.0.1', () => process.stdout.write('ready\n'));
