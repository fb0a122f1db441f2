"""A lab of hosts for the suites in this folder. `herder` is the program of the variable HERDER, or that of the PATH."""

import contextlib
import http.client
import json
import os
import pathlib
import subprocess
import sys
import time

HERDER = os.environ.get("HERDER", "herder")
EXAMPLES = pathlib.Path(__file__).resolve().parents[5] / "examples" / "stacks"
LABEL = "com.docker.stack.namespace"
# Variables that the examples take secrets and names from.
VARIABLES = {
    "POSTGRES_PASSWORD": "p", "REPLICATION_PASSWORD": "r", "RESTIC_PASSWORD": "x", "CHAT_DB_PASSWORD": "c", "RUNNER_TOKEN": "t",
    "KEYCLOAK_DB": "k", "REGISTRY_USERS": "u", "DB_PASSWORD": "d",
}


def run(*command, check=True, **more):
    done = subprocess.run(command, capture_output=True, text=True, check=False, **more)
    if check and done.returncode:
        sys.exit(f"{' '.join(map(str, command))}\n{done.stdout}{done.stderr}")
    return done


def call(address, method, path, body=None, timeout=120, **headers):
    """Status and document of one request to `host:port`."""
    connection = http.client.HTTPConnection(address, timeout=timeout)
    try:
        data = body if isinstance(body, (bytes, type(None))) else json.dumps(body)
        kind = {"Content-Type": "application/json"} if body is not None and not isinstance(body, bytes) else {}
        connection.request(method, path, data, kind | {name.replace("_", "-"): value for name, value in headers.items()})
        answer = connection.getresponse()
        text = answer.read()
    finally:
        connection.close()
    try:
        return answer.status, json.loads(text) if text.strip() else None
    except ValueError:
        return answer.status, text.decode(errors="replace")


def until(what, look, seconds=60):
    """Waits for a true value, and gives it."""
    deadline = time.monotonic() + seconds
    while not (seen := look()):
        if time.monotonic() > deadline:
            sys.exit(f"not within {seconds} s: {what}")
        time.sleep(0.2)
    return seen


class Lab:
    def __init__(self, name):
        self.name = name
        status = json.loads(run(HERDER, "lab", "status", "--name", name, "--format", "json").stdout)
        bare = lambda it, key: (it.get(key) or "").removeprefix("tcp://")
        self.hosts = [it["name"] for it in status["hosts"]]
        self.engines = [bare(it, "docker_host") for it in status["hosts"]]
        self.doors = [bare(it, "herder_host") for it in status["hosts"]]

    def verb(self, verb, *more):
        return run(HERDER, "lab", verb, *more[:-1], "--name", self.name, *more[-1:])

    def swarm(self):
        """Makes all hosts managers of one swarm of herder."""
        docker = ["docker", "-H", "tcp://" + self.doors[0]]
        run(*docker, "swarm", "init")
        nodes = lambda: run(*docker, "node", "ls", "--format", "{{.Hostname}} {{.Status}} {{.ManagerStatus}}", check=False).stdout
        until("all nodes are ready", lambda: nodes().count("Ready") == len(self.hosts))
        if len(self.hosts) > 1:
            run(*docker, "node", "promote", *self.hosts[1:])
            until("all are managers", lambda: nodes().count("Reachable") + nodes().count("Leader") == len(self.hosts))

    def leader(self, door):
        listed = run("docker", "-H", "tcp://" + door, "node", "ls", "--format", "{{.Hostname}} {{.ManagerStatus}}", check=False)
        leads = [line.split()[0] for line in listed.stdout.splitlines() if line.endswith("Leader")]
        return leads[0] if leads else None


@contextlib.contextmanager
def lab(name, *options):
    run(HERDER, "lab", "down", "--name", name, check=False)
    run(HERDER, "lab", "up", "--name", name, *options)
    try:
        yield Lab(name)
    finally:
        if not os.environ.get("KEEP_LAB"):
            run(HERDER, "lab", "down", "--name", name, check=False)
