"""Records what Compose 2.26 makes of the golden cases in tests/cases.

record.py COMPOSE    COMPOSE is the program (xtask/assets/fetch-clients.sh brings it). Needs root: each case gets a root folder
                     of its own, so that paths are those of the case.

Writes recorded.json beside this script: case → the values that the case shows, or `refused`. tests/compose.rs compares them.
"""

import json
import pathlib
import shutil
import subprocess
import sys
import tempfile

compose = pathlib.Path(sys.argv[1]).resolve()
here = pathlib.Path(__file__).resolve().parent
ENVIRONMENT = {"HOME": "/home/u", "SET": "set", "EMPTY": ""}


def prepare(root):
    """Puts the program and the libraries that it needs into a root folder."""
    shutil.copy(compose, root / "compose")
    listed = subprocess.run(["ldd", str(compose)], capture_output=True, text=True, check=False).stdout
    for library in (word for word in listed.split() if word.startswith("/")):
        (root / library.lstrip("/")).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(library, root / library.lstrip("/"))
    return {it.name for it in root.iterdir()}


def run(files, arguments, environment):
    for left in root.iterdir():
        if left.name not in always:
            shutil.rmtree(left)
    for folder in ("p", "tmp", "home/u"):
        (root / folder).mkdir(parents=True)
    for path, content in files.items():
        place = root / (path if path.startswith("/") else "p/" + path).lstrip("/")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(content)
    done = subprocess.run(
        [shutil.which("chroot"), str(root), "/compose", *arguments, "config", "--format", "json"],
        env=environment, capture_output=True, text=True, timeout=60, check=False,
    )
    if done.returncode != 0:
        return None, done.stderr.strip().splitlines()[-1:]
    return json.loads(done.stdout), None


def table(body):
    yaml = "".join(f"    {line}\n" for line in body.splitlines())
    image = "" if any(line.startswith("image:") for line in body.splitlines()) else "    image: i\n"
    file = (
        f"services:\n  a:\n{yaml}{image}  b: {{image: i}}\nnetworks: {{n: {{}}, m: {{}}}}\nvolumes: {{v: {{}}}}\n"
        "secrets: {s: {file: s}, t: {file: t}}\nconfigs: {c: {file: c}, d: {file: d}}\n"
    )
    model, why = run({"compose.yaml": file}, ["-f", "/p/compose.yaml", "--project-directory", "/p"], ENVIRONMENT)
    if model is None:
        return {"refused": why}
    keys = [line.split(":")[0] for line in body.splitlines() if not line.startswith((" ", "-", "#", "}", "]"))]
    return {key: (model["services"].get("a") or {}).get(key) for key in keys}


def story(text):
    files, shown = {}, []
    environment, options = dict(ENVIRONMENT), {"files": ["compose.yaml"], "directory": "/p", "env_files": [], "profiles": [], "name": None}
    for part in text.split("\n--- ")[1:]:
        name, _, content = part.partition("\n")
        if name != "options":
            files[name] = content + "\n"
            continue
        for line in content.splitlines():
            word, _, rest = line.partition(" ")
            if word == "env":
                key, _, value = rest.partition("=")
                environment[key] = value
            elif word == "show":
                shown += rest.split(" ")
            elif word in ("files", "profiles", "env_files"):
                options[word] = rest.split(" ")
            else:
                options[word] = rest
    absolute = lambda path: path if path.startswith("/") else "/p/" + path
    arguments = [it for path in options["files"] for it in ("-f", absolute(path))]
    arguments += ["--project-directory", options["directory"]]
    arguments += [it for path in options["env_files"] for it in ("--env-file", absolute(path))]
    arguments += [it for name in options["profiles"] for it in ("--profile", name)]
    if options["name"] is not None:
        arguments += ["-p", options["name"]]
    model, why = run(files, arguments, environment)
    if model is None:
        return {"refused": why}
    values = {}
    for path in shown:
        if path == "variables":
            continue
        value = model
        for key in [] if path == "." else path.split("."):
            value = value.get(key) if isinstance(value, dict) else value[int(key)] if isinstance(value, list) and key.isdigit() and int(key) < len(value) else None
        values[path] = value
    return values


folder = tempfile.TemporaryDirectory()
root = pathlib.Path(folder.name)
always = prepare(root)
recorded = {}
for path in sorted((here.parent / "cases").iterdir()):
    text = path.read_text()
    if path.name.startswith("service"):
        for block in filter(None, (block.strip() for block in text.split("\n\n"))):
            body = block.split("\n=>")[0]
            if not (body.startswith("#") and "\n" not in body):
                recorded[body] = table(body)
    else:
        for part in text.split("=== ")[1:]:
            given = part.split("\n=>")[0].rstrip()
            recorded[given.splitlines()[0]] = story(given)
(here / "recorded.json").write_text(json.dumps(recorded, indent=0, sort_keys=True, ensure_ascii=False) + "\n")
print(len(recorded), "cases,", sum("refused" in it for it in recorded.values()), "refused")
