"""As much of a W&B server as wandb-core 0.31 needs for runs: create, resume, rows, alerts, finish, and a later sync.

Loopback only. Rows are kept by offset, as in the real service: the same part of a file sent twice is there once.
"""

from __future__ import annotations

import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

ENTITY = "someone"


class Bucket:
    """What the server knows of one run."""

    def __init__(self, name: str, project: str) -> None:
        self.name = name
        self.project = project
        self.display_name = name
        self.config: dict[str, Any] = {}
        self.history: list[dict[str, Any]] = []
        self.summary: dict[str, Any] = {}
        self.alerts: list[dict[str, Any]] = []
        self.exit_code: int | None = None
        self.group: str | None = None

    @property
    def axes(self) -> dict[str, str]:
        """The x axis of each metric or glob, as the page would use it."""
        metrics = self.config["_wandb"]["value"]["m"]
        names = [metric.get("1") or metric.get("2") for metric in metrics]
        return {
            name: names[int(metric["5"]) - 1] for name, metric in zip(names, metrics, strict=True) if metric.get("5")
        }

    def as_graphql(self) -> dict[str, Any]:
        return {
            "id": f"id-{self.name}",
            "name": self.name,
            "displayName": self.display_name,
            "description": "",
            "config": json.dumps(self.config),
            "sweepName": None,
            "historyLineCount": len(self.history),
            "eventsLineCount": 0,
            "logLineCount": 0,
            "historyTail": json.dumps([json.dumps(self.history[-1])] if self.history else []),
            "eventsTail": "[]",
            "summaryMetrics": json.dumps(self.summary),
            "tags": [],
            "wandbConfig": json.dumps({"t": 1}),
            "project": {"id": "p", "name": self.project, "entity": {"id": "e", "name": ENTITY}},
        }


class Endpoint:
    """The server: `start` and `stop` as often as wanted, on one port; what it knows stays."""

    def __init__(self) -> None:
        self.buckets: dict[str, Bucket] = {}
        self.status = 200
        self._server: ThreadingHTTPServer | None = None
        self.port = 0
        self.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        endpoint = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: Any) -> None:
                pass

            def do_GET(self) -> None:
                self._answer({})

            do_HEAD = do_GET

            def do_PUT(self) -> None:
                self.rfile.read(int(self.headers.get("Content-Length") or 0))
                self._answer({})

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)) or b"{}")
                if self.path == "/graphql":
                    self._answer(endpoint.graphql(body))
                elif self.path.endswith("/file_stream"):
                    self._answer(endpoint.file_stream(self.path.split("/")[-2], body))
                else:
                    self._answer({})

            def _answer(self, body: dict[str, Any]) -> None:
                data = json.dumps(body).encode()
                self.send_response(endpoint.status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(data)

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            allow_reuse_address = True
            connections: set[Any] = set()  # noqa: RUF012 - one class for one start

            def process_request(self, request: Any, client_address: Any) -> None:
                self.connections.add(request)
                super().process_request(request, client_address)

            def handle_error(self, request: Any, client_address: Any) -> None:
                pass  # a client that goes away in the middle is what some tests are about

        self._server = Server(("127.0.0.1", self.port), Handler)
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def stop(self) -> None:
        """Refuse connections, and cut those that are open."""
        server, self._server = self._server, None
        if server is None:
            return
        server.shutdown()
        server.server_close()
        for connection in server.connections:  # type: ignore[attr-defined]
            connection.close()

    def graphql(self, body: dict[str, Any]) -> dict[str, Any]:
        found = re.search(r"(?:query|mutation)\s+(\w+)", body.get("query", ""))
        operation = body.get("operationName") or (found.group(1) if found else "")
        variables = body.get("variables") or {}
        answer = getattr(self, f"op_{operation}", None)
        return {"data": answer(variables)} if answer else {"errors": [{"message": f"no {operation} here"}]}

    def op_Viewer(self, _: dict[str, Any]) -> dict[str, Any]:
        viewer = {"id": "v", "entity": ENTITY, "username": ENTITY, "email": "x@example.org", "flags": "{}"}
        return {"viewer": viewer | {"teams": {"edges": []}}}

    def op_UpsertBucket(self, given: dict[str, Any]) -> dict[str, Any]:
        name = given.get("name") or given["id"].removeprefix("id-")
        inserted = name not in self.buckets
        bucket = self.buckets.setdefault(name, Bucket(name, given.get("project") or "uncategorized"))
        bucket.display_name = given.get("displayName") or bucket.display_name
        bucket.group = given.get("groupName") or bucket.group
        if given.get("config"):
            bucket.config = json.loads(given["config"])
        return {"upsertBucket": {"bucket": bucket.as_graphql(), "inserted": inserted}}

    def op_RunResumeStatus(self, given: dict[str, Any]) -> dict[str, Any]:
        bucket = self.buckets.get(given["name"])
        entity = {"id": "e", "name": ENTITY}
        found = bucket.as_graphql() if bucket else None
        return {"model": {"id": "p", "name": given.get("project"), "entity": entity, "bucket": found}}

    def op_NotifyScriptableRunAlert(self, given: dict[str, Any]) -> dict[str, Any]:
        self.buckets[given["runName"]].alerts.append(given)
        return {"notifyScriptableRunAlert": {"success": True}}

    def op_CreateRunFiles(self, given: dict[str, Any]) -> dict[str, Any]:
        files = [{"name": name, "uploadUrl": f"{self.url}/upload/{name}"} for name in given["files"]]
        return {"createRunFiles": {"runID": given["run"], "uploadHeaders": [], "files": files}}

    def file_stream(self, name: str, body: dict[str, Any]) -> dict[str, Any]:
        bucket = self.buckets[name]
        files = body.get("files") or {}
        if history := files.get("wandb-history.jsonl"):
            rows = [json.loads(line) for line in history["content"]]
            bucket.history[history["offset"] : history["offset"] + len(rows)] = rows
        if summary := files.get("wandb-summary.json"):
            bucket.summary = json.loads(summary["content"][-1])
        if body.get("complete"):
            bucket.exit_code = body.get("exitcode")
        return {"exitcode": None, "limits": {}}
