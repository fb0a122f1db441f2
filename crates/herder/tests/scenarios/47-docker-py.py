import sys

import docker

client = docker.from_env()
network = client.networks.create("pynet", driver="overlay", attachable=True)
one = client.containers.run("busybox", "sleep 1000", name="one", network="pynet", detach=True, stop_signal="SIGKILL")
two = client.containers.create("busybox", "sleep 1000", name="two", stop_signal="SIGKILL")
network.connect(two, aliases=["zwei"])
two.start()
print("one reaches two", one.exec_run("ping -c1 -w5 zwei").exit_code)
print("two reaches one", two.exec_run("ping -c1 -w5 one").exit_code)
network.reload()
print(sorted(container.name for container in network.containers))
network.disconnect(two)
network.reload()
print([container.name for container in network.containers])
for what in (network.remove, lambda: network.connect("nosuch")):
    try:
        what()
        print("not refused")
    except docker.errors.APIError as error:
        print(error.status_code, error.explanation)
one.remove(force=True)
two.remove(force=True)
network.remove()
