// Preloaded (`node --require`) into servers that listen on every interface and have no option against it.

const { Server } = require('node:net');

const { listen } = Server.prototype;

Server.prototype.listen = function listenOnLoopback(port, ...rest) {
    const callback = rest.find((argument) => typeof argument === 'function');
    return listen.call(this, { port: Number(port?.port ?? port), host: '127.0.0.1' }, callback);
};
