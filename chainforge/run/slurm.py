"""What srun says of a process, in torchrun's words."""

import re
from collections.abc import Mapping

FIRST_PORT, PORTS = 15000, 20000


def as_torchrun(environment: Mapping[str, str]) -> Mapping[str, str]:
    """The environment, with RANK, WORLD_SIZE, LOCAL_RANK, LOCAL_WORLD_SIZE, MASTER_ADDR and MASTER_PORT
    in a task of srun.

    A batch script has SLURM_PROCID and SLURM_NTASKS too, and so has a shell that `srun --pty` opens: neither
    is a task of ours. Where srun started one task only, that is one process, and may start others.
    """
    step = {name: environment.get(f"SLURM_{name}", "") for name in ("PROCID", "LOCALID", "STEP_NUM_TASKS")}
    is_task = step["STEP_NUM_TASKS"].isdecimal() and int(step["STEP_NUM_TASKS"]) > 1
    if not is_task or "RANK" in environment or "SLURM_PTY_PORT" in environment:
        return environment
    return {
        "MASTER_ADDR": _first_host(environment.get("SLURM_STEP_NODELIST", "localhost")),
        "MASTER_PORT": str(FIRST_PORT + _number(environment) % PORTS),
        **environment,
        "RANK": step["PROCID"],
        "WORLD_SIZE": step["STEP_NUM_TASKS"],
        "LOCAL_RANK": step["LOCALID"],
        **_tasks_here(environment),
    }


def _tasks_here(environment: Mapping[str, str]) -> dict[str, str]:
    """8(x2),4 on the third node -> 4."""
    counts = re.findall(r"(\d+)(?:\(x(\d+)\))?", environment.get("SLURM_STEP_TASKS_PER_NODE", ""))
    each = [count for count, nodes in counts for _ in range(int(nodes or 1))]
    node = environment.get("SLURM_NODEID", "")
    return {"LOCAL_WORLD_SIZE": each[int(node)]} if node.isdecimal() and int(node) < len(each) else {}


def _first_host(nodes: str) -> str:
    """gpu[03-05,9],cpu1 -> gpu03; on it is the first task."""
    return re.sub(r"\[(\w+)[^\]]*\]", r"\1", nodes).split(",")[0]


def _number(environment: Mapping[str, str]) -> int:
    """The same for all tasks of one srun, another one for the next."""
    job, step = environment.get("SLURM_JOB_ID", "0"), environment.get("SLURM_STEP_ID", "0")
    return int(job) * 7 + int(step) if job.isdecimal() and step.isdecimal() else 0
