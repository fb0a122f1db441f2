"""Ends each part of a running node, and waits until that is noticed and the swarm does its work again.

Needs a debug build: `herder up` takes faults from its state folder when SIGUSR2 comes.
"""

import http.client
import json
import os
import re
import signal
import socket
import sys
import time

# On a machine that does nothing else; a busy one gets four times as much, as with every scenario.
NOTICED_WITHIN = 5.0 * 4
HEALED_WITHIN = 8.0 * 4
NODES = ["n1", "n2", "n3"]
# Started again by themselves, so they may end together.
RESTARTED = [
    "agent", "engine observer", "engine health", "swarm session", "swarm gossip", "node description", "certificate",
    "keys of the pool", "gossip keys", "store recovery", "managers' keys", "managers' board", "certificate renewal",
    "swarm events", "stacks", "join code", "duplicate names", "rescheduling", "rescheduler's election", "bus requests", "bus links",
    "bus events", "bus membership", "pool members", "overlay networks", "plain containers on overlay networks",
]
FAULTS = [
    ("panic", ["leader"]),
    ("panic", RESTARTED),
    ("panic", ["gossip"]),
    ("panic", ["node link"]),
    ("return", ["leader"]),
    ("return", ["agent", "swarm session", "engine observer"]),
    ("return", ["gossip"]),
]


class Door(http.client.HTTPConnection):
    def __init__(self, node):
        super().__init__("herder", timeout=30)
        self.node = node

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(30)
        self.sock.connect(f"{self.node}.sock")


def ask(node, path, body=None):
    """The answer; None if there is none, or it is an error."""
    door = Door(node)
    try:
        method, headers = ("GET", {}) if body is None else ("POST", {"Content-Type": "application/json"})
        door.request(method, "/v1.41" + path, body and json.dumps(body), headers)
        answer = door.getresponse()
        text = answer.read()
        return json.loads(text or "{}") if answer.status < 300 else None
    except OSError:
        return None
    finally:
        door.close()


def until(limit, condition):
    """Seconds until the condition holds; None if it does not in time."""
    began = time.monotonic()
    while time.monotonic() - began < limit:
        if condition():
            return time.monotonic() - began
        time.sleep(0.05)
    return None


def leader():
    named = {(ask(node, "/info") or {}).get("Swarm", {}).get("NodeID"): node for node in NODES}
    leads = [it["ID"] for it in ask("n1", "/nodes") or [] if it.get("ManagerStatus", {}).get("Leader")]
    return next((named.get(node, "") for node in leads), "")


def all_ready():
    return [it["Status"]["State"] for it in ask("n1", "/nodes") or []] == ["ready"] * 3


def scaled(replicas):
    """Whether the service is declared with so many replicas; declares it if not."""
    web = ask("n1", "/services/web")
    if not web:
        return False
    mode = web["Spec"]["Mode"]["Replicated"]
    if mode["Replicas"] == replicas:
        return True
    mode["Replicas"] = replicas
    return ask("n1", f"/services/{web['ID']}/update?version={web['Version']['Index']}", web["Spec"]) is not None


def running():
    web = ask("n1", "/services?status=true") or [{}]
    return web[0].get("ServiceStatus", {}).get("RunningTasks")


def end(how, parts, replicas):
    """Nothing, or the reason why the parts do not count as noticed and healed."""
    node = (until(HEALED_WITHIN, leader) and leader()) if parts == ["leader"] else "n1"
    if not node:
        return "there is no leader before it"
    with open(f"{node}.log") as log:
        log.seek(0, os.SEEK_END)
        with open(f"{node}/fault", "w") as fault:
            fault.write("\n".join(f"{how} {part}" for part in parts))
        os.kill(int(open(f"{node}.pid").read()), signal.SIGUSR2)
        seen, missing = "", set(parts)

        def are_noticed():
            nonlocal seen
            seen += log.read()
            missing.difference_update(re.findall(r'a part has ended; .*part="([^"]*)"', seen))
            return not missing

        noticed = until(NOTICED_WITHIN, are_noticed)
    if noticed is None:
        return f"not noticed: {sorted(missing)}"
    healed = until(HEALED_WITHIN, lambda: all_ready() and scaled(replicas) and running() == replicas)
    if healed is None:
        return f"not healed: {running()} of {replicas} tasks, nodes ready: {all_ready()}"
    print(f"{how} {', '.join(parts)}: {noticed:.2f} s, {healed:.2f} s", file=sys.stderr)
    return None


wrong = 0
for number, (how, parts) in enumerate(FAULTS):
    trouble = end(how, parts, 2 + number % 3)
    if trouble:
        wrong += 1
        print(f"{how} {', '.join(parts)}: {trouble}")
print(f"{len(FAULTS) - wrong} of {len(FAULTS)} faults noticed and healed")
