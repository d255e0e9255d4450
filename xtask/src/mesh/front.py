"""The demo's MCP server with two things that it has not: a call whose answer waits, and a stream on which a client listens.

front.py PORT UPSTREAM_PORT RECORD RELEASED
A call with "mesh_hold" in it is answered once the file RELEASED/ID exists; a GET is open until its client goes. Both write a line
to RECORD when they come. Everything else goes to the server itself, byte for byte.
"""
import http.client, http.server, json, os, sys, time
port, upstream, record, released = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4]


class Front(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def stream(self):
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()

    def chunk(self, text):
        data = text.encode()
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
        self.wfile.flush()

    def came(self, what):
        with open(record, "a") as file:
            file.write(what + "\n")

    def hold(self, message):
        self.came("held " + message["id"])
        self.stream()
        file = os.path.join(released, message["id"])
        while not os.path.exists(file):
            self.chunk(": wait\n\n")
            time.sleep(0.5)
        answer = {"jsonrpc": "2.0", "id": message["id"], "result": {"content": [], "structuredContent": {"rows": []}}}
        self.chunk("event: message\ndata: " + json.dumps(answer) + "\n\n")
        self.wfile.write(b"0\r\n\r\n")

    def listen(self):
        self.came("listening")
        self.stream()
        while True:
            self.chunk(": open\n\n")
            time.sleep(0.5)

    def handle_any(self):
        length = int(self.headers.get("content-length") or 0)
        body = self.rfile.read(length) if length else self.chunked()
        try:
            if self.command == "GET" and "text/event-stream" in self.headers.get("accept", ""):
                return self.listen()
            if b"mesh_hold" in body:
                return self.hold(json.loads(body))
        except OSError:
            self.close_connection = True
            return
        c = http.client.HTTPConnection("127.0.0.1", upstream, timeout=30)
        headers = {k: v for k, v in self.headers.items() if k.lower() not in ("transfer-encoding", "content-length", "connection")}
        if self.command != "GET":
            headers["content-length"] = str(len(body))
        c.request(self.command, self.path, body, headers)
        r = c.getresponse()
        answer = r.read()
        self.send_response(r.status)
        for k, v in r.getheaders():
            if k.lower() not in ("transfer-encoding", "content-length", "connection", "date", "server"):
                self.send_header(k, v)
        self.send_header("content-length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)
        c.close()

    def chunked(self):
        body = b""
        if "chunked" not in self.headers.get("transfer-encoding", ""):
            return body
        while True:
            size = int(self.rfile.readline().split(b";")[0], 16)
            body += self.rfile.read(size)
            self.rfile.readline()
            if size == 0:
                return body

    do_GET = do_POST = do_DELETE = handle_any

    def log_message(self, *arguments):
        pass


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128


Server(("127.0.0.1", port), Front).serve_forever()
