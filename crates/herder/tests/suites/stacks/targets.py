"""One stack at all three back ends: a swarm of herder, a swarm of Docker's engine with TLS, one engine without a swarm.

targets.py LAB    LAB is the name of the lab that is made. Deploys, deploys again (no write), changes the image, breaks it (and
                  goes back), scales, edits a config, renames (own cluster), removes; after each step the plan must have told what
                  was done, and the objects are those of targets.txt beside this script. UPDATE=1 writes that file.
"""

import base64
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile

import lab as labs
from lab import HERDER, LABEL, run, until

COMPOSE = """services:
  web:
    image: app:${TAG}
    command: sh -c "cat /conf /run/secrets/pass; exec sleep 1000000"
    stop_grace_period: 0s
    environment: {LEVEL: info}
    depends_on: {db: {condition: service_healthy}}
    configs: [conf]
    secrets: [pass]
    deploy:
      replicas: ${N}
      update_config: {monitor: 1s}
      restart_policy: {condition: on-failure, max_attempts: 1, delay: 100ms}
  db:
    image: app:1
    command: sleep 1000000
    stop_grace_period: 0s
    volumes: ["data:/data"]
    healthcheck: {test: "true", interval: 1s}
  migrate:
    image: app:1
    command: "true"
    restart: "no"
    deploy: {mode: replicated-job}
    depends_on: {db: {condition: service_healthy}}
volumes: {data: {}}
configs: {conf: {content: "level=${LEVEL}\\n"}}
secrets: {pass: {environment: PASS}}
"""
IMAGES = {"app:1": "FROM busybox\nLABEL version=1\n", "app:2": "FROM busybox\nLABEL version=2\n",
          "app:broken": "FROM busybox\nENTRYPOINT [\"false\"]\n"}


class Target:
    """The Docker API of a target by Docker's own client, and the target's name at the door."""

    def __init__(self, name, *docker):
        self.name, self.docker = name, ["docker", *docker]

    def inspect(self, kind):
        ids = run(*self.docker, kind, "ls", "-q").stdout.split()
        return json.loads(run(*self.docker, kind, "inspect", *ids).stdout) if ids else []

    def objects(self, stack):
        """What the target has of a stack, one line each."""
        lines, plain = [], lambda name: re.sub(r"\.[0-9a-f]{8}$", ".DIGEST", name)
        networks = {it["Id"]: it["Name"] for it in self.inspect("network")}
        if self.name == "engine":
            ids = run(*self.docker, "ps", "-aq", "--filter", f"label={LABEL}={stack}").stdout.split()
            for it in json.loads(run(*self.docker, "inspect", *ids).stdout) if ids else []:
                where = " ".join(sorted(it["NetworkSettings"]["Networks"]))
                lines.append(f"container {it['Name'].lstrip('/')} of {it['Config']['Image']} {it['State']['Status']} on {where}")
        else:
            for it in self.inspect("service"):
                spec = it["Spec"]
                if (spec["Labels"] or {}).get(LABEL) != stack:
                    continue
                container, mode = spec["TaskTemplate"]["ContainerSpec"], spec["Mode"]
                files = [plain(f.get("ConfigName") or f["SecretName"]) for f in (container.get("Configs") or []) + (container.get("Secrets") or [])]
                where = [networks.get(n["Target"], n["Target"]) for n in spec["TaskTemplate"].get("Networks") or []]
                mounts = [m["Source"] for m in container.get("Mounts") or []]
                count = mode.get("Replicated", {}).get("Replicas", "job")
                lines.append(" ".join(["service", spec["Name"], "of", container["Image"].split("@")[0], f"×{count}", *files, *mounts, "on", *where]))
            for kind in ("config", "secret"):
                for it in self.inspect(kind):
                    if (it["Spec"]["Labels"] or {}).get(LABEL) == stack:
                        data = it["Spec"].get("Data")
                        data = " " + json.dumps(base64.b64decode(data).decode()) if data else ""
                        lines.append(f"{kind} {plain(it['Spec']['Name'])}{data}")
        for it in self.inspect("network"):
            if (it["Labels"] or {}).get(LABEL) == stack:
                lines.append(f"network {it['Name']} {it['Driver']}")
        return sorted(lines)

    def writes(self, stack):
        """A number or text that another write changes."""
        if self.name == "engine":
            return run(*self.docker, "ps", "-aq", "--no-trunc", "--filter", f"label={LABEL}={stack}").stdout
        name = "probe"
        run(*self.docker, "config", "create", name, "-", input="x")
        index = json.loads(run(*self.docker, "config", "inspect", name).stdout)[0]["Version"]["Index"]
        run(*self.docker, "config", "rm", name)
        # Its creation and its removal are two writes.
        return index


def main():
    with labs.lab(sys.argv[1], "--hosts", "4", "--memory", "2g", "--herder") as lab, tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        pathlib.Path("compose.yaml").write_text(COMPOSE)
        docker = lambda address: ["docker", "-H", "tcp://" + address]
        for engine in lab.engines:
            for tag, text in IMAGES.items():
                run(*docker(engine), "build", "-q", "-t", tag, "-", input=text, env=os.environ | {"DOCKER_BUILDKIT": "0"})
        # The first two hosts are the swarm of herder; the others' engines are targets. Their own herders look on.
        door = lab.doors[0]
        run(*docker(door), "swarm", "init")
        until("all nodes are ready", lambda: run(*docker(door), "node", "ls", "--format", "{{.Status}}").stdout.count("Ready") == 4)
        run(*docker(door), "node", "update", "--availability", "drain", lab.hosts[2])
        run(*docker(door), "node", "update", "--availability", "drain", lab.hosts[3])
        host = lab.engines[2].split(":")[0]
        run(HERDER, "certs", "--dir", "pki", "--engine", host, "--client", "admin")
        pki, client = pathlib.Path("pki").resolve() / f"engine-{host}", pathlib.Path("pki/client-admin").resolve()
        run(HERDER, "lab", "kill", "--name", lab.name, lab.hosts[2])
        options = [f"--engine-arg=--tlsverify", f"--engine-arg=--tlscacert={pki}/ca.pem", f"--engine-arg=--tlscert={pki}/cert.pem",
                   f"--engine-arg=--tlskey={pki}/key.pem"]
        run(HERDER, "lab", "start", "--name", lab.name, lab.hosts[2], *options)
        tls = ["-H", "tcp://" + lab.engines[2], "--tlsverify", "--tlscacert", f"{client}/ca.pem", "--tlscert", f"{client}/cert.pem",
               "--tlskey", f"{client}/key.pem"]
        run("docker", *tls, "swarm", "init", "--advertise-addr", "127.0.0.1", "--default-addr-pool", "10.99.0.0/16")
        at = ["-H", "tcp://" + door]
        run(HERDER, "stack", "target", "add", "swarm", "--address", "tcp://" + lab.engines[2], "--ca", f"{client}/ca.pem",
            "--cert", f"{client}/cert.pem", "--key", f"{client}/key.pem", *at)
        run(HERDER, "stack", "target", "add", "engine", "--kind", "engine", "--address", "tcp://" + lab.engines[3], *at)
        targets = [Target("own", *at), Target("swarm", *tls), Target("engine", "-H", "tcp://" + lab.engines[3])]

        told, faults = [], []

        def step(target, title, stack="shop", **variables):
            environment = os.environ | {"TAG": "1", "N": "2", "LEVEL": "info", "PASS": "word"} | variables
            there = [*at, "--target", target.name, "--resolve-image", "never"]
            plan = run(HERDER, "stack", "plan", stack, *there, "--format", "json", env=environment, check=False)
            changes = json.loads(plan.stdout) if plan.returncode == 0 else {}
            planned = {(it.get("action", it.get("Action", "")).lower(), it.get("name", it.get("Name")))
                       for it in changes.get("changes", changes.get("Changes", [])) if it.get("action", it.get("Action", "")).lower() != "keep"}
            done = run(HERDER, "stack", "deploy", stack, *there, "--timeout", "90s", env=environment, check=False)
            signs = {"+": "create", "~": "update", "-": "remove"}
            carried = {(signs[line[0]], line.split()[2]) for line in done.stderr.splitlines() if line[:2] in ("+ ", "~ ", "- ")}
            # A step that fails is not told, and those after it are not done.
            if not carried <= planned or (done.returncode == 0 and planned != carried):
                faults.append(f"{target.name}: {title}: planned {sorted(planned - carried)}, done {sorted(carried - planned)}")
            words = (done.stdout.strip() or done.stderr.strip().splitlines()[-1])
            told.append(f"{target.name}: {title}: exit {done.returncode}: {words}")
            told.extend("    " + line for line in target.objects(stack))

        for target in targets:
            step(target, "deploy")
            before = target.writes("shop")
            step(target, "deploy again")
            after = target.writes("shop")
            moved = after != before if target.name == "engine" else after - before != 2
            if moved:
                faults.append(f"{target.name}: the second deployment wrote something: {before} {after}")
            step(target, "change the image", TAG="2")
            step(target, "break the image", TAG="broken")
            step(target, "scale", TAG="2", N="3")
            step(target, "edit the config", TAG="2", N="3", LEVEL="debug")
            if target.name == "own":
                run(HERDER, "stack", "rename", "shop", "store", *at)
                tasks = run(*target.docker, "ps", "-q").stdout
                step(target, "rename, and deploy again", "store", TAG="2", N="3", LEVEL="debug")
                if run(*target.docker, "ps", "-q").stdout != tasks:
                    faults.append("own: a rename started containers anew")
            else:
                refused = run(HERDER, "stack", "rename", "shop", "store", *at, "--target", target.name, check=False)
                told.append(f"{target.name}: rename: exit {refused.returncode}: {refused.stderr.strip()}")
            stack = "store" if target.name == "own" else "shop"
            run(HERDER, "stack", "rm", stack, *at, "--target", target.name)
            volumes = sorted(it for it in run(*target.docker, "volume", "ls", "-q").stdout.split() if it.endswith("shop_data"))
            told.append(f"{target.name}: remove: {len(target.objects(stack))} objects left, volumes {' '.join({it.split('/')[-1] for it in volumes})}")
        text = "\n".join(told) + "\n"
        golden = pathlib.Path(__file__).with_suffix(".txt")
        if os.environ.get("UPDATE"):
            golden.write_text(text)
        elif golden.read_text() != text:
            done = subprocess.run(["diff", "-u", str(golden), "-"], input=text, text=True, capture_output=True, check=False)
            faults.append(done.stdout)
        print("\n".join(faults) if faults else f"{len(told)} lines as in {golden.name}; plans and deployments agree")
        sys.exit(1 if faults else 0)


main()
