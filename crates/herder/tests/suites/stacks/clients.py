"""MasterMind's nine kinds of scripts, the calls of its API, and a Python client generated from /v1/swagger.json, against a
swarm of dockerd with TLS.

clients.py LAB GENERATOR    LAB is the name of the lab that is made, GENERATOR the program openapi-generator-cli (on PyPI; needs
                            Java). The generated client is installed into a folder that goes afterwards. Ends with 1 at the first
                            answer that is not as it should be.
"""

import importlib
import json
import pathlib
import sys
import tempfile
import urllib.request
import venv

import lab as labs
from lab import HERDER, run, until

HERE = pathlib.Path(__file__).resolve().parent
MONGO = """version: "3.7"
services:
  mongo:
    image: busybox
    command: sleep 1000000
    stop_grace_period: 0s
    networks: [mm]
    configs: [{source: check, target: /check.sh, mode: 0555}]
    healthcheck: {test: ["CMD", "/check.sh"], interval: 1s}
    deploy: {mode: global}
configs: {check: {file: ./check.sh}}
networks: {mm: {external: true}}
"""
LEAP = """version: "3.7"
services:
  leap:
    image: busybox
    command: sh -c "cat /run/secrets/key; exec sleep $SECONDS"
    stop_grace_period: 0s
    environment: {ANSWER: "yes"}
    secrets: [key]
    networks: [mm]
    deploy:
      mode: global
      endpoint_mode: dnsrr
      resources: {limits: {cpus: "0.5", memory: 64M}}
secrets: {key: {file: key.txt}}
networks: {mm: {external: true}}
"""


def expect(what, seen, *wanted):
    if seen not in wanted:
        sys.exit(f"{what}: {seen}, not {' or '.join(map(str, wanted))}")
    print(f"{what}: {seen}")


def script_of(door, engine, certificates, folder):
    """A function that makes one call by curl and jq, and gives its answer."""

    def script(verb, name="", *more):
        done = run(str(HERE / "mastermind.sh"), door, engine, certificates, verb, name, *more, cwd=folder)
        return json.loads(done.stdout)

    return script


def scripts(script):
    """The nine calls."""
    expect("create-network", script("create-network", "mm")["message"], "Network created.")
    expect("get-networks", any(it["name"] == "mm" for it in script("get-networks")["networks"]), True)
    expect("create-volume", script("create-volume", "data")["message"], "Volume created.")
    expect("get-volumes", any(it["name"] == "data" for it in script("get-volumes")["volumes"]), True)
    answer = script("create-stack", "mongo", "mongo.yml", "", "check.sh", "key.txt")
    expect("create-stack", answer["message"], "Stack successfully deployed!")
    status = lambda: script("get-stack", "mongo")["stack_status"]
    until("mongo runs", lambda: [it for it in status() if it["name"] == "mongo_mongo" and it.get("running") == 1])
    expect("get-stack", status()[0]["status"], "Global")
    expect("delete-stack", script("delete-stack", "mongo")["message"], "Stack mongo deleted.")
    expect("delete-volume", script("delete-volume", "data")["message"], "Volume deleted.")
    expect("delete-network", script("delete-network", "mm")["message"], "Network deleted.")


def mastermind_api(script):
    """The calls that MasterMind's API made when its user deployed an entry of the catalogue."""
    expect("getclusterinfo", len(script("get-cluster-info")["swarm_status"]["managers"]), 1)
    expect("createnetwork", script("create-network", "mm")["message"], "Network created.")
    expect("getnetworks", any(it["name"] == "mm" for it in script("post-networks")["networks"]), True)
    # All files of the entry's folder are sent, also those that the stack does not name.
    answer = script("create-stack", "leap", "leap.yml", "SECONDS: 1000000", "key.txt", "check.sh", "mastermind.yml")
    expect("deploy", answer["message"], "Stack successfully deployed!")
    until("leap runs", lambda: [it for it in script("get-stack", "leap")["stack_status"] if it.get("running") == 1])
    expect("getstack", script("get-stack", "leap")["stack_status"][0]["name"], "leap_leap")
    expect("removestack", script("delete-stack", "leap")["message"], "Stack leap deleted.")
    expect("delete-network", script("delete-network", "mm")["message"], "Network deleted.")


def generated(door, engine, certificates, folder, generator):
    """The calls by a generated client."""
    document = urllib.request.urlopen(f"http://{door}/v1/swagger.json").read()
    (folder / "swagger.json").write_bytes(document)
    run(generator, "generate", "-g", "python", "-i", "swagger.json", "-o", "client", "--package-name", "mastermind_client",
        "--skip-validate-spec", cwd=folder)
    venv.create(folder / "venv", with_pip=True)
    run(folder / "venv/bin/pip", "install", "--quiet", "--disable-pip-version-check", folder / "client")
    done = run(folder / "venv/bin/python", __file__, "--calls", door, engine, certificates, str(folder))
    print(done.stdout, end="")


def calls(door, engine, certificates, folder):
    """Runs within the environment that has the generated client."""
    client = importlib.import_module("mastermind_client")
    configuration = client.Configuration(host=f"http://{door}/v1")
    api = client.DefaultApi(client.ApiClient(configuration))
    pem = lambda name: pathlib.Path(certificates, name + ".pem").read_text()
    at = {"engine_url": engine, "ca_cert": pem("ca"), "cert": pem("cert"), "cert_key": pem("key")}
    named = lambda kind, **more: getattr(client, kind)(**at, **more)
    expect("create_network", api.create_network(body=named("Network", name="mm")).message, "Network created.")
    text = lambda name: pathlib.Path(folder, name).read_text()
    recipes = [("mongo", "mongo.yml", "", [{"check.sh": text("check.sh")}]), ("leap", "leap.yml", "SECONDS: 1000000", [{"key.txt": text("key.txt")}])]
    for name, file, variables, files in recipes:
        stack = named("Stack", name=name, compose_file=text(file), compose_vars=variables, external_files=files)
        answer = api.deploy_stack(body=stack)
        expect(f"deploy_stack {name}", (answer.message, answer.services), ("Stack successfully deployed!", [f"{name}_{name}"]))
        again = api.deploy_stack(body=stack)
        expect(f"deploy_stack {name} again", again.message, "Stack successfully deployed!")
        status = lambda: api.get_stack(name, body=named("Stack", name=name)).stack_status
        until(f"{name} runs", lambda: [it for it in status() if it.get("running") == 1])
        expect(f"get_stack {name}", status()[0]["status"], "Global")
    nodes = api.swarm_status(body=named("Swarm")).swarm_status
    expect("swarm_status", len(nodes["managers"]), 1)
    networks = api.get_networks_alternative(body=named("Swarm")).networks
    expect("get_networks_alternative", any(it["name"] == "mm" for it in networks), True)
    for name, *_ in recipes:
        expect(f"delete_stack {name}", api.delete_stack(name, body=named("Stack", name=name)).message, f"Stack {name} deleted.")
        expect(f"get_stack {name}", api.get_stack(name, body=named("Stack", name=name)).stack_status, [])
    expect("create_volume", api.create_volume(body=named("Volume", name="data")).message, "Volume created.")
    expect("delete_volume", api.delete_volume(body=named("Volume", name="data")).message, "Volume deleted.")
    expect("delete_network", api.delete_network(body=named("Network", name="mm")).message, "Network deleted.")


def main():
    name, generator = sys.argv[1], sys.argv[2]
    with labs.lab(name, "--hosts", "2", "--memory", "2g", "--herder") as lab, tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        for file, text in (("mongo.yml", MONGO), ("leap.yml", LEAP), ("check.sh", "#!/bin/sh\nexit 0\n"), ("key.txt", "word\n"),
                           ("mastermind.yml", "name: leap\n")):
            (folder / file).write_text(text)
        address = lab.engines[1]
        host = address.split(":")[0]
        run(HERDER, "certs", "--dir", folder / "pki", "--engine", host, "--client", "admin")
        of_engine, client = folder / "pki" / f"engine-{host}", folder / "pki/client-admin"
        run(HERDER, "lab", "kill", "--name", lab.name, lab.hosts[1])
        run(HERDER, "lab", "start", "--name", lab.name, lab.hosts[1], "--engine-arg=--tlsverify", f"--engine-arg=--tlscacert={of_engine}/ca.pem",
            f"--engine-arg=--tlscert={of_engine}/cert.pem", f"--engine-arg=--tlskey={of_engine}/key.pem")
        run("docker", "-H", "tcp://" + address, "--tlsverify", "--tlscacert", client / "ca.pem", "--tlscert", client / "cert.pem",
            "--tlskey", client / "key.pem", "swarm", "init", "--advertise-addr", "127.0.0.1", "--default-addr-pool", "10.99.0.0/16")
        script = script_of(lab.doors[0], "tcp://" + address, str(client), folder)
        scripts(script)
        mastermind_api(script)
        generated(lab.doors[0], "tcp://" + address, str(client), folder, generator)
    print("all answers are as they should be")


if sys.argv[1] == "--calls":
    calls(*sys.argv[2:])
else:
    main()
