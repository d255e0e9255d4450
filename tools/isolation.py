"""Who reaches whom in a Compose file: tries it with network namespaces of Linux, as Docker's bridges have them.

    PYTHONPATH=target/tools/python python3 tools/isolation.py docker-compose.yml              # tries, and prints
    PYTHONPATH=target/tools/python python3 tools/isolation.py --current docker-compose.yml FILE   # is FILE of today's networks?

Each service is a namespace with one interface per network. A network that is not `internal` has a way out; networks do not
reach each other (Docker's isolation rules). An agent is one more container on `front`. Needs iproute2 and user namespaces,
and no root. Servers are stand-ins that accept connections: what is tried is the topology, not the programs. A loopback is tried
where it is shared. Not tried: the bridge's own address on the machine, which Docker gives internal networks, too.
"""

import hashlib
import json
import os
import socket
import subprocess
import sys
import time

import yaml

# Where each service listens: its port, and the address if it is not every one.
PORTS = {
    "gateway": [(10000, None), (9901, "127.0.0.1")],
    "redis": [(6379, None)],
    "vault": [(8200, None)],
    "demo": [(8080, None)],
    "python": [(8081, None)],
    "prometheus": [(9090, "10.251.17.2")],
    "grafana": [(3000, None)],
}
AGENT = {"agent": {"networks": ["front"]}}
INTERNET = "203.0.113.1"


def topology(compose):
    """What the trial depends on: the networks, and what each service has of them."""
    services = {**compose["services"], **AGENT}
    of = {}
    for name, service in services.items():
        networks = service.get("networks") or {}
        if isinstance(networks, list):
            networks = {network: {} for network in networks}
        of[name] = {
            "mode": service.get("network_mode"),
            "networks": {net: (has or {}).get("ipv4_address") for net, has in networks.items()},
            "ports": service.get("ports", []),
        }
    internal = {name: bool((net or {}).get("internal")) for name, net in compose["networks"].items()}
    return {"services": of, "internal": internal, "listens": PORTS}


def digest(compose):
    return hashlib.sha256(json.dumps(topology(compose), sort_keys=True).encode()).hexdigest()


def run(*words, check=True):
    return subprocess.run(words, check=check, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


class Net:
    """The bridges, and the namespaces behind them."""

    def __init__(self, found):
        self.found = found
        self.addresses = {}
        run("mount", "-t", "tmpfs", "none", "/run")
        run("ip", "link", "set", "lo", "up")
        # The rest of the world.
        run("ip", "address", "add", f"{INTERNET}/32", "dev", "lo")
        with open("/proc/sys/net/ipv4/ip_forward", "w", encoding="ascii") as switch:
            switch.write("1")
        self.subnets = {}
        for number, (name, internal) in enumerate(sorted(found["internal"].items())):
            prefix = "10.251.17" if name == "metrics" else f"10.99.{number}"
            self.subnets[name] = prefix
            run("ip", "link", "add", f"br-{name}", "type", "bridge")
            run("ip", "link", "set", f"br-{name}", "up")
            if not internal:
                run("ip", "address", "add", f"{prefix}.1/24", "dev", f"br-{name}")
        for name in self.subnets:
            for other, prefix in self.subnets.items():
                if other != name:
                    run("ip", "rule", "add", "iif", f"br-{name}", "to", f"{prefix}.0/24", "prohibit")
        for number, (name, service) in enumerate(sorted(found["services"].items())):
            self.add(number, name, service)

    def add(self, number, name, service):
        if (service["mode"] or "").startswith("service:"):
            return
        run("ip", "netns", "add", name)
        run("ip", "-n", name, "link", "set", "lo", "up")
        for net, fixed in sorted(service["networks"].items()):
            address = fixed or f"{self.subnets[net]}.{number + 10}"
            host, own = f"v{number}{net}"[:15], f"e-{net}"[:15]
            run("ip", "link", "add", host, "type", "veth", "peer", "name", own, "netns", name)
            run("ip", "link", "set", host, "master", f"br-{net}")
            run("ip", "link", "set", host, "up")
            run("ip", "-n", name, "address", "add", f"{address}/24", "dev", own)
            run("ip", "-n", name, "link", "set", own, "up")
            if not self.found["internal"][net]:
                run("ip", "-n", name, "route", "add", "default", "via", f"{self.subnets[net]}.1", check=False)
            self.addresses.setdefault(name, []).append(address)

    def namespace(self, name):
        """Its own, or the one that it shares."""
        mode = self.found["services"][name]["mode"] or ""
        return mode.removeprefix("service:") if mode.startswith("service:") else name

    def listen(self):
        """Stand-ins; a list of their processes."""
        servers = []
        for name, ports in PORTS.items():
            for port, address in ports:
                servers.append(inside(self.namespace(name), "listen", address or "0.0.0.0", str(port)))
        servers.append(subprocess.Popen([sys.executable, __file__, "--listen", INTERNET, "443"], stdout=subprocess.PIPE))
        for server in servers:
            assert server.stdout.readline() == b"ready\n"
        return servers

    def targets(self):
        for name, ports in PORTS.items():
            for port, bound in ports:
                if bound == "127.0.0.1":
                    yield name, bound, port, bound
                    continue
                for address in self.addresses[self.namespace(name)]:
                    # What listens on one address alone is tried on all the same: by its network it must not answer.
                    yield f"{name}:{port}", address, port, bound
        yield "internet", INTERNET, 443, None


def inside(namespace, verb, *words):
    command = ["ip", "netns", "exec", namespace, sys.executable, __file__, f"--{verb}", *words]
    return subprocess.Popen(command, stdout=subprocess.PIPE)


def listen(address, port):
    server = socket.create_server((address, int(port)), backlog=64)
    print("ready", flush=True)
    while True:
        server.accept()[0].close()


def reach(targets):
    """Prints 1 or 0 for each ADDRESS:PORT."""
    for target in targets:
        address, port = target.rsplit(":", 1)
        try:
            socket.create_connection((address, int(port)), timeout=0.5).close()
            print(1)
        except OSError:
            print(0)


def tried(compose):
    net = Net(topology(compose))
    servers = net.listen()
    lines = []
    try:
        targets = list(net.targets())
        asking = {name: net.namespace(name) for name in sorted(net.found["services"])}
        for name, namespace in asking.items():
            asked = inside(namespace, "reach", *(f"{address}:{port}" for _, address, port, _ in targets))
            verdicts = asked.communicate()[0].split()
            assert len(verdicts) == len(targets), name
            # A loopback is its own namespace's alone.
            reached = {
                f"{what}:{port}" if bound == "127.0.0.1" else what
                for (what, _, port, bound), verdict in zip(targets, verdicts)
                if verdict == b"1" and (bound != "127.0.0.1" or net.namespace(what) == namespace)
            }
            own = {f"{name}:{port}" for port, _ in PORTS.get(name, [])}
            lines.append(f"{name}: {' '.join(sorted(reached - own)) or 'nothing'}")
    finally:
        for server in servers:
            server.kill()
            server.wait()
    return lines


def main():
    words = sys.argv[1:]
    if words[0] == "--listen":
        return listen(*words[1:])
    if words[0] == "--reach":
        return reach(words[1:])
    current = words[0] == "--current"
    with open(words[1 if current else 0], encoding="utf-8") as file:
        compose = yaml.safe_load(file)
    if current:
        with open(words[2], encoding="utf-8") as file:
            recorded = file.readline().split()[-1]
        if recorded != digest(compose):
            sys.exit(f"{words[2]}: was recorded with other networks; run cargo xtask isolation --record")
        return None
    if os.environ.get("ISOLATION_INSIDE") != "1":
        command = ["unshare", "--user", "--map-root-user", "--net", "--mount", sys.executable, __file__, words[0]]
        sys.exit(subprocess.run(command, env={**os.environ, "ISOLATION_INSIDE": "1"}, check=False).returncode)
    for name, service in compose["services"].items():
        for port in service.get("ports", []):
            # Docker publishes on every address of the machine, unless one is named.
            if name not in ("gateway", "grafana") or not str(port).startswith("127.0.0.1:"):
                sys.exit(f"{name} publishes {port}: only the gateway and Grafana may, on 127.0.0.1")
    lines = tried(compose)
    print("# What each container reaches (cargo xtask isolation), of networks", digest(compose))
    print("\n".join(lines))
    if "agent: gateway:10000 internet" not in lines:
        sys.exit("an agent reaches something else than the gateway")
    return None


if __name__ == "__main__":
    main()
