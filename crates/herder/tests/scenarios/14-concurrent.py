"""Many creates at the same time: `14-concurrent.py COUNT MEMORY [NAME]`. Prints how many answers of each kind came."""

import collections
import http.client
import json
import os
import sys
import threading

count, memory = int(sys.argv[1]), int(sys.argv[2])
address = os.environ["DOCKER_HOST"].removeprefix("tcp://")
query = f"?name={sys.argv[3]}" if len(sys.argv) > 3 else ""
body = json.dumps({"Image": "busybox", "Cmd": ["true"], "HostConfig": {"Memory": memory}})
answers = []
together = threading.Barrier(count)


def create():
    connection = http.client.HTTPConnection(address, timeout=55)
    together.wait()
    connection.request("POST", f"/containers/create{query}", body, {"Content-Type": "application/json"})
    answer = connection.getresponse()
    text = json.loads(answer.read())
    answers.append((answer.status, text.get("message", "created").split("\n")[0].strip()))


threads = [threading.Thread(target=create) for _ in range(count)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
for (status, message), times in sorted(collections.Counter(answers).items()):
    print(times, status, message)
