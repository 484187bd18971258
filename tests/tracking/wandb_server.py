"""A stand-in for Weights & Biases' server: what the wandb client of the pinned version sends, and nothing else.

Loopback and standard library only. It keeps what is logged, pages it out again, and does wrong what ``faults`` say.
It was written from what the client sends and expects; it is no copy of W&B's server and proves nothing about that.
"""

import base64
import gzip
import json
import re
import threading
import time
from collections import Counter
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote

KEY = "k" * 40
ENTITY = "smith"


class Run:
    """One run as the server has it."""

    def __init__(self, entity, project, name):
        self.entity, self.project, self.name = entity, project, name
        self.number = 0
        self.state = "running"
        self.config, self.summary = {}, {}
        self.attributes = {}  # displayName, groupName, jobType, tags, notes
        self.history = {}  # line -> text, as the file stream sent it
        self.events = {}

    def rows(self):
        return [json.loads(self.history[i]) for i in sorted(self.history)]

    def node(self):
        steps = [row["_step"] for row in self.rows()]
        attributes = self.attributes
        return {
            "id": f"id-{self.name}",
            "projectId": "1",
            "name": self.name,
            "displayName": attributes.get("displayName"),
            "group": attributes.get("groupName"),
            "jobType": attributes.get("jobType"),
            "tags": attributes.get("tags") or [],
            "notes": attributes.get("notes"),
            "state": self.state,
            "sweepName": None,
            "commit": None,
            "readOnly": False,
            "description": None,
            "createdAt": f"2026-01-01T00:00:{self.number % 60:02d}",
            "heartbeatAt": "2026-01-01T00:00:00",
            "config": json.dumps(self.config),
            "systemMetrics": "{}",
            "summaryMetrics": json.dumps(self.summary),
            "historyLineCount": len(self.history),
            "historyKeys": {"lastStep": max(steps, default=-1), "keys": {}},
            "user": {"name": "L. N. Smith", "username": ENTITY},
        }


class Refused(Exception):
    """An answer that is an error: status, message."""


class Server(ThreadingHTTPServer):
    """The server; ``faults`` are functions (handler, operation, variables, answer) -> answer, or True if they
    answered themselves. ``asked`` counts the operations, ``unknown`` names those that it does not speak.
    """

    daemon_threads = True
    request_queue_size = 128

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.projects = {}  # (entity, project) -> {name: Run}
        self.deleted = set()  # (entity, project, name) of runs that were deleted: their names are spent
        self.files = {}  # (run, name) -> bytes, and artifacts
        self.artifacts, self.views = [], []
        self.faults = []
        self.asked = Counter()
        self.unknown = set()
        self.lock = threading.Lock()
        self.url = f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, request, client_address):
        """A client that hung up is no news."""

    def runs(self, project, entity=ENTITY):
        return self.projects.setdefault((entity, project), {})

    def add(self, run):
        runs = self.runs(run.project, run.entity)
        run.number = len(runs)
        runs[run.name] = run

    def delete(self, run):
        del self.runs(run.project, run.entity)[run.name]
        self.deleted.add((run.entity, run.project, run.name))

    def answer(self, operation, v):
        """The data of a GraphQL operation."""
        method = getattr(self, f"_{operation}", None)
        if method is None:
            self.unknown.add(operation)
            return None
        with self.lock:
            return method(v)

    def _find(self, v, key):
        return self.projects.get((v["entity"] or ENTITY, v["project"]), {}).get(v[key])

    def _Viewer(self, v):
        teams = {"edges": [{"node": {"name": ENTITY}}]}
        return {"viewer": {"id": "1", "entity": ENTITY, "username": ENTITY, "name": ENTITY, "email": "", "admin": False,
                           "flags": "{}", "teams": teams, "apiKeys": {"edges": []}, "deletedAt": None}}  # fmt: skip

    _GetViewer = _GetDefaultEntity = _Viewer

    def _OrganizationCoreWeaveOrganizationID(self, v):
        return {"entity": {"organization": {"coreWeaveOrganizationId": None}}}

    def _RunStoppedStatus(self, v):
        return {"project": {"run": {"stopped": False}}}

    def _ProbeProjectInput(self, v):  # which fields there are, as wandb 0.22 asks
        types = {"ProjectType": ["internalId"], "RunType": ["projectId"], "QueryType": [], "MutationType": []}
        fields = {
            name: {"fields": [{"name": field, "args": []} for field in known]} for name, known in types.items()
        }
        return {**fields, "ServerInfoType": {"fields": []}}

    _ProbeRunInput = _ProbeServerCapabilities = _ProbeProjectInput

    def _ProbeServerSettings(self, v):
        return {"ServerSettingsType": {"fields": []}}

    def _RunUploadUrls(self, v):  # `wandb sync` of 0.22; its files are not kept here
        return {"model": {"bucket": {"id": v["run"], "files": {"uploadHeaders": [], "edges": []}}}}

    def _ServerFeaturesQuery(self, v):
        return {"serverInfo": {"features": []}}

    def _UpsertBucket(self, v):
        """Make a run, or change one: what it has logged stays, and what is logged next is appended to it."""
        if v.get("name") is None:  # the public API changes a run by its storage's id
            run = next(r for runs in self.projects.values() for r in runs.values() if f"id-{r.name}" == v["id"])
            return self._changed(run, v, inserted=False)
        entity = v["entity"] or ENTITY
        if (entity, v["project"], v["name"]) in self.deleted:
            path = f"{entity}/{v['project']}/{v['name']}"
            raise Refused(409, f"run {path} was previously created and deleted; try a new run name")
        new = v["name"] not in self.runs(v["project"], entity)
        if new:
            self.add(Run(entity, v["project"], v["name"]))
        run = self.runs(v["project"], entity)[v["name"]]
        run.state = "running"
        return self._changed(run, v, inserted=new)

    def _changed(self, run, v, inserted):
        if v.get("config"):
            run.config = json.loads(v["config"])
        if v.get("summaryMetrics"):
            run.summary = json.loads(v["summaryMetrics"])
        keys = ("displayName", "groupName", "jobType", "tags", "notes", "host", "program", "commit", "repo")
        run.attributes |= {k: v[k] for k in keys if v.get(k) is not None}
        project = {"id": "1", "name": run.project, "entity": {"id": "1", "name": run.entity}}
        bucket = {**run.node(), "config": v.get("config"), "project": project}
        return {"upsertBucket": {"bucket": bucket, "inserted": inserted}}

    def _CreateRunFiles(self, v):
        files = [{"name": f, "uploadUrl": f"{self.url}/storage/{v['run']}/{f}"} for f in v["files"]]
        return {"createRunFiles": {"runID": f"id-{v['run']}", "uploadHeaders": [], "files": files}}

    def _MarkRunFilesUploaded(self, v):
        return {"markRunFilesUploaded": {"success": True}}

    def _ArtifactType(self, v):
        return {"project": {"artifact": None}}

    def _FetchArtifactDigestAlgorithm(self, v):
        return {"project": {"artifactType": None}}

    def _XXHashDigestsEnabled(self, v):
        return {"entity": {"xxhashDigestsEnabled": False}}

    def _CreateArtifact(self, v):
        self.artifacts.append(v["input"])
        identity = f"artifact-{len(self.artifacts)}"
        return {"createArtifact": {"artifact": {"id": identity, "state": "PENDING", "digest": v["input"]["digest"],
                                                "artifactSequence": {"id": "1", "latestArtifact": None}}}}  # fmt: skip

    def _manifest(self, v):
        upload = {"id": "1", "uploadUrl": f"{self.url}/storage/manifest", "uploadHeaders": []}
        return {"artifactManifest": {"id": "1", "file": upload}}

    def _CreateArtifactManifest(self, v):
        return {"createArtifactManifest": self._manifest(v)}

    def _UpdateArtifactManifest(self, v):
        return {"updateArtifactManifest": self._manifest(v)}

    def _CreateArtifactFiles(self, v):
        nodes = [
            {"storagePath": f["name"], "uploadUrl": f"{self.url}/storage/artifact/{f['name']}", "uploadHeaders": [],
             "uploadMultipartUrls": None, "artifact": {"id": f["artifactID"]}}
            for f in v["input"]["artifactFiles"]
        ]  # fmt: skip
        return {"createArtifactFiles": {"files": {"edges": [{"node": node} for node in nodes]}}}

    def _CommitArtifact(self, v):
        return {"commitArtifact": {"artifact": {"id": v["artifactID"], "digest": self.artifacts[-1]["digest"]}}}

    def _UpsertView2(self, v):
        self.views.append(v)
        return {"upsertView": {"view": {"id": f"view-{len(self.views)}", "name": v["name"]}, "inserted": True}}

    def _ArtifactByID(self, v):
        made = self.artifacts[int(v["id"].rpartition("-")[2]) - 1]
        return {"artifact": {
            "__typename": "Artifact", "id": v["id"], "versionIndex": 0, "artifactType": {"name": made["artifactTypeName"]},
            "artifactSequence": {"__typename": "ArtifactSequence", "name": made["artifactCollectionName"], "project": None},
            "description": None, "metadata": "{}", "ttlDurationSeconds": -2, "ttlIsInherited": True, "tags": [],
            "historyStep": None, "state": "COMMITTED", "size": 1, "digest": made["digest"], "commitHash": "c",
            "fileCount": 1, "createdAt": "2026-01-01T00:00:00", "updatedAt": None, "aliases": []}}  # fmt: skip

    def _Runs(self, v):
        runs = self.projects.get((v["entity"], v["project"]))
        if runs is None:
            return {"project": None}
        filters = json.loads(v.get("filters") or "{}")
        matching = [r for r in sorted(runs.values(), key=lambda r: r.number) if matches(r, filters)]
        start, size = int(v.get("cursor") or 0), v.get("perPage") or 50
        page = matching[start : start + size]
        edges = [{"node": run.node(), "cursor": str(start + i + 1)} for i, run in enumerate(page)]
        more = {"endCursor": str(start + len(page)), "hasNextPage": start + size < len(matching)}
        return {"project": {"internalId": "1", "runCount": len(matching), "readOnly": False,
                            "runs": {"edges": edges, "pageInfo": more}}}  # fmt: skip

    def _Run(self, v):
        run = self._find(v, "name")
        return {"project": {"run": run and run.node()}}

    _RunHistoryKeys = _Run

    def _RunParquetHistory(self, v):
        return {"project": {"run": {"parquetHistory": {"parquetUrls": [], "liveData": []}}}}

    def _HistoryPage(self, v):
        run = self._find(v, "run")
        if run is None:
            return {"project": {"run": None}}
        lines = [
            text
            for _, text in sorted(run.history.items())
            if v["minStep"] <= json.loads(text)["_step"] < v["maxStep"]
        ]
        return {"project": {"run": {"history": lines[: v["pageSize"]]}}}

    def stream(self, entity, project, name, body):
        """The file stream: lines of the history at their offset, the summary, the end."""
        with self.lock:
            run = self.runs(project, entity).get(name)
            if run is None:
                raise Refused(404, f"run {entity}/{project}/{name} not found")
            for file, chunk in (body.get("files") or {}).items():
                if file == "wandb-history.jsonl":
                    run.history |= {chunk["offset"] + i: line for i, line in enumerate(chunk["content"])}
                elif file == "wandb-summary.json":
                    run.summary = json.loads(chunk["content"][-1])
            if body.get("complete"):
                run.state = "failed" if body.get("exitcode") else "finished"
        return {"exitcode": None, "limits": {}}


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def respond(self, content, status=200, headers=()):
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def hang_up(self, answer):
        """Send half of an answer, then close the connection."""
        data = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data[: len(data) // 2])
        self.wfile.flush()
        self.close_connection = True

    def handle_request(self):
        server = self.server
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        if self.path.startswith("/sdk/otel"):
            return self.respond({})
        if self.path.startswith("/storage/"):
            if self.command == "PUT":
                server.files[self.path.removeprefix("/storage/")] = body
            return self.respond(server.files.get(self.path.removeprefix("/storage/"), b""))
        expected = "Basic " + base64.b64encode(f"api:{KEY}".encode()).decode()
        if self.headers.get("Authorization") != expected:
            return self.respond({"errors": [{"message": "user is not logged in"}]}, 401)
        stream = re.fullmatch(r"/files/([^/]+)/([^/]+)/([^/]+)/file_stream", self.path)
        if stream:
            operation, variables = "file_stream", json.loads(body)
        else:
            request = json.loads(body)
            named = re.search(r"(?:query|mutation)\s+(\w+)", request["query"])
            operation = named[1] if named else "Viewer"  # wandb 0.22 asks for the viewer without a name
            variables = request.get("variables") or {}
        with server.lock:
            server.asked[operation] += 1
            faults = list(server.faults)
        try:
            answer = (
                server.stream(*map(unquote, stream.groups()), variables)
                if stream
                else {"data": server.answer(operation, variables)}
            )
        except Refused as refusal:
            status, message = refusal.args
            return self.respond({"data": None, "errors": [{"message": message}]}, status)
        for fault in faults:
            answer = fault(self, operation, variables, answer)
            if answer is True:
                return None
        return self.respond(answer)

    do_GET = do_POST = do_PUT = handle_request


def matches(run, filters):
    """Whether a run passes a filter in the query language of MongoDB, as far as it is used here."""
    for key, wanted in filters.items():
        if key == "$and":
            if not all(matches(run, part) for part in wanted):
                return False
            continue
        if key.startswith("config."):
            value = run.config.get(key.removeprefix("config."), {}).get("value")
        else:
            value = {"name": run.name, "state": run.state, "group": run.attributes.get("groupName")}[key]
        if value not in wanted["$in"] if isinstance(wanted, dict) else value != wanted:
            return False
    return True


@contextmanager
def running():
    """A server in a thread of this process."""
    server = Server()
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


def failing(operation, status, times=1, headers=()):
    """A fault: the first ``times`` answers to ``operation`` are errors of HTTP."""
    left = [times]

    def fault(handler, asked, variables, answer):
        if asked == operation and left[0] > 0:
            left[0] -= 1
            handler.respond({"errors": [{"message": "made up"}]}, status, headers)
            return True
        return answer

    return fault


def cutting(operation, times=1):
    """A fault: the connection ends in the middle of the first ``times`` answers to ``operation``."""
    left = [times]

    def fault(handler, asked, variables, answer):
        if asked == operation and left[0] > 0:
            left[0] -= 1
            handler.hang_up(answer)
            return True
        return answer

    return fault


def changing(operation, change):
    """A fault: ``change`` makes another answer of each to ``operation``."""

    def fault(handler, asked, variables, answer):
        return change(answer) if asked == operation else answer

    return fault


def hanging(operation, seconds):
    """A fault: answers to ``operation`` come late."""

    def fault(handler, asked, variables, answer):
        if asked == operation:
            time.sleep(seconds)
        return answer

    return fault
