"""Swarm mode by docker-py: services, tasks, logs, secrets, configs, nodes, and what is refused."""
import time

import docker
from docker.types import ConfigReference, Resources, RestartPolicy, SecretReference, ServiceMode, UpdateConfig

client = docker.from_env()
print("nodes", sorted(node.attrs["Description"]["Hostname"] for node in client.nodes.list()))
secret = client.secrets.create(name="pysecret", data=b"hidden")
config = client.configs.create(name="pyconfig", data=b"hello")
LOOP = "trap 'exit 0' TERM; cat /run/secrets/pysecret; echo; while true; do sleep 0.2; done"
service = client.services.create(
    "busybox", ["sh", "-c", LOOP], name="py", mode=ServiceMode("replicated", 2), env=["A=1"], labels={"Mixed": "Case"},
    secrets=[SecretReference(secret.id, "pysecret")], configs=[ConfigReference(config.id, "pyconfig")],
    resources=Resources(mem_limit=64 << 20), restart_policy=RestartPolicy("any", 0),
    update_config=UpdateConfig(parallelism=2, monitor=100_000_000))


def until(what, holds):
    end = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < end, f"not within 30 s: {what}"
        time.sleep(0.1)
    print(what)


def running():
    return [task for task in service.tasks(filters={"desired-state": "running"}) if task["Status"]["State"] == "running"]


def settled():
    """Changes of the updater make a new version; whoever updates needs the newest."""
    service.reload()
    return service.attrs.get("UpdateStatus", {}).get("State", "completed") == "completed"


until("two run", lambda: len(running()) == 2)
until("both say what they have", lambda: b"".join(service.logs(stdout=True)).count(b"hidden") == 2)
service.reload()
service.scale(3)
until("three run", lambda: len(running()) == 3)
until("nothing is under way", settled)
service.update(env=["A=2"], fetch_current_spec=True)
until("updated", lambda: settled() and all(task["Spec"]["ContainerSpec"]["Env"] == ["A=2"] for task in running()))
print(service.attrs["Spec"]["Labels"], service.attrs["Spec"]["TaskTemplate"]["ContainerSpec"]["Env"])
service.force_update()
until("updated again", lambda: settled() and len(running()) == 3)
node = client.nodes.list(filters={"name": "h2"})[0]
node.update({**node.attrs["Spec"], "Labels": {"disk": "ssd"}})
node.reload()
print(node.attrs["Spec"]["Labels"], client.swarm.attrs["Spec"]["Name"])
own = client.networks.create("own", driver="overlay")
print(own.name, own.attrs["Driver"], own.attrs["Scope"])
own.remove()
for what in (lambda: client.services.create("busybox", name="py"), lambda: client.services.create("busybox", name="x/y"),
             client.swarm.init, secret.remove):
    try:
        what()
        print("not refused")
    except docker.errors.APIError as error:
        print(error.status_code, error.explanation)
service.remove()
until("gone", lambda: not client.containers.list(all=True, filters={"label": "com.docker.swarm.service.name=py"}, ignore_removed=True))
secret.remove()
config.remove()
