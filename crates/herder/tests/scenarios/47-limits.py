"""The limits of /v2 over real sockets: 47-limits.py DOOR, where 127.0.0.1 is that of the door's host.

Each line is a limit, the status and the code that a client gets beyond it.
"""

import http.client
import json
import socket
import sys
import threading
import urllib.error
import urllib.request

DOOR = sys.argv[1].replace("tcp://", "http://")
SLOW = """services:
  db: {image: busybox, command: sleep 1000, stop_grace_period: 0s, healthcheck: {test: "false", interval: 1s, retries: 1000}}
  web: {image: busybox, command: sleep %d, stop_grace_period: 0s, depends_on: {db: {condition: service_healthy}}}
"""


def call(method, path, body=None, headers=()):
    """Returns status, headers and document of an answer."""
    data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
    request = urllib.request.Request(DOOR + path, data, {"Content-Type": "application/json", **dict(headers)}, method=method)
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            text = answer.read()
            return answer.status, answer.headers, json.loads(text) if text.startswith((b"{", b"[")) else text.decode()
    except urllib.error.HTTPError as error:
        return error.code, error.headers, json.loads(error.read() or b"{}")


def announced(size):
    """Returns the answer to a request whose body is announced and not sent yet."""
    with socket.create_connection(DOOR.split("//")[1].split(":")) as door:
        door.sendall(f"PUT /v2/targets/own/stacks/big HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {size}\r\nExpect: 100-continue\r\n\r\n".encode())
        answer = http.client.HTTPResponse(door)
        answer.begin()
        return answer.status, answer.headers, json.loads(answer.read())


def told(name, answer, *more):
    status, _, document = answer
    print(f"{name}:", status, document.get("code", "") if isinstance(document, dict) else "", *more)


def queue():
    """One operation works, 16 wait, and no more."""
    stack = "/v2/targets/own/stacks/slow"
    deploy = lambda number, query="": call("PUT", stack + query, {"files": {"compose.yaml": SLOW % number}, "options": {"resolve": "never"}})
    print("accepted:", [deploy(number)[0] for number in range(17)].count(202))
    refused = deploy(17)
    told("queue", refused, "Retry-After" in refused[1])
    told("no queue", deploy(18, "?queue=false"))
    operations = call("GET", "/v2/operations?stack=slow")[2]
    items = operations["items"] if isinstance(operations, dict) else operations
    # The last first: the end of one begins the next.
    under_way = sorted((it for it in items if it["state"] in ("queued", "running")), key=lambda it: it["state"] == "running")
    for operation in under_way:
        call("DELETE", f"/v2/operations/{operation['id']}")
    for operation in under_way:
        call("GET", f"/v2/operations/{operation['id']}/events")
    print("ended:", len(under_way))
    told("removed", call("DELETE", stack, headers={"Prefer": "wait=60"}.items()))


def sizes():
    put = lambda document: call("PUT", "/v2/targets/own/stacks/big", document)
    file = "services: {web: {image: busybox}}\n"
    told("body of 17 MiB", announced(17 << 20))
    told("file of 1 MiB", put({"files": {"compose.yaml": file + "#" * (1 << 20)}}))
    told("bundle of 5 MiB", put({"files": {"compose.yaml": file, **{f"f{n}": "x" * (1 << 20) for n in range(5)}}}))
    told("513 files", put({"files": {"compose.yaml": file, **{f"f{n}": "x" for n in range(513)}}}))
    told("name of 64", call("PUT", "/v2/targets/own/stacks/" + "n" * 64, {"files": {"compose.yaml": file}}))
    tls = {"ca": "x" * (65 << 10), "cert": "x", "key": "x"}
    told("PEM of 65 KiB", call("POST", "/v2/targets", {"name": "pem", "kind": "engine", "address": "tcp://127.0.0.1:1", "tls": tls}))
    call("POST", "/v2/targets", {"name": "local", "kind": "engine", "address": "tcp://169.254.169.254:80"})
    answer = call("GET", "/v2/targets/local/stacks")
    told("link-local", answer, answer[2]["detail"])
    call("DELETE", "/v2/targets/local")


class Silent:
    """A server that answers no request before four connections are open, and remembers how many were."""

    def __init__(self):
        self.most = 0
        self.open = set()
        self.changed = threading.Condition()
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.port = self.socket.getsockname()[1]
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            connection, _ = self.socket.accept()
            with self.changed:
                self.open.add(connection)
                self.most = max(self.most, len(self.open))
                self.changed.notify_all()
            threading.Thread(target=self.answer, args=(connection,), daemon=True).start()

    def answer(self, connection):
        connection.recv(65536)
        with self.changed:
            self.changed.wait_for(lambda: self.most >= 4)
            self.open.discard(connection)
        connection.sendall(b"HTTP/1.1 500 Server Error\r\nContent-Type: application/json\r\nContent-Length: 16\r\nConnection: close\r\n\r\n{\"message\": \"x\"}")
        connection.close()


def connections():
    server = Silent()
    call("POST", "/v2/targets", {"name": "silent", "kind": "engine", "address": f"tcp://127.0.0.1:{server.port}"})
    callers = [threading.Thread(target=call, args=("GET", "/v2/targets/silent/stacks")) for _ in range(12)]
    [caller.start() for caller in callers]
    [caller.join() for caller in callers]
    print("connections:", server.most)
    call("DELETE", "/v2/targets/silent")


def breaker():
    call("POST", "/v2/targets", {"name": "gone", "kind": "engine", "address": "tcp://127.0.0.1:9"})
    details = []
    while not details or ("is asked again" not in details[-1] and len(details) < 20):
        answer = call("GET", "/v2/targets/gone/stacks")
        details.append(answer[2]["detail"])
    told("left alone", answer, "after", len(details) - 1, "refused" in details[-2])
    up = [line for line in call("GET", "/v2/metrics")[2].splitlines() if line.startswith("herder_target_up") and "127.0.0.1:9\"" in line]
    print("metrics:", [line.split()[-1] for line in up])


def versions():
    tag = call("GET", "/v2/targets/gone")[1]["ETag"]
    told("other version", call("DELETE", "/v2/targets/gone", headers={"If-Match": '"1"'}.items()))
    told("this version", call("DELETE", "/v2/targets/gone", headers={"If-Match": tag}.items()))


queue()
sizes()
connections()
breaker()
versions()
