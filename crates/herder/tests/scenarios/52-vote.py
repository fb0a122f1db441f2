"""Four people vote by each address in turn, each vote over a new connection, until the file `stop` is there. One that fails is cast again.

52-vote.py ADDRESS...; an address in the file `lost` is not used any more. Writes the votes that were accepted into `votes`, as the
result page shows them, and prints what failed. Requests that a task had accepted before its host was lost are counted for themselves.
"""

import http.client
import os
import sys
import threading
import time
import uuid
from collections import Counter

addresses = sys.argv[1:]
votes, failed, unanswered = Counter(), Counter(), []


def lost():
    try:
        with open("lost") as file:
            return file.read().split()
    except FileNotFoundError:
        return []


def cast(address, voter, vote):
    connection = http.client.HTTPConnection(address, 5000, timeout=10)
    try:
        head = {"Cookie": f"voter_id={voter}", "Connection": "close"}
        connection.connect()
        connection.request("POST", "/", body=f"vote={vote}", headers=head)
        answer = connection.getresponse()
        answer.read()
        return None if answer.status == 200 else answer.status
    except TimeoutError as error:
        if connection.sock is None or not lost():
            return f"{type(error).__name__}: {error}"
        unanswered.append(address)
        return "unanswered"
    except (OSError, http.client.HTTPException) as error:
        return f"{type(error).__name__}: {error}"
    finally:
        connection.close()


def vote(number):
    turn = 0
    while not os.path.exists("stop"):
        voter, choice = uuid.uuid4().hex[:16], "aab"[turn % 3]
        while True:
            turn += 1
            address = addresses[(number + turn) % len(addresses)]
            if address in lost():
                continue
            error = cast(address, voter, choice)
            if error is None:
                votes[choice] += 1
                time.sleep(0.03)
                break
            if error != "unanswered" and address not in lost():
                failed[f"{address}: {error}"] += 1


threads = [threading.Thread(target=vote, args=(number,)) for number in range(4)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
with open("votes", "w") as file:
    file.write(f'{{"a":{votes["a"]},"b":{votes["b"]}}}')
print(f"{sum(votes.values())} votes, {len(unanswered)} cast again", file=sys.stderr)
print(dict(failed) if failed else "none failed")
