"""A call as MasterMind's scripts make it: METHOD PATH, then members of the body as NAME=TEXT, NAME=@FILE or NAME:=JSON."""

import json
import os
import sys
import urllib.error
import urllib.request

body = {}
for argument in sys.argv[3:]:
    name, _, value = argument.partition("=")
    if name.endswith(":"):
        body[name[:-1]] = json.loads(value)
    else:
        body[name] = open(value[1:], encoding="utf-8").read() if value.startswith("@") else value
host = os.environ["DOCKER_HOST"].replace("tcp://", "http://")
request = urllib.request.Request(host + sys.argv[2], json.dumps(body).encode(), method=sys.argv[1])
request.add_header("Content-Type", "Application/json")
try:
    answer = urllib.request.urlopen(request, timeout=120)
except urllib.error.HTTPError as error:
    answer = error
document = json.loads(answer.read())
message = document.pop("message", None)
print(answer.status, *filter(None, [message if message is not None else document.get("detail")]))
for name in ("services", "stack_status", "networks", "volumes", "detail"):
    if name in document and message is not None:
        print(f"{name}:", document[name] if isinstance(document[name], str) else json.dumps(document[name]))
