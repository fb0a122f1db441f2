"""Swagger UI in a real Chromium: both documents are shown, and "Try it out" gets an answer.

browser.py DOOR    DOOR is host:port of a door (of a manager of a swarm, for /v2). Needs `chromium` and the Python package
                   websocket-client. Ends with 1 if a page shows no answer, or asked another host for something.
"""

import json
import subprocess
import sys
import tempfile
import time
import urllib.request

import websocket

# The page, the operation that is tried, the path of its request.
PAGES = [("/v2/ui/", "list_stacks", "/v2/targets/own/stacks", {"target": "own"}), ("/v2/ui/", "list_targets", "/v2/targets", {}),
         ("/v1/ui/", "swarm_status", "/v1/swarm", {})]


class Browser:
    def __init__(self, folder):
        self.process = subprocess.Popen(
            ["chromium", "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run",
             "--remote-debugging-port=0", f"--user-data-dir={folder}", "about:blank"],
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        for line in self.process.stderr:
            if "DevTools listening on" in line:
                port = line.split("127.0.0.1:")[1].split("/")[0]
                break
        pages = json.loads(urllib.request.urlopen(f"http://127.0.0.1:{port}/json/list").read())
        url = next(it["webSocketDebuggerUrl"] for it in pages if it["type"] == "page")
        self.socket = websocket.create_connection(url, suppress_origin=True, timeout=60)
        self.number, self.requests = 0, []
        self.ask("Network.enable")
        self.ask("Page.enable")

    def ask(self, method, **parameters):
        self.number += 1
        self.socket.send(json.dumps({"id": self.number, "method": method, "params": parameters}))
        while True:
            message = json.loads(self.socket.recv())
            if message.get("method") == "Network.requestWillBeSent":
                self.requests.append(message["params"]["request"]["url"])
            if message.get("id") == self.number:
                return message.get("result", message)

    def evaluate(self, script):
        answer = self.ask("Runtime.evaluate", expression=script, returnByValue=True)
        return answer.get("result", {}).get("value")

    def until(self, what, script, seconds=40):
        deadline = time.monotonic() + seconds
        while not (value := self.evaluate(script)):
            if time.monotonic() > deadline:
                sys.exit(f"not within {seconds} s: {what}")
            time.sleep(0.2)
        return value


def main():
    door = sys.argv[1]
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        browser = Browser(folder)
        try:
            for page, operation, path, parameters in PAGES:
                browser.ask("Page.navigate", url=f"http://{door}{page}")
                block = f"document.querySelector('[id$=\"-{operation}\"]')"
                browser.until(f"{page} shows {operation}", block + " && true")
                browser.evaluate(block + ".querySelector('.opblock-summary-control').click()")
                browser.until("the operation opens", block + ".querySelector('.try-out__btn') && true")
                browser.evaluate(block + ".querySelector('.try-out__btn').click()")
                browser.until("it can be tried", block + ".querySelector('.execute') && true")
                for name, value in parameters.items():
                    # React hears of a value that is set by the element's own setter.
                    browser.evaluate(f"""(() => {{ const input = {block}.querySelector('[data-param-name="{name}"] input');
                        Object.getOwnPropertyDescriptor(HTMLInputElement.prototype, 'value').set.call(input, {json.dumps(value)});
                        input.dispatchEvent(new Event('input', {{bubbles: true}})); }})()""")
                browser.evaluate(block + ".querySelector('.execute').click()")
                live = block + ".querySelector('.live-responses-table .response .response-col_status')"
                status = browser.until("an answer is shown", live + " && " + live + ".innerText")
                body = browser.evaluate(block + ".querySelector('.live-responses-table .response .response-col_description').innerText")
                print(f"{page} {operation}: {status.split()[0]}, {len(body)} characters")
                if path.startswith("/v2") and not status.startswith("200"):
                    sys.exit(body)
            strangers = [url for url in browser.requests if not url.startswith((f"http://{door}/", "data:", "about:", "blob:"))]
            print(f"{len(browser.requests)} requests, {len(strangers)} to other hosts")
            sys.exit(1 if strangers else 0)
        finally:
            browser.process.terminate()
            browser.process.wait()


main()
