"""A swarm of five nodes is upgraded to another release node by node, and back, while services come, change and go.

    upgrade.py OLD NEW LAB

OLD and NEW are two builds of herder; LAB is the name of a lab that this script makes and takes down. Three nodes are managers.
In the end every service must be as it was last declared, and all managers must tell the same of every object. What each step
took goes to the standard error.
"""

import hashlib
import json
import subprocess
import sys
import threading
import time

OLD, NEW, LAB = sys.argv[1:4]
HOSTS = ["h1", "h2", "h3", "h4", "h5"]
MANAGERS = HOSTS[:3]
# The leader is the last to go, so that it leads a swarm of two releases for most of the time.
ORDER = ["h5", "h4", "h3", "h2", "h1"]
READY_MAX = 60
SERVICES = 8
DOORS = {}


def call(*words):
    return subprocess.run(words, capture_output=True, text=True, timeout=60)


def run(*words):
    done = call(*words)
    if done.returncode != 0:
        raise SystemExit(f"{words}: {done.stdout}{done.stderr}")
    return done.stdout.strip()


def docker(host, *words):
    return run("docker", "-H", DOORS[host], *words)


def until(limit, what, holds):
    began = time.monotonic()
    while time.monotonic() < began + limit:
        if found := holds():
            return found, time.monotonic() - began
        time.sleep(0.2)
    raise SystemExit(f"not within {limit} s: {what}\n{docker('h1', 'node', 'ls')}\n{docker('h1', 'service', 'ls')}")


def nodes(host):
    done = call("docker", "-H", DOORS[host], "node", "ls", "--format", "{{.Hostname}} {{.Status}} {{.ManagerStatus}}")
    return done.stdout.splitlines() if done.returncode == 0 else []


def all_well():
    lines = nodes("h1") or nodes("h2")
    ready = [line for line in lines if line.split()[1:2] == ["Ready"]]
    managers = [line for line in lines if line.split()[2:3] in (["Leader"], ["Reachable"])]
    return len(ready) == len(HOSTS) and len(managers) == len(MANAGERS)


class Load(threading.Thread):
    """Declares one change after the other, through one manager after the other, until it is told to stop."""

    def __init__(self):
        super().__init__(daemon=True)
        self.wanted, self.changes, self.again, self.stop = {}, 0, 0, threading.Event()

    def change(self, *words):
        """A manager that goes away in the middle may have made the change: the next one is asked the same again."""
        for attempt in range(200):
            done = call("docker", "-H", DOORS[MANAGERS[(self.changes + attempt) % 3]], "service", *words)
            text = done.stderr
            if done.returncode == 0 or "already exists" in text and attempt or "not found" in text and attempt:
                self.changes += 1
                return
            self.again += 1
            time.sleep(0.3)
        raise SystemExit(f"{words}: {text}")

    def run(self):
        number = 0
        while not self.stop.is_set():
            name, number = f"s{number % SERVICES}", number + 1
            kind = number // SERVICES % 4
            if name not in self.wanted:
                self.change("create", "--detach", "--name", name, "--replicas", "2", "--stop-grace-period", "1s", "--env", "N=0", "--update-delay", "0s", "busybox", "sleep", "100000")
                self.wanted[name] = [2, "0"]
            elif kind == 3:
                self.change("rm", name)
                del self.wanted[name]
            elif kind == 1:
                self.change("scale", "--detach", f"{name}={number % 3 + 1}")
                self.wanted[name][0] = number % 3 + 1
            else:
                self.change("update", "--detach", "--env-add", f"N={number}", name)
                self.wanted[name][1] = str(number)


def told(host):
    """Digest of each kind of object as this manager tells it; times of heartbeats are no part of it."""
    kinds = {}
    for kind in ["service", "node", "network", "secret", "config"]:
        ids = sorted(docker(host, kind, "ls", "-q").split())
        swarm = [json.loads(docker(host, kind, "inspect", it))[0] for it in ids] if kind != "network" else ids
        kinds[kind] = hashlib.sha256(json.dumps(swarm, sort_keys=True).encode()).hexdigest()[:12]
    return kinds


def replace(binary, what):
    for host in ORDER:
        began = time.monotonic()
        run(OLD, "lab", "exec", "--name", LAB, host, "sh", "-c", f"kill $(cat /run/herder-lab/{LAB}/{host}/herder.pid); while [ -e /proc/$(cat /run/herder-lab/{LAB}/{host}/herder.pid) ]; do sleep 0.05; done")
        run(binary, "lab", "start", "--herder", "--name", LAB, host)
        until(READY_MAX, f"{host} is ready with the other release", all_well)
        print(f"{what}: {host} after {time.monotonic() - began:.1f} s, {load.changes} changes", file=sys.stderr)
        time.sleep(3)


run(OLD, "lab", "up", "--name", LAB, "--hosts", "5", "--memory", "2g", "--herder")
try:
    status = json.loads(run(OLD, "lab", "status", "--name", LAB, "--format", "json"))
    DOORS.update({it["name"]: it["herder_host"] for it in status["hosts"]})
    docker("h1", "swarm", "init")
    until(READY_MAX, "five nodes", lambda: len([it for it in nodes("h1") if " Ready" in it]) == 5)
    docker("h1", "node", "promote", "h2", "h3")
    until(READY_MAX, "three managers", all_well)
    load = Load()
    load.start()
    replace(NEW, "upgrade")
    replace(OLD, "downgrade")
    load.stop.set()
    load.join(120)
    wanted = {name: f"{count}/{count}" for name, (count, _) in load.wanted.items()}

    def as_declared():
        lines = docker("h1", "service", "ls", "--format", "{{.Name}} {{.Replicas}}").splitlines()
        return dict(line.split(" ", 1) for line in lines) == wanted

    _, took = until(120, f"services as declared: {wanted}", as_declared)
    for name, (_, value) in load.wanted.items():
        env = json.loads(docker("h1", "service", "inspect", name))[0]["Spec"]["TaskTemplate"]["ContainerSpec"]["Env"]
        assert env == [f"N={value}"], f"{name}: {env} instead of N={value}"

    def same():
        first, *others = [told(host) for host in MANAGERS]
        return first if all(it == first for it in others) else None

    digests, _ = until(30, "all managers tell the same", same)
    print(f"{load.changes} changes ({load.again} asked again), as declared {took:.1f} s after the last; {len(wanted)} services; managers agree: {digests}")
finally:
    run(OLD, "lab", "down", "--name", LAB)
