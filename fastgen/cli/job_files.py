"""The texts that start a run elsewhere: a script for sbatch, a script for `ray job submit`, a RayJob for KubeRay. Knows
their formats; does not know flags. Each goes to the current folder first, so relative paths mean the same there.
"""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass
from textwrap import indent

SHUT_DOWN_S = 60
"""Before the end of its time a job is told to end, and finishes what is in progress."""


@dataclass(frozen=True)
class Job:
    """A run that is to start elsewhere."""

    name: str
    """Lower-case letters, digits and hyphens."""
    folder: str
    """The current folder, which all machines share."""
    words: tuple[str, ...]
    """What follows `fastgen`."""
    gpus: int
    """Of each worker; 0 if none is needed."""
    keys: tuple[str, ...] = ()
    """Environment variables that must have a key."""

    def lines(self, program: tuple[str, ...], *more: str) -> str:
        """The commands of a shell."""
        given = shlex.join((*program, *self.words, *more))
        return f"cd {shlex.quote(self.folder)}\nexec {given}\n"


def slurm(job: Job, program: tuple[str, ...], parts: int) -> str:
    """Args: program: what runs fastgen on all machines; parts: how many the rows are divided into."""
    directives = [f"--job-name={job.name}", f"--array=1-{parts}"]
    directives += [f"--gpus={job.gpus}"] if job.gpus else []
    directives += [
        "--requeue",
        "--open-mode=append",
        f"--output={job.name}-%A_%a.log",
        f"--signal=B:TERM@{SHUT_DOWN_S}",
    ]
    head = "".join(f"#SBATCH {directive}\n" for directive in directives)
    return (
        f"#!/bin/bash\n{head}"
        "# sbatch THIS_FILE: each task of the array makes one part of the run. Add what your cluster asks for, such\n"
        "# as --partition, --account and --time. Submitting it again repeats only what is not done.\n"
        f"{_keys(job, 'Slurm passes on the environment of the shell where sbatch is typed.')}"
        f"set -euo pipefail\n{job.lines(program, '--shard', 'slurm')}"
    )


def ray(job: Job, program: tuple[str, ...]) -> str:
    """A script that gives itself to the cluster."""
    return (
        "#!/bin/bash\n"
        "# bash THIS_FILE: submits the run to the Ray cluster whose dashboard is at RAY_API_SERVER_ADDRESS, by\n"
        "# default http://127.0.0.1:8265. Keep the file in a folder that the machines share: the cluster runs it too.\n"
        "# Submitting it again repeats only what is not done.\n"
        f"{_keys(job, 'The machine where the cluster runs the job must have it.')}"
        "set -euo pipefail\n"
        'if [ "${1-}" != here ]; then\n'
        '    address="${RAY_API_SERVER_ADDRESS:-http://127.0.0.1:8265}"\n'
        '    exec ray job submit --address "$address" -- bash "$(realpath "$0")" here\n'
        "fi\n"
        f"{job.lines(program, '--engine', 'ray')}"
    )


def kuberay(job: Job, image: str, claim: str, mount: str, least: int, most: int, version: str) -> str:
    """Two objects for `kubectl apply`: the script as a ConfigMap, and the RayJob that runs it.

    Args:
        image: has fastgen and Ray.
        claim: a PersistentVolumeClaim that all pods may write to, mounted at `mount`.
        least, most: workers.
        version: of Ray.
    """
    run = job.lines(("python", "-m", "fastgen"), "--engine", "ray").replace("\nexec ", "\n").rstrip()
    script = f"set -euo pipefail\n{run} || [ $? = 3 ]  # some rows failed, and would again\n"
    head = _pod("head", image, claim, mount, 0, job.keys, f"{job.name}-script")
    worker = _pod("worker", image, claim, mount, job.gpus, (), "")
    keys = "# The key is read from a secret: kubectl create secret generic fastgen-keys --from-literal="
    comment = "".join(f"{keys}{name}=...\n" for name in job.keys)
    return (
        "# kubectl apply -f THIS_FILE: a Ray cluster for this run, which ends with it. Applying it again, after\n"
        f"# `kubectl delete rayjob {job.name}`, repeats only what is not done.\n{comment}"
        f"apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: {job.name}-script\ndata:\n"
        f"  run.sh: {_block(script, 4)}---\n"
        f"apiVersion: ray.io/v1\nkind: RayJob\nmetadata:\n  name: {job.name}\nspec:\n"
        "  entrypoint: bash /fastgen/run.sh\n  shutdownAfterJobFinishes: true\n  backoffLimit: 3\n"
        f"  rayClusterSpec:\n    rayVersion: {_text(version)}\n"
        f"    headGroupSpec:\n      rayStartParams:\n        num-gpus: {_text('0')}\n"
        f"      template:\n{indent(head, ' ' * 8)}"
        f"    workerGroupSpecs:\n    - groupName: workers\n      replicas: {most}\n      minReplicas: {least}\n"
        f"      maxReplicas: {most}\n      rayStartParams: {{}}\n      template:\n{indent(worker, ' ' * 8)}"
    )


def _pod(name: str, image: str, claim: str, mount: str, gpus: int, keys: tuple[str, ...], script: str) -> str:
    lines = ["spec:", "  containers:", f"  - name: ray-{name}", f"    image: {_text(image)}"]
    lines += ["    resources:", "      limits:", f"        nvidia.com/gpu: {gpus}"] if gpus else []
    if keys:
        lines.append("    env:")
    for key in keys:
        lines += [f"    - name: {key}", "      valueFrom:", "        secretKeyRef:", "          name: fastgen-keys"]
        lines.append(f"          key: {key}")
    lines += ["    volumeMounts:", "    - name: shared", f"      mountPath: {_text(mount)}"]
    lines += ["    - name: script", "      mountPath: /fastgen"] if script else []
    lines += ["  volumes:", "  - name: shared", "    persistentVolumeClaim:", f"      claimName: {_text(claim)}"]
    lines += ["  - name: script", "    configMap:", f"      name: {script}"] if script else []
    return "".join(f"{line}\n" for line in lines)


def _keys(job: Job, how: str) -> str:
    return "".join(f"# The run needs {name}. {how}\n" for name in job.keys)


def _block(script: str, spaces: int) -> str:
    """Lines in YAML; one string where YAML would change a character of them."""
    lines = script[:-1].split("\n")
    if all(line.isprintable() and line == line.rstrip() and line for line in lines):
        return f"|\n{indent(script, ' ' * spaces)}"
    return f"{json.dumps(script)}\n"


def _text(value: str) -> str:
    """A string in YAML, which every string in JSON is."""
    return json.dumps(value, ensure_ascii=False)
