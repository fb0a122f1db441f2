"""Prints what is in a store, one sorted line for each entry: 47-keys.py etcd|etcd2|consul|agent|catalog|zookeeper PORT [PREFIX]."""

import base64
import json
import socket
import sys
import urllib.error
import urllib.request

kind, port = sys.argv[1], int(sys.argv[2])
prefix = sys.argv[3] if len(sys.argv) > 3 else "services"


def ask(path, body=None):
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", data=json.dumps(body).encode() if body else None)
    try:
        return json.load(urllib.request.urlopen(request, timeout=5))
    except urllib.error.HTTPError as error:
        if error.code == 404:
            return None
        raise


def text(coded):
    return base64.b64decode(coded or "").decode()


lines = []
if kind == "etcd":
    key, end = f"/{prefix}/", f"/{prefix}0"
    coded = {"key": base64.b64encode(key.encode()).decode(), "range_end": base64.b64encode(end.encode()).decode()}
    for pair in ask("/v3/kv/range", coded).get("kvs", []):
        lines.append(f"{text(pair['key'])} {text(pair.get('value'))}")
elif kind == "etcd2":
    def walk(node):
        if node.get("dir"):
            for child in node.get("nodes", []):
                walk(child)
        else:
            lines.append(f"{node['key']} {node['value']}")

    found = ask(f"/v2/keys/{prefix}?recursive=true")
    walk(found["node"] if found else {"dir": True})
elif kind == "consul":
    for pair in ask(f"/v1/kv/{prefix}/?recurse") or []:
        lines.append(f"{pair['Key']} {text(pair['Value'])}")
elif kind == "agent":
    for name, it in ask("/v1/agent/services").items():
        lines.append(f"{name} {it['Service']} {it['Address']}:{it['Port']} {','.join(it['Tags'])} {json.dumps(it['Meta'])}")
elif kind == "checks":
    for it in ask("/v1/agent/checks").values():
        lines.append(f"{it['ServiceID']} {it['Type']} {it['Status']}")
elif kind == "catalog":
    for it in ask(f"/v1/catalog/service/{prefix}"):
        lines.append(f"{it['Node']} {it['ServiceID']} {it['ServiceAddress']}:{it['ServicePort']}")
else:
    with socket.create_connection(("127.0.0.1", port), 5) as connection:
        connection.sendall(b"dump")
        answer = b""
        while piece := connection.recv(65536):
            answer += piece
    lines = [line.strip() for line in answer.decode().splitlines() if line.strip().startswith(f"/{prefix}")]
print("\n".join(sorted(lines)) if lines else "nothing")
