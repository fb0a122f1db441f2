"""What DockerMod's own scripts do, in their order and with the fields they read: create many and start them, list all and
stop and delete each, create one and inspect it. `21-actions-scripts.py ADDRESS`."""

import collections
import json
import sys
import urllib.error
import urllib.request

ADDRESS = sys.argv[1]


def post(**request):
    call = urllib.request.Request(f"http://{ADDRESS}/", json.dumps(request).encode())
    try:
        with urllib.request.urlopen(call, timeout=50) as answer:
            return json.load(answer)
    except urllib.error.HTTPError as error:
        return json.load(error)


made = post(action="create-container", template="sleeper", instances=20, variables={"ROLE": "worker"})
on = collections.Counter()
for at in range(len(made["containers"])):
    name = made["containers"][at]["Response"]["Body"]["Id"]
    on[made["containers"][at]["dockerInstance"]] += 1
    started = post(action="start-container", id=name)
    assert started["statusCode"] == 204 and started["dockerInstance"] == made["containers"][at]["dockerInstance"], started
print("created and started", sum(on.values()), sorted(on.values()))

codes = collections.Counter()
for part in post(action="list-containers", all=True)["containers"]:
    for container in part["Response"]["Body"]:
        codes["stop", post(action="stop-container", id=container["Id"])["statusCode"]] += 1
        codes["delete", post(action="delete-container", id=container["Id"])["statusCode"]] += 1
print("stopped and deleted", dict(codes))
print("left", [len(part["Response"]["Body"]) for part in post(action="list-containers", all=True)["containers"]])

made = post(action="create-container", template="sleeper", variables={"ROLE": "one", "SECONDS": 5, "MEMORY": 16777216})
seen = post(action="inspect-container", id=made["Response"]["Body"]["Id"])
body = seen["Response"]["Body"]
print(seen["statusCode"], seen["dockerInstance"] == made["dockerInstance"], body["Config"]["Cmd"], body["Config"]["Env"][0])
print(body["HostConfig"]["Memory"], body["Config"]["StopTimeout"], list(body["Config"]["ExposedPorts"]))
print(post(action="shutdown-container", id=body["Id"])["statusCode"])
