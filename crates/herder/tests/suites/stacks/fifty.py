"""Many stacks at once by three doors, with a kill of the leader in the middle: every operation ends, none is done twice.

fifty.py LAB [STACKS]    LAB is the name of the lab that is made; 50 stacks if there is no number. Ends with 1 if something is
                         missing or there twice.
"""

import collections
import sys
import threading
import time

import lab as labs
from lab import LABEL, call, run, until

COMPOSE = """services:
  web: {image: busybox, command: sleep 1000000, stop_grace_period: 0s, configs: [conf], depends_on: [db], deploy: {replicas: 2}}
  db: {image: busybox, command: sleep 1000000, stop_grace_period: 0s}
configs: {conf: {content: "of $COMPOSE_PROJECT_NAME"}}
"""


def deploy(doors, number, outcomes):
    """Asks for one deployment, again by another door where the first one is gone. The key makes it one operation."""
    stack = f"many{number:03}"
    body = {"files": {"compose.yaml": COMPOSE}, "options": {"resolve": "never", "timeout": 600}}
    for attempt in range(200):
        door = doors[(number + attempt) % len(doors)]
        try:
            status, answer = call(door, "PUT", f"/v2/targets/own/stacks/{stack}", body, timeout=30, Idempotency_Key="deploy-" + stack)
        except OSError:
            status, answer = 0, None
        if status in (200, 201, 202):
            outcomes[stack] = answer["id"]
            return
        if status not in (0, 429, 500, 503):
            outcomes[stack] = f"{status} {answer}"
            return
        time.sleep(0.5)


def main():
    name, count = sys.argv[1], int((sys.argv[2:] or ["50"])[0])
    with labs.lab(name, "--hosts", "3", "--memory", "4g", "--herder") as lab:
        lab.swarm()
        outcomes, start = {}, time.monotonic()
        threads = [threading.Thread(target=deploy, args=(lab.doors, number, outcomes)) for number in range(count)]
        for thread in threads:
            thread.start()
        leader = until("somebody leads", lambda: lab.leader(lab.doors[0]))
        alive = [door for host, door in zip(lab.hosts, lab.doors) if host != leader]

        def operations():
            for door in alive:
                try:
                    status, answer = call(door, "GET", "/v2/operations?limit=1000", timeout=20)
                except OSError:
                    continue
                if status == 200:
                    return [it for it in answer["items"] if it["stack"].startswith("many")]
            return []

        over = lambda: [it for it in operations() if it["state"] not in ("queued", "running")]
        until("a third of the operations is over", lambda: len(over()) >= count // 3, 600)
        running = [it["id"] for it in operations() if it["state"] == "running"]
        run(labs.HERDER, "lab", "kill", "--herder", "--name", lab.name, leader)
        killed = time.monotonic() - start
        for thread in threads:
            thread.join()
        until("all operations are over", lambda: len(over()) >= count, 900)
        seconds = time.monotonic() - start
        faults = [f"{stack}: {it}" for stack, it in outcomes.items() if not it or " " in it]
        all_operations = operations()
        states = collections.Counter(it["state"] for it in all_operations)
        of_stack = collections.Counter(it["stack"] for it in all_operations)
        faults += [f"{stack}: {number} operations" for stack, number in of_stack.items() if number != 1]
        faults += [f"{it['stack']}: {it['state']} {it['error']}" for it in all_operations if it["state"] != "succeeded"]
        door = alive[0]
        services = call(door, "GET", "/services")[1]
        configs = call(door, "GET", "/configs")[1]
        networks = call(door, "GET", "/networks")[1]
        tasks = collections.Counter((it["ServiceID"], it["Slot"]) for it in call(door, "GET", "/tasks")[1])
        for number in range(count):
            stack = f"many{number:03}"
            mine = lambda all, labels: [it for it in all if (labels(it) or {}).get(LABEL) == stack]
            objects = [
                ("services", len(mine(services, lambda it: it["Spec"]["Labels"])), 2),
                ("configs", len(mine(configs, lambda it: it["Spec"]["Labels"])), 1),
                ("networks", len(mine(networks, lambda it: it["Labels"])), 1),
                ("revisions", len(call(door, "GET", f"/v2/targets/own/stacks/{stack}/revisions")[1].get("items", [])), 1),
                # A service that was written once has its first specification.
                ("second writes", sum("PreviousSpec" in it for it in mine(services, lambda it: it["Spec"]["Labels"])), 0),
            ]
            faults += [f"{stack}: {there} {what}, not {wanted}" for what, there, wanted in objects if there != wanted]
        replaced = [slot for slot, number in tasks.items() if number > 1]
        print(f"{count} stacks by 3 doors; {leader} led and was killed after {killed:.1f} s with {len(running)} operations running; "
              f"all over after {seconds:.1f} s: {dict(states)}; {sum(tasks.values())} tasks, {len(replaced)} slots with a second one")
        print("\n".join(faults) if faults else "nothing is missing, nothing is there twice")
        sys.exit(1 if faults else 0)


main()
