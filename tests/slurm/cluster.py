"""A SLURM cluster of a controller and three nodes on this machine, for the time of a ``with`` block.

Each node is a namespace with a network, a host name and processes of its own, so that it can disappear as a machine
does: without a word to the others. ``make test-slurm`` puts the tests themselves into namespaces, where the bridge, the
files mounted over ``/etc`` and every process end with them; nothing on the machine is changed.
"""

from __future__ import annotations

import re
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path

CONTROLLER = "10.77.0.254"
NODES = {"n1": "10.77.0.1", "n2": "10.77.0.2", "n3": "10.77.0.3"}
SETTLED = {"COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "PREEMPTED", "BOOT_FAIL", "OUT_OF_MEMORY"}
CONFIGURATION = f"""\
ClusterName=tests
SlurmctldHost=controller({CONTROLLER})
SlurmUser=root
StateSaveLocation={{folder}}/state
SlurmdSpoolDir={{folder}}/spool.%n
SlurmdPidFile={{folder}}/%n.pid
SlurmctldPidFile={{folder}}/controller.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
GresTypes=gpu
SlurmdParameters=config_overrides
ReturnToService=2
SchedulerParameters=sched_interval=2,bf_interval=5
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SlurmdTimeout=20
KillWait=10
MinJobAge=3600
"""
PARTITIONS = """\
PartitionName=low Nodes=ALL Default=YES PriorityTier=1 PreemptMode=REQUEUE GraceTime=120
PartitionName=high Nodes=ALL PriorityTier=10 PreemptMode=OFF
"""


def run(*words: object) -> str:
    """Output of a command that must succeed."""
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True)
    assert done.returncode == 0, f"{words}: {done.returncode}\n{done.stdout}{done.stderr}"
    return done.stdout


def wait_for(what: str, found: Callable[[], object], seconds: float = 300.0) -> object:
    """What ``found`` returns once that is true.

    Raises:
        AssertionError: it was not within this time; what ``what`` says.
    """
    end = time.monotonic() + seconds
    while not (value := found()):
        assert time.monotonic() < end, f"not within {seconds:.0f} s: {what}"
        time.sleep(0.3)
    return value


class Cluster:
    """Nodes with what passes for a GPU each. Jobs in the partition ``high`` preempt those in ``low``.

    SLURM is told of eight CPUs, which profiles ask for. Jobs use two nodes; the third takes the place of one that dies.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._daemons: dict[str, subprocess.Popen] = {}

    def __enter__(self) -> Cluster:
        assert [name for _, name in socket.if_nameindex()] == ["lo"], "not in a namespace; use `make test-slurm`"
        try:
            self._configure()
            self._start_controller()
            self.mend()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_) -> None:
        for daemon in reversed(self._daemons.values()):
            daemon.kill()
            daemon.wait()

    def _configure(self) -> None:
        for name in ("etc", "state"):
            (self.folder / name).mkdir()
        nodes = "".join(
            f"NodeName={node} NodeAddr={address} CPUs=8 RealMemory=2000 Gres=gpu:1 State=UNKNOWN\n"
            for node, address in NODES.items()
        )
        text = CONFIGURATION.format(folder=self.folder) + nodes + PARTITIONS
        (self.folder / "etc" / "slurm.conf").write_text(text)
        (self.folder / "etc" / "gres.conf").write_text("Name=gpu File=/dev/null\n")
        names = {"controller": CONTROLLER, **NODES, "localhost": "127.0.0.1"}
        hosts = self.folder / "hosts"
        hosts.write_text("".join(f"{address} {name}\n" for name, address in names.items()))
        run("mount", "--bind", self.folder / "etc", "/etc/slurm")
        run("mount", "--bind", hosts, "/etc/hosts")
        run("mount", "-t", "tmpfs", "tmpfs", "/run")

    def _start_controller(self) -> None:
        run("hostname", "controller")
        run("ip", "link", "set", "lo", "up")
        run("ip", "link", "add", "bridge", "type", "bridge")
        run("ip", "address", "add", f"{CONTROLLER}/24", "dev", "bridge")
        run("ip", "link", "set", "bridge", "up")
        key = self.folder / "munge.key"
        key.write_bytes(secrets.token_bytes(128))
        key.chmod(0o600)
        Path("/run/munge").mkdir(mode=0o755)
        files = {"key-file": key, "seed-file": self.folder / "munge.seed"}
        self._start(
            "munged", "munged", "--foreground", "--force", *(f"--{name}={path}" for name, path in files.items())
        )
        wait_for("munged", Path("/run/munge/munge.socket.2").is_socket)
        self._start("controller", "slurmctld", "-D", "-c")

    def start(self, node: str) -> None:
        """Start a node, also one that was killed."""
        run("ip", "netns", "add", node)
        run("ip", "link", "add", f"to-{node}", "type", "veth", "peer", "name", "eth0", "netns", node)
        run("ip", "link", "set", f"to-{node}", "master", "bridge", "up")
        run("ip", "-netns", node, "address", "add", f"{NODES[node]}/24", "dev", "eth0")
        for device in ("eth0", "lo"):
            run("ip", "-netns", node, "link", "set", device, "up")
        inside = f"hostname {node}; slurmd -D -N {node} & wait"  # a shell collects the processes that jobs leave
        own = ("unshare", "--uts", "--pid", "--mount", "--mount-proc", "--fork", "--kill-child")
        self._start(node, "nsenter", f"--net=/run/netns/{node}", *own, "bash", "-c", inside)

    def kill(self, node: str, silently: bool = True) -> None:
        """End all that runs on a node. ``silently``: the others do not even see that its connections close."""
        if silently:
            run("ip", "link", "delete", f"to-{node}")
        self._daemons[node].kill()
        self._daemons.pop(node).wait()
        run("ip", "netns", "delete", node)
        wait_for(f"end of {node}", lambda: f"to-{node}" not in [name for _, name in socket.if_nameindex()])

    @contextmanager
    def listening(self, node: str, port: int):
        """Another program on a node has this port."""
        code = f"import socket; taken = socket.create_server(('', {port})); print('ready', flush=True); input()"
        command = ["nsenter", f"--net=/run/netns/{node}", sys.executable, "-c", code]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
            try:
                assert other.stdout.readline() == "ready\n"
                yield
            finally:
                other.kill()

    def _start(self, name: str, *words: object) -> None:
        with (self.folder / f"{name}.log").open("ab") as log:
            self._daemons[name] = subprocess.Popen([str(word) for word in words], stdout=log, stderr=log)

    def mend(self) -> None:
        """Start nodes that are gone, and wait until all are idle."""
        for node in NODES:
            if node not in self._daemons:
                self.start(node)
        self.wait_for_states({"idle"})

    def wait_for_states(self, wanted: set[str]) -> None:
        """Wait until the nodes are in these states of sinfo's."""
        wait_for(f"nodes {wanted}", lambda: set(run("sinfo", "-h", "-N", "-o", "%T").split()) == wanted)


def record(job: str) -> dict[str, str]:
    """What SLURM knows of a job."""
    return dict(re.findall(r"(\w+)=(\S*)", run("scontrol", "show", "job", job)))


def settled(job: str, seconds: float = 400.0) -> str:
    """The state that a job ends in."""

    def ended() -> str | None:
        state = record(job)["JobState"]
        return state if state in SETTLED else None

    return str(wait_for(f"end of job {job}", ended, seconds))


def release(job: str) -> None:
    """SLURM lets a requeued job wait two minutes; this one waits five seconds.

    Nodes refuse a job that starts at the moment at which they have killed it.
    """
    wait_for(f"job {job} back in the queue", lambda: record(job)["JobState"] == "PENDING")
    run("scontrol", "update", f"JobId={job}", "StartTime=now+5")
