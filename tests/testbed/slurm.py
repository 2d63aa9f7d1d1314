"""A Slurm over the nodes of a test bed: slurmctld on this machine, one slurmd a node, eight fake GPUs each.

In: a `Bed` that is up. Out: the environment in which sbatch, srun and squeue work; `Slurm.names` makes the
nodes' names known to a program. Debian's packages, installed where they are missing; one at a time on a
machine, since slurmctld has a fixed port. Invariant: after `down` no daemon, mount or file is left.
"""

import os
import shutil
import socket
import subprocess
from pathlib import Path

from tests.testbed.bed import Bed, BedError, Host, install, run, wait_until

PACKAGES = ("slurmctld", "slurmd", "slurm-client", "munge")
GPUS = 8
# AutoDetect must be the first line, and each GPU needs a file; with Count= alone the nodes become invalid.
_GRES = "AutoDetect=off\nName=gpu File={folder}/dev/nvidia[0-{last}]\n"
_CONFIG = """\
ClusterName=bed
SlurmctldHost={controller}({address})
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge/socket
CryptoType=crypto/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
GresTypes=gpu
ReturnToService=2
SlurmdTimeout=10
SlurmctldTimeout=10
InactiveLimit=0
KillWait=3
SchedulerParameters=sched_interval=1
{nodes}
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""
_NODE = "NodeName=node-{name} NodeAddr={address} CPUs=2 RealMemory=2000 Gres=gpu:{gpus} State=UNKNOWN"


def reason_against_slurm() -> str | None:
    """Return why this machine can have no Slurm, None if it can."""
    missing = [name for name in PACKAGES if "install ok" not in run("dpkg", "-s", name, is_checked=False)]
    return f"{', '.join(missing)} cannot be installed" if missing and not install(missing) else None


class Slurm:
    """The daemons of one cluster."""

    def __init__(self, bed: Bed) -> None:
        self.bed = bed
        self.folder = bed.folder / "slurm"
        self.hosts_file = self.folder / "hosts"
        self.environment = {**os.environ, "SLURM_CONF": str(self.folder / "slurm.conf")}

    def up(self) -> None:
        """Start everything and wait until all nodes are idle."""
        self._write_config()
        munge = self.folder / "munge"
        (munge / "key").write_bytes(os.urandom(1024))
        (munge / "key").chmod(0o600)
        files = [f"--{name}-file={munge / name}" for name in ("key", "pid", "log", "seed")]
        run("munged", "--force", f"--socket={munge / 'socket'}", *files)  # --force: it lies below /tmp
        run("slurmctld", "-f", self.environment["SLURM_CONF"])
        for host in self.bed.hosts:
            host.sh("mount", "--bind", str(self.hosts_file), "/etc/hosts")
            host.sh("slurmd", "-f", self.environment["SLURM_CONF"], "-N", f"node-{host.name}")
        wait_until(self._is_idle, f"all nodes are idle, see {self.folder}", 30)

    def down(self) -> None:
        """End the daemons, remove their files."""
        for host in self.bed.hosts:
            self._stop(f"slurmd-node-{host.name}.pid", host)
            host.sh("umount", "/etc/hosts", is_checked=False)
        self._stop("slurmctld.pid")
        self._stop("munge/pid")
        shutil.rmtree(self.folder, ignore_errors=True)

    def run(self, *argv: str) -> str:
        """Run a program of Slurm; return what it printed."""
        done = subprocess.run(argv, env=self.environment, capture_output=True, text=True, check=False)
        if done.returncode:
            raise BedError(f"{' '.join(argv)}: {done.returncode} {done.stderr.strip()}")
        return done.stdout.strip()

    def knowing_names(self, *argv: str) -> list[str]:
        """Return the words that run a program which resolves the nodes' names, as a cluster's machines do."""
        bind = f'mount --bind {self.hosts_file} /etc/hosts; exec "$@"'
        return ["unshare", "--mount", "sh", "-ec", bind, "sh", *argv]

    def _write_config(self) -> None:
        for name in ("dev", "munge", "state"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        for number in range(GPUS):
            (self.folder / f"dev/nvidia{number}").touch()
        (self.folder / "munge").chmod(0o700)
        (self.folder / "gres.conf").write_text(_GRES.format(folder=self.folder, last=GPUS - 1))
        nodes = "\n".join(
            _NODE.format(name=host.name, address=host.address, gpus=GPUS) for host in self.bed.hosts
        )
        Path(self.environment["SLURM_CONF"]).write_text(
            _CONFIG.format(
                controller=socket.gethostname().split(".")[0],
                address=self.bed.controller,
                folder=self.folder,
                nodes=nodes,
            )
        )
        lines = [f"{host.address} node-{host.name}" for host in self.bed.hosts]
        self.hosts_file.write_text("\n".join(["127.0.0.1 localhost", *lines, ""]))

    def _is_idle(self) -> bool:
        return self.run("sinfo", "-h", "-t", "idle", "-o", "%D") == str(len(self.bed.hosts))

    def _stop(self, file: str, host: Host | None = None) -> None:
        """End a daemon of this machine, or of a node, and wait for its end."""
        path = self.folder / file
        if not path.exists():
            return
        pid = path.read_text().strip()
        words = () if host is None else host.enter()
        run(*words, "kill", pid, is_checked=False)
        gone = (*words, "sh", "-c", f"while kill -0 {pid} 2>/dev/null; do sleep 0.05; done")
        run(*gone, is_checked=False, timeout_s=20)
