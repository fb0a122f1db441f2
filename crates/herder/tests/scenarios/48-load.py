"""Sends requests, each over a new connection, until the file `stop` is there; then tells how many there were and which failed.

48-load.py PORT HOST
"""

import http.client
import os
import sys
import threading
from collections import Counter

port, host = int(sys.argv[1]), sys.argv[2]
seen = Counter()


def send():
    while not os.path.exists("stop"):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        try:
            connection.request("GET", "/", headers={"Host": host, "Connection": "close"})
            seen[str(connection.getresponse().status)] += 1
        except OSError as error:
            seen[f"{type(error).__name__}: {error}"] += 1
        except http.client.HTTPException as error:
            seen[f"{type(error).__name__}: {error}"] += 1
        finally:
            connection.close()


threads = [threading.Thread(target=send) for _ in range(4)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
good = seen.pop("200", 0)
print("more than 100 requests" if good > 100 else f"only {good} requests", file=sys.stderr)
print(dict(seen) if seen else "none failed")
