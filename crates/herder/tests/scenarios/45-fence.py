"""A service that must never run twice, and what happens to the host that runs it.

    45-fence.py HERDER LAB DOOR ROUNDS [FAULT…]

Nine faults one after the other, ROUNDS times; or those that are named, without long absences. After each one the task must run elsewhere, and after its end all must be ready
again. The container writes down when it lives, by the clock of the machine that all hosts of a lab share; in the end no two of
its lives may overlap. What each fault took goes to the standard error.
"""

import glob
import json
import os
import subprocess
import sys
import tempfile
import time

HERDER, LAB, DOOR, ROUNDS, ONLY = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]), sys.argv[5:]
# Away for longer than a herder that was stopped in good order may be.
AWAY = 20
ELSEWHERE_MAX = 60
HEALED_MAX = 90
BEATS = tempfile.mkdtemp(prefix="fence-beats-")
os.chmod(BEATS, 0o777)


def run(*words):
    done = subprocess.run(words, capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(f"{words}: {done.stdout}{done.stderr}")
    return done.stdout.strip()


def docker(*words):
    return run("docker", "-H", DOOR, *words)


def lab(verb, *words):
    return run(HERDER, "lab", verb, "--name", LAB, *words)


def signal(host, name):
    lab("exec", host, "sh", "-c", f"kill -{name} $(cat /run/herder-lab/{LAB}/{host}/herder.pid)")


def until(limit, what, holds):
    began = time.monotonic()
    while time.monotonic() < began + limit:
        if found := holds():
            return found, time.monotonic() - began
        time.sleep(0.2)
    raise SystemExit(f"not within {limit} s: {what}\n{docker('node', 'ls')}\n{docker('service', 'ps', '--no-trunc', 'one')}")


def home():
    format = "{{.Node}} {{.CurrentState}}"
    lines = docker("service", "ps", "--filter", "desired-state=running", "--format", format, "one").splitlines()
    running = [line.split()[0] for line in lines if " Running" in line]
    return running[0] if len(running) == 1 else None


def elsewhere(host):
    return lambda: (there := home()) and there != host and there


def ready():
    states = docker("node", "ls", "--format", "{{.Status}}").splitlines()
    return all(state == "Ready" for state in states) and home()


def start(host):
    # A herder that was told to end may take a moment.
    for _ in range(50):
        done = subprocess.run([HERDER, "lab", "start", "--name", LAB, "--herder", host], capture_output=True)
        if done.returncode == 0:
            return
        time.sleep(0.2)


FAULTS = {
    "herder is killed": (lambda it: lab("kill", "--herder", it), lambda it: start(it)),
    "herder hangs": (lambda it: signal(it, "STOP"), lambda it: signal(it, "CONT")),
    "herder is stopped": (lambda it: signal(it, "TERM"), lambda it: start(it)),
    "the engine is killed": (lambda it: lab("kill", it), lambda it: lab("start", it)),
    "the engine hangs": (lambda it: lab("pause", it), lambda it: lab("resume", it)),
    "the host is cut off": (lambda it: lab("partition", it), lambda it: lab("heal", it)),
    "cut off, the engine hangs": (
        lambda it: (lab("partition", it), lab("pause", it)),
        lambda it: (lab("heal", it), lab("resume", it)),
    ),
    "cut off, the engine is killed": (
        lambda it: (lab("partition", it), lab("kill", it)),
        lambda it: (lab("start", it), lab("heal", it)),
    ),
    "cut off, herder is killed": (
        lambda it: (lab("partition", it), lab("kill", "--herder", it)),
        lambda it: (lab("heal", it), start(it)),
    ),
}
if ONLY:
    FAULTS = {name: FAULTS[name] for name in ONLY}

PROGRAM = "f=/beats/$(hostname); while true; do cut -d' ' -f1 /proc/uptime >>$f; sleep 0.02; done"
docker(
    "service", "create", "-d", "--no-resolve-image", "--name", "one", "--label", "herder.fence=true", "--restart-delay", "0s",
    "--constraint", "node.role==worker", "--mount", f"type=bind,source={BEATS},target=/beats", "busybox", "sh", "-c", PROGRAM,
)
until(ELSEWHERE_MAX, "it runs", home)
for number in range(ROUNDS):
    for name, (begin, end) in FAULTS.items():
        host = home() or until(ELSEWHERE_MAX, "it runs", home)[0]
        begin(host)
        began = time.monotonic()
        _, moved = until(ELSEWHERE_MAX, f"it runs elsewhere after: {name}", elsewhere(host))
        # Whatever is still alive on the lost host shows now; herder is away for longer than its absence is put up with.
        time.sleep(max(2, AWAY - moved) if number == 0 and not ONLY and "herder" in name else 2)
        end(host)
        _, healed = until(HEALED_MAX, f"all is ready again after: {name}", ready)
        print(f"round {number + 1}, {name}: elsewhere {moved:.1f} s, ready again {healed:.1f} s", file=sys.stderr, flush=True)
        time.sleep(1)

docker("service", "rm", "one")
lives = []
for path in glob.glob(f"{BEATS}/*"):
    moments = [float(line) for line in open(path) if line.strip()]
    if moments:
        lives.append((moments[0], moments[-1], os.path.basename(path)))
lives.sort()
twice = [(one, two) for one, two in zip(lives, lives[1:]) if two[0] <= one[1]]
for one, two in twice:
    print(f"lived twice for {one[1] - two[0]:.2f} s: {one} {two}", file=sys.stderr)
gaps = [two[0] - one[1] for one, two in zip(lives, lives[1:])]
print(f"least time between two lives: {min(gaps):.2f} s", file=sys.stderr)
print(f"{ROUNDS * len(FAULTS)} faults, {len(twice)} overlaps")
