"""Plays a client of the event bus with the Python library and prints what it hears: bus.py HOST PORT"""

import json
import logging
import sys
import threading
import time

from vertx import EventBus

logging.disable(logging.CRITICAL)
errors = []
bus = EventBus(sys.argv[1], int(sys.argv[2]), options={"connect": True, "reply_timeout": 2}, err_handler=errors.append)


def say(*words):
    print(*[word if isinstance(word, str) else json.dumps(word, ensure_ascii=False) for word in words], flush=True)


def until(condition):
    deadline = time.monotonic() + 10
    while not condition():
        if time.monotonic() > deadline:
            say("not done in time", errors)
            sys.exit(1)
        time.sleep(0.005)


def request(address, body, headers=None):
    answers = []
    bus.send(address, headers=headers, body=body, reply_handler=answers.append)
    return answers[0] if answers else None


heard = []


def mine(message):
    heard.append(message["body"])
    if "replyAddress" in message:
        bus.send(message["replyAddress"], body={"you": message["body"]}, headers={"x": "y"})


bus.register_handler("test.mine", mine)
bus.publish("test.mine", body={"n": 1}, headers={"k": "v"})
bus.send("test.mine", body="ä €")
until(lambda: len(heard) == 2)
say("heard", heard)
reply = request("test.mine", [1, {"a": None}])
say("reply", reply["body"], reply["headers"])
echo = request("test.echo", {"deep": {"list": [1.5, True, "x"]}}, {"k": "v"})
say("echo", echo["body"], echo["headers"])
say("large", len(request("test.echo", "x" * 100000)["body"]))
say("many", [request("test.echo", n)["body"] for n in range(20)] == list(range(20)))

ticks = []
bus.register_handler("test.clock", lambda message: ticks.append(message["body"]["number"]))
until(lambda: len(ticks) == 3)
say("clock", ticks == list(range(ticks[0], ticks[0] + 3)))

bus.unregister_handler("test.mine", mine)
for address, body in (("test.fail", 1), ("test.mine", 1), ("secret", 1), ("test-strict", {"ok": False})):
    # The library waits for the time of a reply even after an error; another thread must not.
    thread = threading.Thread(target=request, args=(address, body), daemon=True)
    count = len(errors)
    thread.start()
    until(lambda: len(errors) > count)
    error = errors[count]
    say(address, "failed:", error.get("failureCode", ""), error.get("failureType", ""), error["message"])
bus.close()
