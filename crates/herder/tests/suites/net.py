#!/usr/bin/env python3
"""Long tests of overlay networks, on demand: three hosts with real engines.

net.py churn [--minutes 5]    tasks come and go in a subnet that is too small for them; no stale address answers for another task
net.py faults [--rounds 20]   kill, freeze, cut off and reboot each host under load; firewalls and devices that are removed

net.py moved                  a plain container on an overlay network follows when its host is lost
net.py redeploy [--times 50]  a stack with a network is removed and deployed again without a pause (moby#29293)

`HERDER` names the program (default: `herder` in PATH). Needs root. Prints one line of JSON at the end; exit code 1 if something failed.
`net.py probe …` runs inside a container's network; the others start it.
"""

import argparse
import json
import os
import random
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections import Counter

HERDER = os.environ.get("HERDER", "herder")
HERE = os.path.abspath(__file__)


# --- a lab -------------------------------------------------------------------------------------------------------------------------


class Lab:
    def __init__(self, name):
        self.name = name
        self.herder("down", check=False)
        self.herder("up", "--hosts", "3", "--memory", "2g", "--herder")
        self.look()

    def look(self):
        hosts = json.loads(self.herder("status", "--format", "json"))
        hosts = hosts if isinstance(hosts, list) else hosts["hosts"]
        self.doors = {it["name"]: it["herder_host"] for it in hosts}
        self.addresses = {it["name"]: it["docker_host"].split("//")[1].split(":")[0] for it in hosts}

    def herder(self, *words, check=True):
        done = subprocess.run([HERDER, "lab", *words, "--name", self.name], capture_output=True, text=True)
        if check and done.returncode != 0:
            raise RuntimeError(f"herder lab {' '.join(words)}: {done.stderr or done.stdout}")
        return done.stdout

    def within(self, host, *command):
        return ["ip", "netns", "exec", f"herder-{self.name}-{host}", *command]

    def docker(self, *words, door="h1", check=True):
        done = subprocess.run(["docker", "-H", self.doors[door], *words], capture_output=True, text=True, timeout=60)
        if check and done.returncode != 0:
            raise RuntimeError(f"docker {' '.join(words)}: {done.stderr.strip()}")
        return done.stdout.strip()

    def pids(self, host, word):
        """Processes of a host whose command line has a word."""
        found = []
        for pid in subprocess.run(["ip", "netns", "pids", f"herder-{self.name}-{host}"], capture_output=True, text=True).stdout.split():
            try:
                with open(f"/proc/{pid}/cmdline", "rb") as file:
                    if word.encode() in file.read().split(b"\0"):
                        found.append(int(pid))
            except OSError:
                pass
        return found

    def network_of(self, container):
        """A process outside of the lab's PID namespaces that is in a container's network namespace."""
        for line in subprocess.run(["pgrep", "-f", container], capture_output=True, text=True).stdout.split():
            with open(f"/proc/{line}/cmdline", "rb") as file:
                if container.encode() in file.read().split(b"\0"):
                    return line
        raise RuntimeError(f"{container} has no process")


def patiently(lab, *words, door, seconds=60):
    """A door that has just become a manager's refuses for a moment."""
    end = time.monotonic() + seconds
    while True:
        try:
            return lab.docker(*words, door=door)
        except RuntimeError:
            if time.monotonic() > end:
                raise
            time.sleep(0.5)


def wait_for(what, check, seconds=60):
    end = time.monotonic() + seconds
    while True:
        try:
            if check():
                return
        except (RuntimeError, subprocess.TimeoutExpired):
            pass
        if time.monotonic() > end:
            raise RuntimeError(f"not within {seconds} s: {what}")
        time.sleep(0.2)


# --- a probe inside of a network ---------------------------------------------------------------------------------------------------


def resolve(server, name, timeout=2):
    """Addresses of a name; nothing if there is no such name, `None` if the server says nothing."""
    number = random.randrange(65536)
    question = b"".join(bytes([len(part)]) + part.encode() for part in name.split(".")) + b"\0" + struct.pack(">HH", 1, 1)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(timeout)
        try:
            client.connect((server, 53))
            client.send(struct.pack(">HHHHHH", number, 0x0100, 1, 0, 0, 0) + question)
            answer = client.recv(4096)
        except OSError:
            return None
    count, at, found = struct.unpack(">H", answer[6:8])[0], 12 + len(question), []
    for _ in range(count):
        while answer[at] not in (0,) and answer[at] < 0xC0:
            at += answer[at] + 1
        at += 2 if answer[at] >= 0xC0 else 1
        kind, _, _, length = struct.unpack(">HHIH", answer[at : at + 10])
        at += 10
        if kind == 1:
            found.append(socket.inet_ntoa(answer[at : at + length]))
        at += length
    return found


def fetch(address, port=80, timeout=2):
    """`SERVICE TASK` of who answers; nothing if nobody does."""
    try:
        with socket.create_connection((address, port), timeout=timeout) as stream:
            stream.settimeout(timeout)
            stream.sendall(b"GET /id HTTP/1.0\r\n\r\n")
            data = b""
            while part := stream.recv(4096):
                data += part
        return data.decode().split("\r\n\r\n", 1)[1].strip().split(" ", 1)
    except (OSError, IndexError):
        return None


def probe(server, services, output):
    """Asks for every service and every task that was seen, again and again, and writes down what was not the one that was asked for."""
    seen, known, wrong = Counter(), {}, []
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    while not stop.is_set():
        for service in services:
            for kind, name in (("vip", service), ("tasks", f"tasks.{service}")):
                addresses = resolve(server, name)
                if addresses is None:
                    seen["no answer of DNS"] += 1
                for address in addresses or ():
                    said = fetch(address, timeout=1)
                    seen[f"{kind} {'answered' if said else 'refused'}"] += 1
                    if said and said[0] != service:
                        wrong.append(f"{time.time():.3f} {name} {address}: {said}")
                    if said:
                        known[said[1]] = time.monotonic()
        for task in random.sample(sorted(known), min(5, len(known))):
            addresses = resolve(server, task)
            if addresses == [] and time.monotonic() - known[task] > 20:
                del known[task]
            for address in addresses or ():
                said = fetch(address, timeout=1)
                seen["task by name"] += 1
                if said and said[1] != task:
                    wrong.append(f"{time.time():.3f} {task} {address}: {said}")
        with open(output + ".part", "w") as file:
            json.dump({"seen": seen, "tasks": len(known), "wrong": wrong}, file)
        os.rename(output + ".part", output)


# --- churn -------------------------------------------------------------------------------------------------------------------------

PAGE = 'echo "$SERVICE $TASK" >/tmp/id; exec httpd -f -h /tmp'


def churn(minutes, lab_name):
    lab = Lab(lab_name)
    lab.docker("swarm", "init")
    wait_for("three nodes", lambda: lab.docker("node", "ls", "-q").count("\n") == 2)
    # 29 addresses of containers and virtual IPs for up to 33: addresses are given again at once.
    lab.docker("network", "create", "-d", "overlay", "--attachable", "--subnet", "10.77.0.0/27", "small")
    services = ["a", "b", "c"]
    for name in services:
        lab.docker(
            "service", "create", "-d", "--no-resolve-image", "--name", name, "--network", "small", "--replicas", "6",
            "--env", f"SERVICE={name}", "--env", "TASK={{.Task.Name}}", "--stop-signal", "KILL", "--restart-delay", "100ms",
            "--update-parallelism", "3", "busybox", "sh", "-c", PAGE,
        )
    probes = []
    folder = subprocess.run(["mktemp", "-d"], capture_output=True, text=True).stdout.strip()
    for host in lab.doors:
        container = lab.docker("run", "-d", "--name", f"probe-{host}", "-e", f"constraint:node=={host}", "--network", "small", "--stop-signal", "KILL", "busybox", "sleep", f"86{host[1:]}00")
        pid = lab.network_of(f"86{host[1:]}00")
        output = f"{folder}/{host}.json"
        command = ["nsenter", "-t", pid, "-n", sys.executable, HERE, "probe", "10.77.0.1", output, *services]
        probes.append((output, subprocess.Popen(command), container))
    changes, end = Counter(), time.monotonic() + minutes * 60
    while time.monotonic() < end:
        service = random.choice(services)
        try:
            if random.random() < 0.3:
                lab.docker("service", "update", "-d", "--force", service)
                changes["update"] += 1
            else:
                lab.docker("service", "scale", "-d", f"{service}={random.randrange(2, 11)}")
                changes["scale"] += 1
        except (RuntimeError, subprocess.TimeoutExpired) as error:
            changes[f"refused: {str(error)[-60:]}"] += 1
        time.sleep(random.uniform(0.2, 1.5))
    for name in services:
        lab.docker("service", "scale", "-d", f"{name}=5")
    wait_for("all run", lambda: lab.docker("service", "ls", "--format", "{{.Replicas}}").split() == ["5/5"] * 3)
    time.sleep(2)
    doctors = {}
    for host in lab.doors:
        said = subprocess.run(lab.within(host, HERDER, "doctor", "net", "--state", state_of(lab, host), "--format", "json"), capture_output=True, text=True)
        doctors[host] = [it for it in json.loads(said.stdout) if not it["ok"]] if said.stdout else said.stderr
    result = {"minutes": minutes, "changes": changes, "probes": {}, "doctor": doctors}
    addresses = set()
    for task in lab.docker("service", "ps", "-q", *services).split():
        said = json.loads(lab.docker("inspect", task))[0]
        addresses.update(it for attached in said.get("NetworksAttachments") or [] for it in attached["Addresses"])
    result["addresses seen"] = len(addresses)
    for output, process, _ in probes:
        process.terminate()
        process.wait()
        with open(output) as file:
            result["probes"][os.path.basename(output)] = json.load(file)
    result["wrong"] = sum(len(it["wrong"]) for it in result["probes"].values())
    lab.herder("down")
    print(json.dumps(result))
    return result["wrong"] == 0 and not any(doctors.values())


def state_of(lab, host):
    for pid in lab.pids(host, "up"):
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            words = file.read().decode().split("\0")
        if "--state" in words:
            return words[words.index("--state") + 1]
    raise RuntimeError(f"no herder runs on {host}")


# --- faults ------------------------------------------------------------------------------------------------------------------------


class Load:
    """New connections to a published port of some hosts; counts what failed, and notes the longest time without an answer of each."""

    def __init__(self, addresses, port):
        self.addresses, self.port, self.lock = addresses, port, threading.Lock()
        self.exempt, self.gap, self.last, self.counts, self.errors = set(), {}, {}, Counter(), []
        self.stop = False
        self.threads = [threading.Thread(target=self.run, args=(name,), daemon=True) for name in addresses for _ in range(2)]
        for thread in self.threads:
            thread.start()

    def run(self, name):
        while not self.stop:
            if name in self.exempt:
                time.sleep(0.02)
                continue
            began = time.monotonic()
            said = fetch(self.addresses[name], self.port, timeout=3)
            now = time.monotonic()
            with self.lock:
                if said:
                    self.counts["answered"] += 1
                    self.gap[name] = max(self.gap.get(name, 0), now - self.last.get(name, now))
                    self.last[name] = now
                elif name not in self.exempt:
                    self.counts["failed"] += 1
                    self.errors.append((name, round(began, 2), round(now - began, 2)))
            time.sleep(0.01)

    def window(self):
        """What happened since the last call."""
        with self.lock:
            seen = {"answered": self.counts["answered"], "failed": self.counts["failed"], "gap": round(max(self.gap.values(), default=0), 2)}
            now = time.monotonic()
            for name, last in self.last.items():
                if name not in self.exempt:
                    seen["gap"] = max(seen["gap"], round(now - last, 2))
            self.counts.clear()
            self.gap.clear()
            return seen

    def without(self, name):
        with self.lock:
            self.exempt.add(name)
            self.last.pop(name, None)

    def again(self, name):
        with self.lock:
            self.exempt.discard(name)


class Held:
    """A connection from a container to a task by virtual IP, over which bytes go to and fro; and lookups of a name, beside it."""

    def __init__(self, command):
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)

    def end(self):
        self.process.terminate()
        return json.loads(self.process.stdout.readline() or "{}")


def hold(server, name, port):
    """One connection and lookups until SIGTERM; prints the longest pauses."""
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    pauses, broken, lookups = {"connection": 0.0, "names": 0.0}, 0, Counter()

    def ask():
        last = time.monotonic()
        while not stop.is_set():
            found = resolve(server, name, timeout=0.5)
            if found:
                now = time.monotonic()
                pauses["names"] = max(pauses["names"], now - last)
                last = now
            lookups["answered" if found else "failed"] += 1
            time.sleep(0.02)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    address = (resolve(server, name) or [name])[0]
    stream = socket.create_connection((address, port), timeout=5)
    stream.settimeout(10)
    count, last = 0, time.monotonic()
    while not stop.is_set():
        try:
            stream.sendall(b"x\n")
            if not stream.recv(16):
                raise OSError("closed")
        except OSError:
            broken += 1
            break
        now = time.monotonic()
        pauses["connection"] = max(pauses["connection"], now - last)
        last, count = now, count + 1
        time.sleep(0.02)
    stop.wait()
    print(json.dumps({"broken": broken, "echoes": count, **{f"{key} pause": round(it, 2) for key, it in pauses.items()}, **lookups}), flush=True)


ECHO = "mkfifo /tmp/f; while true; do nc -l -p 7 </tmp/f | cat >/tmp/f; done"


def faults(rounds, lab_name, encrypted, only):
    lab = Lab(lab_name)
    if encrypted:
        subprocess.run([HERDER, "swarm", "init", "--encrypt", "-H", lab.doors["h1"]], check=True, stdout=subprocess.DEVNULL)
    else:
        lab.docker("swarm", "init")
    wait_for("three nodes", lambda: lab.docker("node", "ls", "-q").count("\n") == 2)
    lab.docker("node", "promote", "h2", "h3")
    for host in lab.doors:
        wait_for("three managers", lambda: lab.docker("info", "--format", "{{.Swarm.ControlAvailable}}", door=host) == "true")
    lab.docker("network", "create", "-d", "overlay", "--attachable", "--subnet", "10.78.0.0/24", "ov")
    lab.docker("service", "create", "-d", "--no-resolve-image", "--name", "web", "--network", "ov", "-p", "8088:80", "--replicas", "6",
               "--env", "SERVICE=web", "--env", "TASK={{.Task.Name}}", "--stop-signal", "KILL", "busybox", "sh", "-c", PAGE)
    wait_for("all run", lambda: lab.docker("service", "ls", "--format", "{{.Replicas}}") == "6/6")
    load = Load(lab.addresses, 8088)
    wait_for("load", lambda: load.counts["answered"] > 20)
    hosts, report, worst = list(lab.doors), [], Counter()
    wholes = ["kill", "freeze", "cut off", "reboot"]
    smalls = ["nft flush", "iptables -F", "vxlan", "restart herder", "kill -9 herder"]
    kinds = [it for it in wholes + smalls if not only or it in only]
    plan = [(kinds[n % len(kinds)], hosts[n % 3]) for n in range(rounds)]
    for n, (what, host) in enumerate(plan):
        door = next(it for it in hosts if it != host)
        load.window()
        time.sleep(1)
        quiet = load.window()
        if quiet["failed"]:
            report.append({"round": n, "fault": "none", "on": host, **quiet})
        began = time.monotonic()
        if what in wholes:
            # Its own door is lost; the others must answer.
            load.without(host)
            fault = {"kill": ("kill", host), "freeze": ("pause", host), "cut off": ("partition", host), "reboot": ("crash", host)}[what]
            lab.herder(*fault)
            if what == "kill":
                lab.herder("kill", host, "--herder")
            time.sleep(6)
            seen = load.window()
            undo = {"kill": ("start", host), "freeze": ("resume", host), "cut off": ("heal", host), "reboot": ("boot", host)}[what]
            lab.herder(*undo)
            if what in ("kill", "reboot"):
                lab.herder("start", host, "--herder", check=False)
            wait_for(f"{host} ready after {what}", lambda: lab.docker("node", "ls", "--format", "{{.Hostname}} {{.Status}}", door=door).count("Ready") == 3, 90)
            wait_for("all run", lambda: lab.docker("service", "ls", "--format", "{{.Replicas}}", door=door) == "6/6", 90)
            load.again(host)
            wait_for(f"{host} answers", lambda: host in load.last, 60)
        else:
            probe_host = patiently(lab, "run", "-d", "--name", f"held-{n}", "-e", f"constraint:node=={host}", "--network", "ov", "--stop-signal", "KILL", "busybox", "sleep", f"87{n:03}00", door=host)
            far = patiently(lab, "run", "-d", "--name", f"echo-{n}", "-e", f"constraint:node=={door}", "--network", "ov", "--network-alias", f"echo{n}", "--stop-signal", "KILL", "busybox", "sh", "-c", ECHO, door=door)
            pid = lab.network_of(f"87{n:03}00")
            time.sleep(1)
            held = Held(["nsenter", "-t", pid, "-n", sys.executable, HERE, "hold", "10.78.0.1", f"echo{n}", "7"])
            time.sleep(1)
            load.window()
            if what == "nft flush":
                subprocess.run(lab.within(host, "nft", "flush", "ruleset"), check=True)
            elif what == "iptables -F":
                subprocess.run(lab.within(host, "iptables", "-w", "-F"), check=True)
            elif what == "vxlan":
                links = subprocess.run(lab.within(host, "ip", "-br", "link", "show", "type", "vxlan"), capture_output=True, text=True).stdout
                for line in links.splitlines():
                    subprocess.run(lab.within(host, "ip", "link", "del", line.split()[0]), check=True)
            elif what == "kill -9 herder":
                lab.herder("kill", host, "--herder")
                time.sleep(3)
                lab.herder("start", host, "--herder")
            else:
                for pid in lab.pids(host, "up"):
                    os.kill(pid, signal.SIGTERM)
                wait_for("its end", lambda: not lab.pids(host, "up"), 30)
                time.sleep(2)
                lab.herder("start", host, "--herder")
            time.sleep(5)
            seen = load.window()
            seen["held"] = held.end()
            wait_for("three ready", lambda: lab.docker("node", "ls", "--format", "{{.Status}}", door=door).count("Ready") == 3, 90)
            for container, at in ((probe_host, host), (far, door)):
                wait_for("its removal", lambda: lab.docker("rm", "-f", container, door=at))
        seen = {"round": n, "fault": what, "on": host, **seen, "whole after": round(time.monotonic() - began, 1)}
        print(json.dumps(seen), file=sys.stderr, flush=True)
        report.append(seen)
    load.stop = True
    lab.herder("down")
    for it in report:
        worst[it["fault"]] = max(worst[it["fault"]], it["gap"])
    print(json.dumps({"rounds": len(plan), "longest gap by fault, s": worst, "failed": sum(it["failed"] for it in report), "rounds in detail": report}))
    held = [it["held"] for it in report if "held" in it and "herder" in it["fault"]]
    is_held = all(not it.get("broken") and it.get("connection pause", 9) < 1 and it.get("names pause", 9) < 1 for it in held)
    return all(gap <= 2.5 for fault, gap in worst.items() if fault in smalls) and is_held


# --- rescheduling ------------------------------------------------------------------------------------------------------------------


def moved(lab_name):
    lab = Lab(lab_name)
    lab.docker("swarm", "init")
    wait_for("three nodes", lambda: lab.docker("node", "ls", "-q").count("\n") == 2)
    lab.docker("node", "promote", "h2", "h3")
    for name in ("ov", "second"):
        lab.docker("network", "create", "-d", "overlay", "--attachable", name)
    lab.docker("run", "-d", "--name", "stays", "-e", "constraint:node==h1", "--network", "ov", "--stop-signal", "KILL", "busybox", "sleep", "100000")
    lab.docker("run", "-d", "--name", "mover", "-e", "constraint:node==~h3", "-e", "reschedule:on-node-failure", "--network", "ov",
               "--network-alias", "al", "--stop-signal", "KILL", "busybox", "sleep", "100000")
    lab.docker("network", "connect", "second", "mover")
    where = 'node={{.Node.Name}} {{range $name, $it := .NetworkSettings.Networks}}{{$name}}={{$it.IPAddress}} {{end}}'
    ping = lambda: lab.docker("exec", "stays", "ping", "-c1", "-w2", "al")
    wait_for("a first answer", ping)
    before = lab.docker("inspect", "mover", "--format", where)
    lab.herder("crash", "h3")
    began = time.monotonic()
    wait_for("the container elsewhere", lambda: "node=h3" not in lab.docker("inspect", "mover", "--format", where) and ping(), 60)
    seconds = time.monotonic() - began
    after = lab.docker("inspect", "mover", "--format", where)
    lab.herder("down")
    print(json.dumps({"before": before, "after": after, "answers again after, s": round(seconds, 1)}))
    return {it.split("=")[0] for it in before.split()} == {it.split("=")[0] for it in after.split()}


# --- removal and deployment without a pause ----------------------------------------------------------------------------------------

STACK = """version: "3.8"
services:
  a: {image: busybox, command: sleep 100000, stop_signal: KILL, networks: [net]}
  b: {image: busybox, command: sleep 100000, stop_signal: KILL, networks: [net], deploy: {replicas: 2}}
networks:
  net: {}
"""


def redeploy(times, lab_name):
    lab = Lab(lab_name)
    lab.docker("swarm", "init")
    wait_for("three nodes", lambda: lab.docker("node", "ls", "-q").count("\n") == 2)
    stack = ["stack", "deploy", "--detach=true", "--resolve-image", "never", "-c", "-", "again"]
    refused, began = Counter(), time.monotonic()
    for n in range(times):
        done = subprocess.run(["docker", "-H", lab.doors["h1"], *stack], input=STACK, capture_output=True, text=True)
        if done.returncode != 0:
            refused[done.stderr.strip()[-120:]] += 1
        if n < times - 1:
            lab.docker("stack", "rm", "again")
    wait_for("all run", lambda: lab.docker("stack", "services", "again", "--format", "{{.Replicas}}").split() == ["1/1", "2/2"], 60)
    seconds = time.monotonic() - began
    overlays = lab.docker("network", "ls", "--filter", "driver=overlay", "--format", "{{.Name}}").split()
    lab.herder("down")
    print(json.dumps({"times": times, "refused": refused, "seconds": round(seconds, 1), "networks": sorted(overlays)}))
    return not refused and sorted(overlays) == ["again_net", "ingress"]


def main():
    if len(sys.argv) > 2 and sys.argv[1] == "probe":
        return probe(sys.argv[2], sys.argv[4:], sys.argv[3])
    if len(sys.argv) > 2 and sys.argv[1] == "hold":
        return hold(sys.argv[2], sys.argv[3], int(sys.argv[4]))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["churn", "faults", "moved", "redeploy"])
    parser.add_argument("--minutes", type=float, default=5)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--times", type=int, default=50)
    parser.add_argument("--only", default="", help="these faults alone, with commas between")
    parser.add_argument("--encrypted", action="store_true", help="all networks of the lab are encrypted")
    parser.add_argument("--lab", default="suite-net", help="name of the lab")
    asked = parser.parse_args()
    suites = {
        "churn": lambda: churn(asked.minutes, asked.lab),
        "faults": lambda: faults(asked.rounds, asked.lab, asked.encrypted, asked.only.split(",") if asked.only else []),
        "moved": lambda: moved(asked.lab),
        "redeploy": lambda: redeploy(asked.times, asked.lab),
    }
    fine = suites[asked.what]()
    sys.exit(0 if fine else 1)


if __name__ == "__main__":
    main()
