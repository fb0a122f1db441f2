"""The 25 stacks of examples/stacks, deployed by `docker stack deploy` and by `herder stack deploy` on three hosts.

examples.py LAB [STACK…]    LAB is the name of the lab that is made. Prints each stack with its tasks that run, and every
                            difference of the service specs that both clients leave in the swarm; ends with 1 if there is one
                            that crates/compose/tests/docker/differences.txt does not explain.

Images are stand-ins: programs that sleep, or end where the stack waits for their end. Keys that Docker's client does not know are
taken out for it, as crates/compose/tests/docker/record.py does.
"""

import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time

import yaml

import lab as labs
from lab import EXAMPLES, HERDER, LABEL, VARIABLES, call, run, until

ENTRY = """#!/bin/sh
case "$*" in *migrate*|*kafka-topics*|*backup*|*forget*) exit 0 ;; esac
exec sleep 1000000
"""
DOCKERFILE = """FROM busybox
COPY stand-in /stand-in
RUN chmod +x /stand-in && mkdir -p /opt/kafka/bin && for it in /bin/pg_isready /bin/rabbitmq-diagnostics /bin/mc /bin/healthcheck.sh \\
    /opt/kafka/bin/kafka-topics.sh; do printf '#!/bin/sh\\n' >$it; chmod +x $it; done; rm /bin/wget; printf '#!/bin/sh\\n' >/bin/wget; \\
    chmod +x /bin/wget; ln -s /stand-in /bin/redis-sentinel; ln -s /stand-in /cron.sh
STOPSIGNAL SIGKILL
ENTRYPOINT ["/stand-in"]
"""


def images():
    """Everything that the examples run."""
    found = set()
    for file in EXAMPLES.glob("*.yaml"):
        text = run(HERDER, "stack", "config", "--profile", "*", "-c", str(file), "--images", env=os.environ | VARIABLES).stdout
        found.update(text.split())
    return sorted(found)


def stand_in(engine, names):
    docker = ["docker", "-H", "tcp://" + engine]
    with tempfile.TemporaryDirectory() as folder:
        pathlib.Path(folder, "stand-in").write_text(ENTRY)
        pathlib.Path(folder, "Dockerfile").write_text(DOCKERFILE)
        run(*docker, "build", "-q", "-t", "stand-in", folder, env=os.environ | {"DOCKER_BUILDKIT": "0"})
    for name in names:
        run(*docker, "tag", "stand-in", name)


def specs(door, stack):
    """Service specs of a stack, without what is another one each time."""
    networks = {it["Id"]: it["Name"] for it in call(door, "GET", "/networks")[1]}
    found = {}
    for it in call(door, "GET", "/services")[1]:
        spec = it["Spec"]
        if (spec["Labels"] or {}).get(LABEL) != stack:
            continue
        for network in spec["TaskTemplate"].get("Networks") or []:
            network["Target"] = networks.get(network["Target"], network["Target"])
        for kind in ("Secret", "Config"):
            for file in spec["TaskTemplate"]["ContainerSpec"].get(kind + "s") or []:
                file.pop(kind + "ID", None)
        found[spec["Name"]] = spec
    return found


def running(door, stack):
    """Running or completed tasks, and wanted ones."""
    done = wanted = 0
    for it in call(door, "GET", "/services?status=true")[1]:
        if (it["Spec"]["Labels"] or {}).get(LABEL) != stack:
            continue
        status = it["ServiceStatus"]
        is_job = "Job" in "".join(it["Spec"]["Mode"])
        done += status["CompletedTasks"] if is_job else status["RunningTasks"]
        wanted += max(1, status["DesiredTasks"] or status["CompletedTasks"]) if is_job else status["DesiredTasks"]
    return done, wanted


def remove(door, stack):
    run(HERDER, "stack", "rm", stack, "--volumes", "-H", "tcp://" + door, check=False)
    of_stack = lambda it: ((it.get("Spec") or it).get("Labels") or {}).get(LABEL) == stack
    until(f"{stack} is gone", lambda: not any(map(of_stack, call(door, "GET", "/services")[1] + call(door, "GET", "/networks")[1])))


def differences(path, docker, herder, found):
    if isinstance(docker, dict) and isinstance(herder, dict):
        for key in sorted(docker.keys() | herder.keys()):
            differences(f"{path}.{key}", docker.get(key), herder.get(key), found)
    elif isinstance(docker, list) and isinstance(herder, list) and len(docker) == len(herder):
        for number, pair in enumerate(zip(docker, herder)):
            differences(f"{path}[{number}]", *pair, found)
    elif (docker or None) != (herder or None):
        found.append((path, docker, herder))


def explained():
    """Members of services whose difference has a reason: the ends of paths in differences.txt."""
    text = (EXAMPLES.parents[1] / "crates/compose/tests/docker/differences.txt").read_text()
    lines = [line.split(": docker ")[0] for line in text.splitlines() if line and not line.startswith("#")]
    # STACK.services.rec_SERVICE.MEMBER…
    return {(it[0], it[2].removeprefix("rec_"), it[3] if len(it) > 3 else "") for it in (line.split(".", 3) for line in lines) if it[1] == "services"}


def main():
    name, wanted = sys.argv[1], sys.argv[2:]
    sys.argv[1:] = ["-"]
    sys.path.insert(0, str(EXAMPLES.parents[1] / "crates/compose/tests/docker"))
    import record

    known, unexplained, count = explained(), 0, 0
    # Folders of hosts that some of them bind.
    for path in ("/var/lib/docker/volumes", "/var/lib/docker/containers"):
        os.makedirs(path, exist_ok=True)
    with labs.lab(name, "--hosts", "3", "--memory", "6g", "--herder") as lab:
        for engine in lab.engines:
            stand_in(engine, images())
        lab.swarm()
        door = lab.doors[0]
        for label in ("ci=true", "database=primary"):
            run("docker", "-H", "tcp://" + door, "node", "update", "--label-add", label, lab.hosts[0])
        for file in sorted(EXAMPLES.glob("*.yaml")):
            stack = file.stem
            if wanted and stack not in wanted:
                continue
            count += 1
            with tempfile.TemporaryDirectory() as folder:
                os.chdir(folder)
                for other in EXAMPLES.iterdir():
                    os.symlink(other, other.name)
                os.environ.update(VARIABLES)
                project = record.reduce(yaml.safe_load(file.read_text()))
                pathlib.Path("reduced.yaml").write_text(yaml.safe_dump(project, sort_keys=False))
                start = time.monotonic()
                docker = ["docker", "-H", "tcp://" + door, "stack", "deploy", "--detach=true", "--resolve-image", "never"]
                done = run(*docker, "-c", "reduced.yaml", stack, check=False)
                if done.returncode:
                    print(f"{stack}: docker: {done.stderr.strip()}")
                of_docker = specs(door, stack)
                remove(door, stack)
                middle = time.monotonic()
                done = run(HERDER, "stack", "deploy", "-H", "tcp://" + door, "--resolve-image", "never", "--timeout", "60s", "--keep",
                           "-c", file.name, stack, check=False)
                seconds = time.monotonic() - middle
                outcome = "converged" if done.returncode == 0 else f"exit {done.returncode}: {done.stderr.strip().splitlines()[-1]}"
                of_herder = specs(door, stack)
                tasks = "{}/{}".format(*running(door, stack))
                again = run(HERDER, "stack", "deploy", "-H", "tcp://" + door, "--resolve-image", "never", "--timeout", "60s", "--keep",
                            "-c", file.name, stack, check=False).stdout.strip() if done.returncode == 0 else "-"
                remove(door, stack)
                os.chdir("/")
            found = []
            differences("", of_docker, of_herder, found)
            bad = []
            for path, docker_value, herder_value in found:
                service, _, member = path.lstrip(".").partition(".")
                service = service.removeprefix(stack + "_")
                if not any(it[0] == stack and it[1] == service and (not it[2] or member.startswith(it[2])) for it in known):
                    bad.append(f"    {path}: docker {json.dumps(docker_value)}, herder {json.dumps(herder_value)}")
            unexplained += len(bad)
            same = sum(of_docker.get(name) == spec for name, spec in of_herder.items())
            print(f"{stack}: {len(of_herder)} services, {same} the same byte by byte, {len(found)} differences, {len(bad)} without a reason; "
                  f"tasks {tasks} {outcome} in {seconds:.1f} s; again: {again}", flush=True)
            print("\n".join(bad), end="\n" if bad else "")
    print(f"{count} stacks, {unexplained} differences without a reason")
    sys.exit(1 if unexplained else 0)


main()
