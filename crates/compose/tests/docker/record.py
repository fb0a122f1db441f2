"""Records the bodies that `docker stack deploy` sends, and compares what an engine stores of them with what it stores of herder's.

record.py ENGINE HERDER FILE...    ENGINE is host:port of a manager of a swarm without other stacks, HERDER the program.

For each FILE, FILE.json is written beside this script: the bodies of all creates, by kind and name. A key that Docker's client does
not know is removed first, as `reduce` says. Differences between the stored objects of both clients are printed.
"""

import http.client
import http.server
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import threading
import time

import yaml

engine = sys.argv[1]
here = pathlib.Path(__file__).resolve().parent
bodies = []
STACK = "rec"


def call(method, path, body=None):
    connection = http.client.HTTPConnection(engine, timeout=120)
    headers = {"Content-Type": "application/json"} if body is not None else {}
    connection.request(method, path, json.dumps(body) if body is not None else None, headers)
    answer = connection.getresponse()
    text = answer.read()
    return answer.status, json.loads(text) if text.strip() else None


class Recorder(http.server.BaseHTTPRequestHandler):
    """Passes requests on to the engine and keeps the bodies of creates."""

    protocol_version = "HTTP/1.1"

    def do(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        connection = http.client.HTTPConnection(engine, timeout=120)
        headers = {k: v for k, v in self.headers.items() if k.lower() not in ("host", "connection", "upgrade")}
        connection.request(self.command, self.path, body or None, headers)
        answer = connection.getresponse()
        text = answer.read()
        path = self.path.split("/", 2)[-1] if self.path.startswith("/v1.") else self.path.lstrip("/")
        if self.command == "POST" and path.split("?")[0].endswith("/create"):
            bodies.append((path.split("/")[0], json.loads(body)))
            if answer.status >= 300:
                print("refused:", path, text.decode().strip())
        self.send_response(answer.status)
        for name in ("Content-Type", "Api-Version", "Docker-Experimental", "Ostype", "Swarm"):
            if answer.headers.get(name):
                self.send_header(name, answer.headers[name])
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(text)

    do_GET = do_POST = do_HEAD = do_DELETE = do

    def log_message(self, *_):
        pass


def reduce(project):
    """The part of a project that Docker's client knows."""
    project.pop("name", None)
    for service in project["services"].values():
        dependencies = service.get("depends_on")
        if isinstance(dependencies, dict):
            service["depends_on"] = list(dependencies)
        service.pop("profiles", None)
        service.pop("gpus", None)
        if isinstance(service.get("healthcheck"), dict):
            service["healthcheck"].pop("start_interval", None)
        for port in service.get("ports") or []:
            if isinstance(port, dict):
                port.pop("app_protocol", None)
                port.pop("name", None)
        for mount in service.get("volumes") or []:
            if isinstance(mount, dict) and isinstance(mount.get("tmpfs", {}).get("size"), str):
                number = mount["tmpfs"]["size"].lower().rstrip("b")
                unit = {"k": 10, "m": 20, "g": 30}.get(number[-1])
                mount["tmpfs"]["size"] = int(number[:-1]) << unit if unit else int(number)
    for kind in ("configs", "secrets"):
        for name, value in (project.get(kind) or {}).items():
            if value and ("content" in value or "environment" in value):
                path = f"content-{kind}-{name}"
                pathlib.Path(path).write_text(value.pop("content", None) or os.environ[value.pop("environment")])
                value["file"] = "./" + path
    return project


def stored():
    """All objects of the stack as the engine keeps them, without what is another one each time."""
    found = {}
    status, services = call("GET", "/services")
    networks = {it["Id"]: it["Name"] for it in call("GET", "/networks")[1]}
    for it in services:
        spec = it["Spec"]
        for network in spec["TaskTemplate"].get("Networks") or []:
            network["Target"] = networks.get(network["Target"], network["Target"])
        for kind in ("Secret", "Config"):
            for file in spec["TaskTemplate"]["ContainerSpec"].get(kind + "s") or []:
                file[kind + "ID"] = ""
        found["services " + spec["Name"]] = spec
    for kind in ("secrets", "configs"):
        for it in call("GET", "/" + kind)[1]:
            labels = it["Spec"].get("Labels") or {}
            labels.pop("herder.digest", None)
            found[f"{kind} {it['Spec']['Name']}"] = it["Spec"]
    for it in call("GET", "/networks")[1]:
        if (it["Labels"] or {}).get("com.docker.stack.namespace") == STACK:
            found["networks " + it["Name"]] = {k: it[k] for k in ("Driver", "Internal", "Attachable", "EnableIPv6", "Labels")} | {
                "Options": {k: v for k, v in (it["Options"] or {}).items() if "vxlanid" not in k},
                "IPAM": it["IPAM"],
            }
    return found


def clean():
    for kind, key in (("services", "ID"), ("networks", "Id"), ("secrets", "ID"), ("configs", "ID")):
        for it in call("GET", "/" + kind)[1]:
            labels = it.get("Labels") if kind == "networks" else it["Spec"]["Labels"]
            if (labels or {}).get("com.docker.stack.namespace") == STACK:
                while (answer := call("DELETE", f"/{kind}/{it[key]}"))[0] not in (200, 204, 404):
                    print("waits:", answer)
                    time.sleep(0.5)


def lines(recorded):
    """JSON with one body on a line."""
    kinds = []
    for kind, bodies in sorted(recorded.items()):
        of_kind = ",\n".join(f"  {json.dumps(name)}: {json.dumps(body, sort_keys=True)}" for name, body in sorted(bodies.items()))
        kinds.append(f" {json.dumps(kind)}: {{\n{of_kind}\n }}")
    return "{\n" + ",\n".join(kinds) + "\n}\n"


def compare(path, a, b):
    if isinstance(a, dict) and isinstance(b, dict):
        for key in sorted(a.keys() | b.keys()):
            compare(f"{path}.{key}", a.get(key), b.get(key))
    elif (a or None) != (b or None):
        print(f"{path}: docker {json.dumps(a)} herder {json.dumps(b)}")


def main():
    herder, files = sys.argv[2], [pathlib.Path(it).resolve() for it in sys.argv[3:]]
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Recorder)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    docker = ["docker", "-H", f"tcp://127.0.0.1:{server.server_port}"]
    for file in files:
        clean()
        with tempfile.TemporaryDirectory() as folder:
            os.chdir(folder)
            for other in file.parent.iterdir():
                if other.name != file.name and other.suffix != ".json":
                    os.symlink(other, other.name)
            text = file.read_text()
            project = reduce(yaml.safe_load(text))
            pathlib.Path("reduced.yaml").write_text(yaml.safe_dump(project, sort_keys=False))
            bodies.clear()
            deploy = ["stack", "deploy", "--detach=true", "--resolve-image", "never", "-c", "reduced.yaml", STACK]
            done = subprocess.run(docker + deploy, capture_output=True, text=True)
            if done.returncode:
                print(file.name, "docker:", done.stderr.strip())
            of_docker = stored()
            clean()
            recorded = {}
            for kind, body in sorted(bodies, key=lambda it: (it[0], it[1]["Name"])):
                for key in ("Secret", "Config"):
                    for it in body.get("TaskTemplate", {}).get("ContainerSpec", {}).get(key + "s") or []:
                        it[key + "ID"] = ""
                recorded.setdefault(kind, {})[body["Name"]] = body
            (here / (file.stem + ".json")).write_text(lines(recorded))
            os.symlink(file, file.name)
            done = subprocess.run([herder, "stack", "config", "-c", file.name, "--objects", STACK], capture_output=True, text=True)
            if done.returncode:
                print(file.name, "herder:", done.stderr.strip())
                continue
            objects = json.loads(done.stdout)
            ids = {}
            for kind in ("Networks", "Secrets", "Configs", "Services"):
                for body in objects[kind]:
                    if body.pop("External", False):
                        continue
                    for key in ("Secret", "Config"):
                        for it in body.get("TaskTemplate", {}).get("ContainerSpec", {}).get(key + "s") or []:
                            it[key + "ID"] = ids[it[key + "Name"]]
                    if kind in ("Secrets", "Configs"):
                        body.setdefault("Data", "eA==")
                        body.setdefault("Labels", {"com.docker.stack.namespace": STACK})
                    status, answer = call("POST", f"/{kind.lower()}/create", body)
                    if status >= 300:
                        print(f"{file.name}: herder's {kind} {body['Name']} is refused: {answer}")
                    else:
                        ids[body["Name"]] = answer.get("ID") or answer.get("Id")
            of_herder = stored()
            clean()
            print(f"== {file.name}: {len(of_docker)} objects")
            compare(file.stem, of_docker, of_herder)


if __name__ == "__main__":
    main()
