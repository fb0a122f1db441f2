"""The daily work of docker-py over the cluster. Prints a line for each thing that worked; an exception is the test's end."""

import io
import tarfile
import threading

import docker

client = docker.from_env(timeout=30)
api = client.api


def done(what):
    print(what, flush=True)


def archive(name, text):
    """A tar with one file."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        entry = tarfile.TarInfo(name)
        entry.size = len(text)
        tar.addfile(entry, io.BytesIO(text))
    return buffer.getvalue()


# The daemon.
assert client.ping()
assert client.version()["Os"] == "linux"
info = client.info()
assert info["OSType"] == "linux" and info["Containers"] == 0, info
done("ping, version, info")

# Events are watched all the time.
seen = []
events = client.events(decode=True, filters={"type": "container", "event": ["create", "die"]})
watcher = threading.Thread(
    target=lambda: seen.extend((e["Action"], e["Actor"]["Attributes"]["name"]) for e in events), daemon=True
)
watcher.start()

# Containers.
assert client.containers.run("busybox", "echo hello", remove=True) == b"hello\n"
try:
    client.containers.run("busybox", "sh -c 'echo why >&2; exit 3'", remove=True)
    raise AssertionError("a failure is told")
except docker.errors.ContainerError as error:
    assert error.exit_status == 3 and error.stderr == b"why\n", error
done("run")
web = client.containers.run(
    "busybox",
    "sh -c 'for i in 1 2 3; do echo line $i; done; exec sleep 1000'",
    detach=True,
    name="web",
    labels={"tier": "front"},
    environment=["constraint:zone==b"],
    ports={"80/tcp": None},
)
assert web.attrs["Node"]["Name"] == "h2"
assert client.containers.get("web").id == web.id == client.containers.get(web.short_id).id
assert [it.id for it in client.containers.list(filters={"label": "tier=front"})] == [web.id]
assert client.containers.list(filters={"name": "nosuch"}) == []
try:
    client.containers.get("nosuch")
    raise AssertionError("there is none")
except docker.errors.NotFound:
    pass
done("get, list")

stream = web.logs(stream=True, follow=True)
lines = b""
while lines.count(b"\n") < 3:
    lines += next(stream)
assert lines == b"line 1\nline 2\nline 3\n", lines
stream.close()
done("logs")

assert web.exec_run("echo inside").output == b"inside\n"
outcome = web.exec_run("sh -c 'echo out; echo err >&2; exit 7'", demux=True)
assert (outcome.exit_code, outcome.output) == (7, (b"out\n", b"err\n")), outcome
assert b"".join(web.exec_run("seq 3", stream=True).output) == b"1\n2\n3\n"
hijacked = web.exec_run("cat", stdin=True, socket=True).output
hijacked._sock.sendall(b"into the socket\n")
header = hijacked.read(8)
assert header[0] == 1 and hijacked.read(header[7]) == b"into the socket\n"
hijacked.close()
done("exec_run")

reader = client.containers.create("busybox", "cat", stdin_open=True, name="reader")
hijacked = reader.attach_socket(params={"stdin": 1, "stdout": 1, "stream": 1})
reader.start()
hijacked._sock.sendall(b"attached\n")
header = hijacked.read(8)
assert hijacked.read(header[7]) == b"attached\n"
hijacked.close()
reader.kill()
assert reader.wait()["StatusCode"] == 137
reader.remove()
done("attach")

assert web.put_archive("/tmp", archive("note", b"put"))
bits, stat = web.get_archive("/tmp/note")
with tarfile.open(fileobj=io.BytesIO(b"".join(bits))) as tar:
    assert tar.extractfile("note").read() == b"put" and stat["name"] == "note"
done("put_archive, get_archive")

assert web.stats(stream=False)["memory_stats"]["usage"] > 0
stream = web.stats(decode=True)
assert [next(stream)["id"] for _ in range(2)] == [web.id] * 2
stream.close()
assert "sleep 1000" in str(web.top())
assert any(change["Path"] == "/tmp/note" for change in web.diff())
web.pause(), web.reload()
assert web.status == "paused"
web.unpause(), web.rename("www"), web.update(mem_limit="64m", memswap_limit="64m"), web.reload()
assert web.name.endswith("www") and web.attrs["HostConfig"]["Memory"] == 64 << 20, web.attrs
web.restart(timeout=0), web.stop(timeout=0), web.reload()
assert web.status == "exited"
done("stats, top, diff, pause, rename, update, restart, stop")

# Images.
image = web.commit("made", "1")
assert client.containers.run("made:1", "cat /tmp/note", remove=True, environment=["constraint:zone==c"]) == b"put"
assert image.tag("tagged", "2") and "tagged:2" in client.images.get("made:1").tags
assert "tagged:2" in [tag for it in client.images.list() for tag in it.tags]
saved = b"".join(client.images.get("tagged:2").save(named="tagged:2"))
client.images.remove("tagged:2"), client.images.remove("made:1", force=True)
loaded = [it.tags for it in client.images.load(saved)]
assert loaded == [["tagged:2"]], loaded
assert image.history()
api.import_image_from_data(archive("file", b"text"), repository="imported", tag="1")
built, _ = client.images.build(fileobj=io.BytesIO(b"FROM busybox\nRUN echo built > /made\n"), tag="built:1", rm=True)
assert client.containers.run("built:1", "cat /made", remove=True) == b"built\n"
web.remove()
for name in ["tagged:2", "imported:1", "built:1"]:
    client.images.remove(name, force=True)
assert sorted({tag for it in client.images.list() for tag in it.tags}) == ["busybox:latest"]
done("commit, tag, list, save, load, history, import, build, remove")

# Networks and volumes.
network = client.networks.create("app", labels={"a": "b"})
assert client.networks.list(names=["app"])[0].id == network.id and network.attrs["Labels"] == {"a": "b"}, network.attrs
member = client.containers.run("busybox", "sleep 1000", detach=True, network="app")
network.reload()
assert [it.id for it in network.containers] == [member.id]
network.disconnect(member), network.connect(member, aliases=["other"]), member.reload()
assert "other" in member.attrs["NetworkSettings"]["Networks"]["app"]["Aliases"]
member.remove(force=True), network.remove()
volume = client.volumes.create("data", labels={"a": "b"})
assert client.volumes.get("data").attrs["Labels"] == {"a": "b"}
assert sorted(it.name for it in client.volumes.list()) == ["data"]
keep = {"data": {"bind": "/data", "mode": "rw"}}
here = ["constraint:zone==a"]
client.containers.run("busybox", "sh -c 'echo kept > /data/x'", volumes=keep, environment=here, remove=True)
assert client.containers.run("busybox", "cat /data/x", volumes=keep, environment=here, remove=True) == b"kept\n"
volume.remove()
done("networks, volumes")

# What is left over goes.
for number in range(3):
    client.containers.run("busybox", "true", environment=[f"constraint:zone=={'abc'[number]}"])
client.networks.create("unused"), client.volumes.create("unused")
gone = client.containers.prune()["ContainersDeleted"]
assert len(gone) == 3, gone
assert client.networks.prune()["NetworksDeleted"] == ["unused"]
assert client.volumes.prune()["VolumesDeleted"], "a volume goes"
client.images.prune()
assert client.containers.list(all=True) == [] and client.volumes.list() == [] and client.networks.list(names=["unused"]) == []
assert client.df()["Containers"] in (None, [])
done("prune, df")

events.close()
watcher.join()
assert seen.count(("create", "web")) == 1 and ("die", "www") in seen, seen
done("events")
