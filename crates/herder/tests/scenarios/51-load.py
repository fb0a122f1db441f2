"""Sends requests to each address over connections that stay, until the file `stop` is there; then tells which failed.

51-load.py HOST ADDRESS...
"""

import http.client
import os
import sys
import threading
from collections import Counter

host, addresses = sys.argv[1], sys.argv[2:]
seen, tasks = Counter(), set()


def send(address):
    connection = http.client.HTTPConnection(address, 80, timeout=30)
    while not os.path.exists("stop"):
        try:
            connection.request("GET", "/", headers={"Host": host})
            answer = connection.getresponse()
            tasks.add(answer.read())
            seen[str(answer.status)] += 1
        except (OSError, http.client.HTTPException) as error:
            seen[f"{address}: {type(error).__name__}: {error}"] += 1
            connection.close()
    connection.close()


threads = [threading.Thread(target=send, args=(address,)) for address in addresses for _ in range(2)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
good = seen.pop("200", 0)
print(f"{good} requests to {len(tasks)} tasks", file=sys.stderr)
print(dict(seen) if seen else "none failed")
