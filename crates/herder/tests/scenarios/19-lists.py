"""Each changing call, and at once the list that must show it: `19-lists.py KIND` for one kind of thing."""

import io
import sys

import docker

ROUNDS = 2
client = docker.from_env(timeout=30)
api = client.api


def states():
    return {it["Id"]: it["State"] for it in api.containers(all=True)}


def names():
    return {it["Id"]: it["Names"] for it in api.containers(all=True)}


def volumes():
    return [it["Name"] for it in api.volumes()["Volumes"]]


def networks():
    return [it["Name"] for it in api.networks()]


def tags():
    return {tag for it in api.images() for tag in it["RepoTags"] or []}


def expect(truth, what):
    assert truth, what


def check_containers():
    for _ in range(ROUNDS):
        it = api.create_container("busybox", "sleep 1000", volumes=["/anonymous"], name="cc")["Id"]
        expect(states().get(it) == "created", "create")
        expect("/cc" in names()[it] and len(names()[it]) == 2, "create: names")
        [volume] = [mount["Name"] for mount in api.inspect_container(it)["Mounts"]]
        expect(volume in volumes(), "create: an anonymous volume")
        for call, state in [
            (api.start, "running"),
            (api.pause, "paused"),
            (api.unpause, "running"),
            (lambda it: api.restart(it, timeout=0), "running"),
            (lambda it: api.stop(it, timeout=0), "exited"),
            (api.start, "running"),
        ]:
            call(it)
            expect(states().get(it) == state, state)
        api.rename(it, "dd")
        expect("/dd" in names()[it], "rename")
        api.kill(it)
        api.wait(it)
        expect(states().get(it) == "exited", "wait")
        api.remove_container(it, v=True)
        expect(it not in states(), "remove")
        expect(volume not in volumes(), "remove: its volume")
        brief = api.create_container("busybox", "true", host_config=api.create_host_config(auto_remove=True))["Id"]
        api.start(brief)
        try:
            api.wait(brief, condition="removed")
        except docker.errors.NotFound:
            pass
        expect(brief not in states(), "wait until it is removed")
        left = api.create_container("busybox", "true")["Id"]
        api.prune_containers()
        expect(left not in states(), "prune")


def check_volumes():
    for _ in range(ROUNDS):
        api.create_volume("vv")
        expect(volumes() == ["vv"], volumes())
        api.remove_volume("vv")
        expect(volumes() == [], "remove")
        api.create_volume("vv")
        api.prune_volumes()
        expect("vv" not in volumes() or client.version()["ApiVersion"] >= "1.42", "prune")
        if "vv" in volumes():
            api.remove_volume("vv")


def check_networks():
    for _ in range(ROUNDS):
        network = api.create_network("n", check_duplicate=True)["Id"]
        expect(networks().count("n") == 1, "create")
        it = api.create_container("busybox", "sleep 1000")["Id"]
        api.start(it)
        api.connect_container_to_network(it, network)
        expect("n" in api.containers()[0]["NetworkSettings"]["Networks"], "connect")
        api.disconnect_container_from_network(it, network, force=True)
        expect("n" not in api.containers()[0]["NetworkSettings"]["Networks"], "disconnect")
        api.remove_container(it, force=True)
        api.remove_network(network)
        expect("n" not in networks(), "remove")
        api.create_network("n")
        api.prune_networks()
        expect("n" not in networks(), "prune")


def check_images():
    archive = b"".join(api.get_image("busybox"))
    for number in range(ROUNDS):
        api.tag("busybox", "again", "1")
        expect("again:1" in tags(), "tag")
        api.remove_image("again:1")
        expect("again:1" not in tags(), "remove")
        it = api.create_container("busybox", "true")["Id"]
        api.commit(it, "committed", str(number))
        expect(f"committed:{number}" in tags(), "commit")
        api.remove_container(it)
        list(api.build(fileobj=io.BytesIO(f"FROM busybox\nLABEL n={number}\n".encode()), tag=f"built:{number}", decode=True, rm=True))
        expect(f"built:{number}" in tags(), "build")
        # The answer without progress begins when the image is there.
        api.remove_image("busybox", force=True)
        answer = api._post(api._url("/images/load"), data=archive, params={"quiet": True}, stream=True)
        expect(answer.status_code == 200 and "busybox:latest" in tags(), "load")
        answer.close()
        for tag in [f"committed:{number}", f"built:{number}"]:
            api.remove_image(tag)


def check_names():
    # A name is free as soon as the client was told that it is.
    for _ in range(ROUNDS):
        for _ in range(2):
            it = api.create_container("busybox", "sleep 1000", name="qq")["Id"]
            api.remove_container(it, force=True)
        first = api.create_container("busybox", "sleep 1000", name="qq")["Id"]
        api.rename(first, "old-qq")
        second = api.create_container("busybox", "sleep 1000", name="qq")["Id"]
        api.remove_container(first)
        api.rename(second, "old-qq")
        api.rename(second, "qq")
        api.remove_container(second)
        client.containers.run("busybox", "true", name="qq", remove=True)
        client.containers.run("busybox", "true", name="qq", remove=True)


globals()[f"check_{sys.argv[1]}"]()
print(sys.argv[1])
