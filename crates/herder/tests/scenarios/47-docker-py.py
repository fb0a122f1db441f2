"""Networks of the swarm by docker-py, at the door of a manager or of a worker."""
import re
import sys

import docker
from docker.types import IPAMConfig, IPAMPool

client = docker.from_env()
role = sys.argv[1]


def refused(what):
    try:
        what()
        print("not refused")
    except docker.errors.APIError as error:
        print(error.response.status_code, re.sub("[0-9a-z]{25,64}", "ID", error.explanation)[:60].strip())


if role == "manager":
    pool = IPAMPool(subnet="10.88.0.0/24", gateway="10.88.0.254")
    made = client.networks.create(
        "py", driver="overlay", attachable=True, labels={"a": "b"}, ipam=IPAMConfig(pool_configs=[pool]))
    print(made.attrs["Scope"], made.attrs["IPAM"]["Config"])
    refused(lambda: client.networks.create("py", driver="overlay"))
    refused(lambda: client.networks.create("n", driver="overlay", ipam=IPAMConfig(pool_configs=[IPAMPool(subnet="10.88.0.0/25")])))
network = client.networks.list(filters={"label": "a=b", "driver": "overlay", "scope": "swarm"})[0]
assert network.id == client.networks.get("py").id and network.attrs["Attachable"]
run = {"detach": True, "stop_signal": "KILL", "name": f"py-{role}"}
member = client.containers.run("busybox", "sleep 1000", network="py", **run)
late = client.containers.run("busybox", "sleep 1000", **{**run, "name": f"py-late-{role}"})
address = "10.88.0.100" if role == "manager" else "10.88.0.101"
network.connect(late, aliases=[f"al-{role}"], ipv4_address=address)
late.reload()
print(late.attrs["NetworkSettings"]["Networks"]["py"]["IPAddress"], member.exec_run(["ping", "-c1", "-w3", f"al-{role}"]).exit_code)
refused(lambda: network.connect(late))
network.disconnect(late)
late.reload()
print(list(late.attrs["NetworkSettings"]["Networks"]))
refused(lambda: client.containers.run("busybox", "true", network="closed", remove=True))
if role == "manager":
    network.reload()
    print([it.name for it in network.containers])
    refused(network.remove)
member.remove(force=True)
late.remove(force=True)
if role == "worker":
    refused(lambda: client.networks.create("w", driver="overlay"))
    refused(lambda: client.networks.create("host", driver="overlay"))
