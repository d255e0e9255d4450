# Everything of ours in docker-compose.yml: `gateway` (Envoy with the module), `demo` (the connector and the operator's
# tool), `python` (the third-party MCP server). `docker build --target gateway .` makes one of them.

FROM rust:1.95.0-bookworm AS build
WORKDIR /src
RUN rustup target add wasm32-wasip1
COPY . .
RUN cargo build --locked --release --target wasm32-wasip1 --package portcullis-filter --package portcullis-redis-framing-module \
 && cargo build --locked --release --package portcullis --package portcullis-demo-connector

# An unmodified Envoy; the modules are files beside it.
FROM envoyproxy/envoy:v1.40.0 AS gateway
COPY --from=build /src/target/wasm32-wasip1/release/portcullis_filter.wasm /etc/envoy/portcullis.wasm
COPY --from=build /src/target/wasm32-wasip1/release/redis_framing.wasm /etc/envoy/redis_framing.wasm
COPY envoy/envoy.yaml envoy/render.sh /etc/portcullis/
RUN install -d -o envoy -g envoy /var/log/portcullis
USER envoy
# Envoy's admin interface is on the container's own loopback; its image has bash and no curl.
HEALTHCHECK --interval=5s --timeout=3s --start-period=20s CMD ["bash", "-c", \
  "exec 3<>/dev/tcp/127.0.0.1/9901 && printf 'GET /ready HTTP/1.1\\r\\nHost: localhost\\r\\nConnection: close\\r\\n\\r\\n' >&3 && grep -q LIVE <&3"]
ENTRYPOINT ["sh", "-ec", \
  "sh /etc/portcullis/render.sh /etc/portcullis/envoy.yaml > /tmp/envoy.yaml; exec envoy -c /tmp/envoy.yaml --concurrency 2 --file-flush-interval-msec 100"]

FROM debian:bookworm-slim AS demo
RUN useradd --system --uid 10001 --user-group demo && install -d -o demo -g demo /var/lib/demo
COPY --from=build /src/target/release/portcullis /src/target/release/portcullis-demo-connector /usr/local/bin/
COPY demo/policy.yaml /etc/portcullis/policy.yaml
USER demo
HEALTHCHECK --interval=5s --timeout=3s CMD ["bash", "-c", "exec 3<>/dev/tcp/127.0.0.1/8080"]
CMD ["portcullis-demo-connector", "--listen", "0.0.0.0:8080", "--database", "/var/lib/demo/demo.db", \
  "--credential-file", "/run/demo/credential"]

FROM python:3.13-slim AS python
COPY tools/python.txt /tmp/python.txt
RUN pip install --no-cache-dir --no-deps --require-hashes --only-binary :all: --requirement /tmp/python.txt \
 && useradd --system --uid 10001 --user-group demo
COPY demo/python/server.py /srv/server.py
USER demo
HEALTHCHECK --interval=5s --timeout=3s CMD ["python3", "-c", "import socket; socket.create_connection(('127.0.0.1', 8081), 2)"]
CMD ["python3", "/srv/server.py", "--host", "0.0.0.0", "--port", "8081"]
