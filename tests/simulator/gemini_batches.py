"""Gemini's files and batches: uploads that begin with one request and go on with others, jobs as long-running
operations."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from tests.simulator.batches import Job
from tests.simulator.gemini_checks import refuse
from tests.simulator.http import Answer, Refused, Request

if TYPE_CHECKING:
    from tests.simulator.server import Simulator

MOST_BYTES = 2 << 30
STATES = {"running": "RUNNING", "done": "SUCCEEDED", "expired": "EXPIRED", "cancelled": "CANCELLED", "failed": "FAILED"}
CODES = {400: (3, "INVALID_ARGUMENT"), 401: (16, "UNAUTHENTICATED"), 404: (5, "NOT_FOUND"), 500: (13, "INTERNAL")}
CODES |= {403: (7, "PERMISSION_DENIED"), 429: (8, "RESOURCE_EXHAUSTED"), 503: (14, "UNAVAILABLE")}
_uploads: dict[str, bytearray] = {}


def takes(request: Request) -> bool:
    return re.match(r"/(upload/)?(v1|v1beta)/(files|batches|models/[^/]+:batch)", request.path) is not None


def answer(sim: Simulator, request: Request) -> Answer:
    try:
        return _answer(sim, request)
    except Refused as refused:
        return refused.answer


def _answer(sim: Simulator, request: Request) -> Answer:
    batches = sim.batches
    path = re.sub(r"^(/upload)?/(v1|v1beta)/", "", request.path)
    if request.path.startswith("/upload/"):
        return upload(sim, request)
    if found := re.fullmatch(r"(files/[\w-]+):download", path):
        if found[1] not in batches.files:
            raise refuse("You do not have permission to access the File or it may not exist.", 403, "PERMISSION_DENIED")
        return Answer(200, batches.files[found[1]], {"content-type": "application/octet-stream"})
    if found := re.fullmatch(r"(models/[^/:]+):batchGenerateContent", path):
        return create(sim, found[1], request)
    if (request.method, path) == ("GET", "batches"):
        jobs = [shown(sim, job) for job in batches.listed("gemini")]
        return Answer(200, json.dumps({"operations": jobs} if jobs else {}).encode())
    found = re.fullmatch(r"batches/([\w-]+)(:cancel)?", path)
    job = found and (batches.cancel if found[2] else batches.look)(
        sim, found[1], lambda job, line: work(sim, job, line)
    )
    if not job:
        raise refuse("Requested entity was not found.", 404, "NOT_FOUND")
    return Answer(200, b"{}" if found[2] else json.dumps(shown(sim, job)).encode())


def upload(sim: Simulator, request: Request) -> Answer:
    command = request.headers.get("x-goog-upload-command", "")
    if command == "start":
        id = str(len(_uploads))
        _uploads[id] = bytearray()
        url = f"{sim.gemini_url}{request.path}?upload_id={id}"
        return Answer(200, b"{}", {"x-goog-upload-url": url, "x-goog-upload-status": "active"})
    data = _uploads[request.query["upload_id"][0]]
    if int(request.headers.get("x-goog-upload-offset", -1)) != len(data):
        raise refuse("Invalid upload offset.")
    data += request.body
    if len(data) > MOST_BYTES:
        raise refuse("File is too large.")
    if "finalize" not in command:
        return Answer(200, b"", {"x-goog-upload-status": "active"})
    name = sim.batches.put(bytes(data), "files/f")
    about = {"name": name, "mimeType": "jsonl", "sizeBytes": str(len(data)), "state": "ACTIVE", "source": "UPLOADED"}
    return Answer(200, json.dumps({"file": about}).encode(), {"x-goog-upload-status": "final"})


def create(sim: Simulator, model: str, request: Request) -> Answer:
    batch = request.json().get("batch") or {}
    file = (batch.get("inputConfig") or {}).get("fileName", "")
    if set(batch) != {"displayName", "inputConfig"} or file not in sim.batches.files:
        raise refuse("Invalid JSON payload received: batch needs displayName and inputConfig.fileName.")
    lines = [json.loads(line) for line in sim.batches.files[file].splitlines()]
    if any(set(line) != {"key", "request"} for line in lines) or len({line["key"] for line in lines}) < len(lines):
        raise refuse("Each line of the file needs a key of its own and a request.")
    if len(sim.batches.jobs) < len(sim.batches.refuse) and (code := sim.batches.refuse[len(sim.batches.jobs)]):
        sim.batches.refuse[len(sim.batches.jobs)] = ""  # it makes no job
        raise refuse(f"Resource has been exhausted: {code}", 429, "RESOURCE_EXHAUSTED")
    return Answer(
        200, json.dumps(shown(sim, sim.batches.create("gemini", batch["displayName"], model, file, lines))).encode()
    )


def work(sim: Simulator, job: Job, line: dict) -> tuple[str, Request, str]:
    body = json.dumps(line["request"]).encode()
    path = f"/v1beta/{job.endpoint}:generateContent"
    return line["key"], Request("POST", path, {}, {"x-goog-api-key": min(sim.keys)}, body), body.decode()


def shown(sim: Simulator, job: Job) -> dict:
    if job.state in ("done", "expired", "cancelled") and job.answered and not job.outputs:
        rows = [_line(key, status, json.loads(body)) for key, status, body in job.answered]
        job.outputs["output"] = sim.batches.put(b"".join(json.dumps(row).encode() + b"\n" for row in rows), "files/f")
    created = datetime.fromtimestamp(job.created, UTC).isoformat().replace("+00:00", "Z")
    about = {
        "@type": "type.googleapis.com/google.ai.generativelanguage.v1main.GenerateContentBatch",
        "model": job.endpoint,
        "displayName": job.name,
        "state": f"BATCH_STATE_{STATES[job.state]}",
        "createTime": created,
        "name": f"batches/{job.id}",
        **({"output": {"responsesFile": job.outputs["output"]}} if job.outputs else {}),
    }
    return {"name": f"batches/{job.id}", "metadata": about, **({"done": True} if job.state != "running" else {})}


def _line(key: str, status: int, body: dict) -> dict:
    if status == 200:
        return {"key": key, "response": body}
    code, name = CODES.get(status, (13, "INTERNAL"))
    return {"key": key, "error": {**body.get("error", {}), "code": code, "status": name}}
