"""A visitor of the page, without a browser."""

import json
import secrets
from pathlib import Path

import httpx  # comes with gradio


class Visitor:
    """A browser's part of the protocol."""

    def __init__(self, url, name=None):
        self.name = name or secrets.token_hex(8)
        self.http = httpx.Client(base_url=url, timeout=120)
        config = self.http.get("/config").json()
        self.inputs = {c["id"]: c["props"].get("value") for c in config["components"]}
        self.ids = {c["id"]: c["props"].get("elem_id") for c in config["components"]}
        self.choices = {c["id"]: c["props"]["choices"] for c in config["components"] if "choices" in c["props"]}
        self.events = {}
        for event in filter(lambda event: event["backend_fn"], config["dependencies"]):  # others cancel events
            for target, kind in event["targets"]:
                self.events[self.ids.get(target), kind] = event

    def upload(self, path, name=None):
        answer = self.http.post("/gradio_api/upload", files={"files": (name or path.name, path.read_bytes())})
        return answer.json()[0] if answer.is_success else answer

    def join(self, element, kind, data=None, event_data=None):
        event = self.events[element, kind]
        data = data or []
        data = [*data, *(self.inputs.get(i) for i in event["inputs"][len(data) :])]
        body = {"data": data, "fn_index": event["id"], "session_hash": self.name, "trigger_id": None}
        body |= {"event_data": event_data}
        return self.http.post("/gradio_api/queue/join", json=body)

    def answers(self):
        """Messages of this visitor's events until one is complete."""
        with self.http.stream("GET", f"/gradio_api/queue/data?session_hash={self.name}") as stream:
            for line in stream.iter_lines():
                if line.startswith("data:"):
                    message = json.loads(line[5:])
                    yield message
                    if message["msg"] == "process_completed":
                        return

    def call(self, element, kind, data=None, event_data=None):
        answer = self.join(element, kind, data, event_data)
        assert answer.status_code == 200, answer.text
        *_, last = self.answers()
        return last["output"]

    def values(self, element, kind="click", **given):
        """The inputs of an event; `given` are those of components by their elem_id."""
        return [given.get(self.ids.get(i), self.inputs.get(i)) for i in self.events[element, kind]["inputs"]]

    def open(self, path):
        given = {"path": path, "orig_name": Path(path).name, "meta": {"_type": "gradio.FileData"}}
        return self.call("image", "change", [given])

    def paint(self, x, y):
        """Correct the segmentation by hand."""
        stroke = {"tool": "paint", "points": [[x, y]], "radius": 1}
        return self.call(None, "edit", event_data=stroke)  # one viewer is editable
