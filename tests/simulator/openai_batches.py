"""OpenAI's files and batches, as the SDK's types have them."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

from openai.types.batch_create_params import BatchCreateParams

from tests.simulator import openai_checks
from tests.simulator.batches import Job
from tests.simulator.http import Answer, Refused, Request
from tests.simulator.openai_checks import refuse
from tests.simulator.openai_reading import as_object, multipart

if TYPE_CHECKING:
    from tests.simulator.server import Simulator

MOST_REQUESTS, MOST_BYTES = 50_000, 200 << 20
CREATE = openai_checks.strict(BatchCreateParams)
STATES = {"running": "in_progress", "done": "completed"}


def takes(request: Request) -> bool:
    return re.match(r"/v1/(files|batches)(/|$)", request.path) is not None


def answer(sim: Simulator, request: Request) -> Answer:
    try:
        return _answer(sim, request)
    except Refused as refused:
        return refused.answer


def _answer(sim: Simulator, request: Request) -> Answer:
    batches, path = sim.batches, request.path.removeprefix("/v1")
    if (request.method, path) == ("POST", "/files"):
        return upload(sim, request)
    if found := re.fullmatch(r"/files/([\w-]+)/content", path):
        if found[1] not in batches.files:
            raise refuse(f"No such File object: {found[1]}", None, "id", 404)
        return Answer(200, batches.files[found[1]], {"content-type": "application/octet-stream"})
    if (request.method, path) == ("POST", "/batches"):
        return create(sim, request)
    if (request.method, path) == ("GET", "/batches"):
        return listing(sim, request)
    found = re.fullmatch(r"/batches/([\w-]+?)(/cancel)?", path)
    job = found and (batches.cancel if found[2] else batches.look)(sim, found[1], lambda job, line: work(sim, line))
    if not job:
        raise refuse(f"No batch found at {path}.", None, "batch_id", 404)
    return Answer(200, json.dumps(shown(sim, job)).encode())


def upload(sim: Simulator, request: Request) -> Answer:
    values, files = multipart(request, request.headers.get("content-type", ""))
    if values.get("purpose") != "batch" or len(files) != 1:
        raise refuse("'purpose' must be 'batch', with one file.", "invalid_value", "purpose")
    data = files[0][2]
    if len(data) > MOST_BYTES:
        raise refuse("File is too large.", None, "file", 413)
    name = sim.batches.put(data, "file-")
    about = {"id": name, "object": "file", "bytes": len(data), "created_at": 1, "filename": "f", "purpose": "batch"}
    return Answer(200, json.dumps({**about, "status": "processed"}).encode())


def create(sim: Simulator, request: Request) -> Answer:
    values = as_object(request)
    openai_checks.check_type(CREATE, values)
    data = sim.batches.files.get(values["input_file_id"])
    if data is None:
        raise refuse(f"No such File object: {values['input_file_id']}", None, "input_file_id", 404)
    lines = [json.loads(line) for line in data.splitlines()]
    keys, urls = [line.get("custom_id") for line in lines], {line.get("url") for line in lines}
    error = ""
    if len(lines) > MOST_REQUESTS:
        error = "too_many_tasks"
    elif len(set(keys)) < len(keys) or any(set(line) != {"custom_id", "method", "url", "body"} for line in lines):
        error = "invalid_json_line"
    elif urls != {values["endpoint"]}:
        error = "mismatched_endpoint"
    name = (values.get("metadata") or {}).get("fastgen", "")
    job = sim.batches.create("openai", name, values["endpoint"], values["input_file_id"], lines, error)
    return Answer(200, json.dumps(shown(sim, job)).encode())


def listing(sim: Simulator, request: Request) -> Answer:
    jobs = sim.batches.listed("openai")
    after, limit = request.query.get("after", [""])[0], int(request.query.get("limit", ["20"])[0])
    ids = [job.id for job in jobs]
    start = ids.index(after) + 1 if after in ids else 0
    page = jobs[start : start + limit]
    body = {"object": "list", "data": [shown(sim, job) for job in page], "has_more": start + limit < len(jobs)}
    return Answer(200, json.dumps(body).encode())


def work(sim: Simulator, line: dict) -> tuple[str, Request, str]:
    body = json.dumps(line["body"]).encode()
    key = {"authorization": f"Bearer {min(sim.keys)}", "content-type": "application/json"}
    return line["custom_id"], Request("POST", line["url"], {}, key, body), body.decode()


def shown(sim: Simulator, job: Job) -> dict:
    good = [one for one in job.answered if one[1] == 200]
    bad = [one for one in job.answered if one[1] != 200]
    if job.state in ("done", "expired", "cancelled") and not job.outputs:
        rows = [_line(key, status, json.loads(body)) for key, status, body in good]
        errors = [_line(key, status, json.loads(body)) for key, status, body in bad]
        errors += [_undone(key, job.state) for key in job.left]
        for name, found in (("output", rows), ("error", errors)):
            if found:
                job.outputs[name] = sim.batches.put(
                    b"".join(json.dumps(row).encode() + b"\n" for row in found), "file-"
                )
    errors = {"object": "list", "data": [{"code": job.error[0], "message": job.error[1], "line": None, "param": None}]}
    return {
        "id": job.id,
        "object": "batch",
        "endpoint": job.endpoint,
        "errors": errors if job.error[0] else None,
        "input_file_id": job.file,
        "completion_window": "24h",
        "status": STATES.get(job.state, job.state),
        "output_file_id": job.outputs.get("output"),
        "error_file_id": job.outputs.get("error"),
        "created_at": int(job.created),
        "metadata": {"fastgen": job.name},
        "request_counts": {"total": len(job.lines), "completed": len(good), "failed": len(bad)},
    }


def _line(key: str, status: int, body: dict) -> dict:
    response = {"status_code": status, "request_id": f"req_{key[:8]}", "body": body}
    return {"id": f"batch_req_{key[:8]}", "custom_id": key, "response": response, "error": None}


def _undone(key: str, state: str) -> dict:
    error = {"code": f"batch_{state}", "message": "This request could not be executed before the batch ended."}
    return {"id": f"batch_req_{key[:8]}", "custom_id": key, "response": None, "error": error}
