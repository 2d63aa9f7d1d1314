"""Two Docker hosts on one machine: namespaces with a dockerd, an sshd, an address and a /dev/shm each.

    python -m tests.testbed.bed up|wipe        (AUTOTUNE_BED names it, default "bed")

Nothing above the hardware is simulated: real engines, real containers, real ports; cables can be pulled and
nodes can lose power. There are no GPUs, but the engines accept requests for them. Needs root, Linux with
overlayfs and writable cgroups, and Debian's packages (PACKAGES; installed where they are missing).
Known limits: no privileged containers, no memlock or nofile above the machine's own; no registry.
"""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

PACKAGES = ("docker.io", "iptables", "iproute2", "tini", "busybox-static", "openssh-server", "openssh-client")
NAMES = "abcdefgh"
_HOOK = """#!/bin/sh
cat >/dev/null
[ -e {folder}/gpu-fail ] || exit 0
echo "nvidia-container-cli: initialization error: nvml error: driver not loaded: unknown" >&2
exit 1
"""
_SSHD = """
ListenAddress {address}:22
HostKey {bed}/hostkey
AuthorizedKeysFile {bed}/ssh/id_ed25519.pub
PermitRootLogin prohibit-password
PasswordAuthentication no
UsePAM no
StrictModes no
PidFile {folder}/sshd.pid
MaxStartups 100
MaxSessions 100
"""
_SSH = """Host *
  User root
  IdentityFile {ssh}/id_ed25519
  UserKnownHostsFile {ssh}/known_hosts
  StrictHostKeyChecking yes
  BatchMode yes
"""


class BedError(Exception):
    """A test bed cannot be had here, or a step of it failed."""


def run(*argv: str, is_checked: bool = True, timeout_s: float = 60) -> str:
    """Run a program; return what it printed."""
    done = subprocess.run(
        argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=timeout_s
    )
    if is_checked and done.returncode:
        raise BedError(f"{' '.join(argv)}: {done.returncode} {done.stderr.strip()[-2000:]}")
    return done.stdout


def wait_until(holds: Callable[[], bool], what: str, patience_s: float = 30) -> None:
    """Wait for a condition."""
    give_up_s = time.monotonic() + patience_s
    while not holds():
        if time.monotonic() > give_up_s:
            raise BedError(f"not in {patience_s:g} s: {what}")
        time.sleep(0.02)


def reaches(address: str, port: int) -> bool:
    """Whether somebody listens there."""
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex((address, port)) == 0


def reason_against() -> str | None:
    """Return why this machine can have no test bed, None if it can."""
    if os.geteuid() != 0:
        return "not root"
    try:
        run(
            "unshare",
            "--mount",
            "--uts",
            "--ipc",
            "--net",
            "--pid",
            "--fork",
            "mount",
            "-t",
            "tmpfs",
            "x",
            "/mnt",
        )
    except (BedError, OSError) as error:
        return f"namespaces are not permitted: {error}"
    if "overlay" not in Path("/proc/filesystems").read_text():
        return "the kernel has no overlayfs"
    if (
        not os.access("/sys/fs/cgroup/memory", os.W_OK)
        and not Path("/sys/fs/cgroup/cgroup.controllers").exists()
    ):
        return "no writable cgroups"
    missing = [name for name in PACKAGES if "install ok" not in run("dpkg", "-s", name, is_checked=False)]
    if missing and not install(missing):
        return f"{', '.join(missing)} cannot be installed"
    return None


def install(packages: Sequence[str]) -> bool:
    """Install without letting the packages start services of their own."""
    policy = Path("/usr/sbin/policy-rc.d")
    is_ours = not policy.exists()
    if is_ours:
        policy.write_text("#!/bin/sh\nexit 101\n")
        policy.chmod(0o755)
    apt = ("env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-qq", "-o", "DPkg::Lock::Timeout=300")
    try:
        run(*apt, "update", timeout_s=300)
        run(*apt, "install", "-y", "--no-install-recommends", *packages, timeout_s=600)
    except BedError as error:
        print(error, file=sys.stderr)
        return False
    finally:
        if is_ours:
            policy.unlink()
    return True


class Host:
    """One node: its process 1 holds all its namespaces, so that killing it is a power loss."""

    def __init__(self, bed: "Bed", name: str) -> None:
        self.name = name
        self.bed = bed
        self.folder = bed.folder / name
        self.address = f"{bed.network}.{11 + NAMES.index(name)}"
        self.socket = self.folder / "docker.sock"
        self.unix = f"unix://{self.socket}"
        self.tcp = f"tcp://{self.address}:2375"
        self.ssh = f"ssh://root@{self.address}{self.socket}"
        self._namespace = f"{bed.prefix}{name}"
        self._port = f"port-{name}"

    # ---- verbs

    def up(self, *dockerd: str) -> None:
        """Switch it on; what its disk holds is still there."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self._plug_in()
        self._write_hook()
        if self._pid() is None:
            self._boot()
        self.start_dockerd(*dockerd)
        # A link that was down leaves a failed ARP entry behind for a second.
        wait_until(lambda: reaches(self.address, 22) or self._is_cut(), f"{self.name} is reached")

    def kill(self) -> None:
        """Cut the power: every process is gone at once."""
        pid = self._pid()
        if pid is not None:
            os.kill(pid, signal.SIGKILL)
            wait_until(lambda: self._pid() is None, f"{self.name} is off")

    def cut(self) -> None:
        """Pull the network cable."""
        run("ip", "-n", self.bed.switch, "link", "set", self._port, "down")

    def heal(self) -> None:
        """Plug it in again."""
        run("ip", "-n", self.bed.switch, "link", "set", self._port, "up")

    def _is_cut(self) -> bool:
        return "state DOWN" in run("ip", "-n", self.bed.switch, "link", "show", self._port)

    def kill_dockerd(self, number: signal.Signals = signal.SIGKILL) -> None:
        """End the Docker engine only."""
        self.sh("kill", f"-{number.value}", (self.folder / "docker.pid").read_text().strip())
        wait_until(lambda: not self._answers(), f"dockerd on {self.name} has ended")

    def start_dockerd(self, *arguments: str) -> None:
        """Start the Docker engine."""
        if self._answers():
            return
        for stale in ("docker.pid", "docker.sock"):
            (self.folder / stale).unlink(missing_ok=True)
        with (self.folder / "dockerd.log").open("ab") as log:
            engine = subprocess.Popen(
                [
                    *self.enter(), "env", f"PATH={self.folder}/bin:{os.environ['PATH']}",
                    "setsid", "dockerd",
                    "--data-root", str(self.folder / "data"), "--exec-root", str(self.folder / "exec"),
                    "--pidfile", str(self.folder / "docker.pid"), "--cgroup-parent", f"/{self._namespace}",
                    "--shutdown-timeout", "5", "-H", self.unix, "-H", self.tcp, "--tls=false", *arguments,
                ],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        self.bed.children.append(engine)
        wait_until(self._answers, f"dockerd on {self.name} answers, see {self.folder}/dockerd.log", 60)

    def sh(self, *argv: str, is_checked: bool = True) -> str:
        """Run a program on the node."""
        return run(*self.enter(), *argv, is_checked=is_checked)

    def wipe(self) -> None:
        """Remove everything that `up` made, the disk excepted."""
        self.kill()
        run("ip", "-n", self.bed.switch, "link", "del", self._port, is_checked=False)
        run("ip", "netns", "del", self._namespace, is_checked=False)
        for top in (
            *Path("/sys/fs/cgroup").glob(f"*/{self._namespace}"),
            Path("/sys/fs/cgroup") / self._namespace,
        ):
            run("find", str(top), "-depth", "-type", "d", "-delete", is_checked=False)

    # ---- how

    def _pid(self) -> int | None:
        """Return the pid of the node's process 1, if it is that and not another by now."""
        file = self.folder / "init.pid"
        if not file.exists() or not file.read_text().strip():
            return None
        pid = int(file.read_text())
        try:
            own = Path(f"/proc/{pid}/ns/net").stat().st_ino
            is_init = Path(f"/proc/{pid}/comm").read_text().strip() == "tini"
            return pid if is_init and own == Path(f"/run/netns/{self._namespace}").stat().st_ino else None
        except OSError:
            return None

    def enter(self) -> list[str]:
        """Return the words that run a program on the node."""
        pid = self._pid()
        if pid is None:
            raise BedError(f"node {self.name} is off")
        return ["nsenter", "-t", str(pid), "-n", "-p", "-u", "-i", "-m", "--"]

    def _plug_in(self) -> None:
        if Path(f"/run/netns/{self._namespace}").exists():
            return
        # A fixed MAC: with a random one, a node that comes back leaves a stale ARP entry behind for seconds.
        mac = f"02:00:00:00:09:{11 + NAMES.index(self.name)}"
        node, switch = self._namespace, self.bed.switch
        run("ip", "netns", "add", node)
        run(
            "ip", "link", "add", self._port, "netns", switch, "type", "veth",
            "peer", "name", "eth0", "netns", node, "address", mac,
        )  # fmt: skip
        run("ip", "-n", switch, "link", "set", self._port, "master", "br0", "up")
        run("ip", "-n", node, "addr", "add", f"{self.address}/24", "dev", "eth0")
        run("ip", "-n", node, "link", "set", "eth0", "up")
        run("ip", "-n", node, "link", "set", "lo", "up")

    def _boot(self) -> None:
        # A containerd.pid from before a power loss may name a living process of the new pid namespace.
        (self.folder / "exec/containerd/containerd.pid").unlink(missing_ok=True)
        script = (
            f"hostname node-{self.name}; mount -t tmpfs -o size=512m shm /dev/shm; mkdir -p /run/sshd;"
            "umount -l /run/netns; [ ! -e /root/.bashrc ] || mount --bind /dev/null /root/.bashrc;"
            "exec tini -s -- sleep infinity"
        )
        with (self.folder / "init.log").open("wb") as log:
            parent = subprocess.Popen(
                [
                    "nsenter", f"--net=/run/netns/{self._namespace}", "unshare", "--pid", "--fork",
                    "--mount-proc", "--uts", "--ipc", "--mount", "--", "sh", "-c", script,
                ],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        self.bed.children.append(parent)
        children = Path(f"/proc/{parent.pid}/task/{parent.pid}/children")

        def is_up() -> bool:
            (self.folder / "init.pid").write_text(children.read_text().split(" ")[0])
            return self._pid() is not None

        wait_until(is_up, f"node {self.name} starts, see {self.folder}/init.log")
        config = self.folder / "sshd_config"
        config.write_text(_SSHD.format(address=self.address, bed=self.bed.folder, folder=self.folder))
        self.sh("/usr/sbin/sshd", "-f", str(config), "-E", str(self.folder / "sshd.log"))

    def _write_hook(self) -> None:
        """Docker registers its GPU support if it finds such a program when it starts."""
        hook = self.folder / "bin/nvidia-container-runtime-hook"
        hook.parent.mkdir(exist_ok=True)
        hook.write_text(_HOOK.format(folder=self.folder))
        hook.chmod(0o755)

    def _answers(self) -> bool:
        done = subprocess.run(
            ["curl", "-s", "-o", "/dev/null", "-m", "2", "--unix-socket", self.socket, "http://docker/_ping"],
            check=False,
        )
        return done.returncode == 0


class Bed:
    """All nodes, the switch between them, and this machine's own leg into it."""

    def __init__(self, prefix: str, names: str = "ab") -> None:
        self.prefix = prefix
        self.folder = Path("/tmp") / f"autotune-{prefix}"  # noqa: S108 - a socket's path must be short
        self.network = f"10.232.{zlib.crc32(prefix.encode()) % 250 + 1}"
        self.switch = f"{prefix}sw"
        self.controller = f"{self.network}.1"
        self.children: list[subprocess.Popen[bytes]] = []
        self.hosts = tuple(Host(self, name) for name in names)

    def up(self, *dockerd: str) -> None:
        """Switch everything on that is off."""
        self.folder.mkdir(exist_ok=True)
        self._make_keys()
        self._switch_up()
        for host in self.hosts:
            host.up(*dockerd)

    def wipe(self) -> None:
        """Remove everything."""
        for host in self.hosts:
            host.wipe()
        for child in self.children:
            child.kill()
            child.wait()
        run("ip", "link", "del", f"{self.prefix}ctl", is_checked=False)
        run("ip", "netns", "del", self.switch, is_checked=False)
        mounts = [line.split(" ")[1] for line in Path("/proc/mounts").read_text().splitlines()]
        for mount in [each for each in mounts if each.startswith(f"{self.folder}/")]:
            run("umount", "-l", mount, is_checked=False)
        shutil.rmtree(self.folder, ignore_errors=True)

    def __getitem__(self, name: str) -> Host:
        return self.hosts[NAMES.index(name)]

    def _make_keys(self) -> None:
        """Make one host key and one user key, and an ssh that knows them, first on the PATH of the tests."""
        ssh, program = self.folder / "ssh", self.folder / "bin/ssh"
        if program.exists():
            return
        ssh.mkdir(mode=0o700)
        program.parent.mkdir()
        for key in (self.folder / "hostkey", ssh / "id_ed25519"):
            run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "bed", "-f", str(key))
        public = (self.folder / "hostkey.pub").read_text().split(" ")
        known = "".join(f"{host.address} {public[0]} {public[1]}\n" for host in self.hosts)
        (ssh / "known_hosts").write_text(known)
        (ssh / "config").write_text(_SSH.format(ssh=ssh))
        program.write_text(f'#!/bin/sh\nexec /usr/bin/ssh -F {ssh}/config "$@"\n')
        program.chmod(0o755)

    def _switch_up(self) -> None:
        """Make the switch in a namespace of its own: a dockerd outside would cut forwarded traffic."""
        if Path(f"/run/netns/{self.switch}").exists():
            return
        leg = f"{self.prefix}ctl"
        run("ip", "netns", "add", self.switch)
        run("ip", "-n", self.switch, "link", "add", "br0", "type", "bridge")
        run("ip", "-n", self.switch, "link", "set", "br0", "up")
        run("ip", "link", "add", leg, "type", "veth", "peer", "name", "control", "netns", self.switch)
        run("ip", "-n", self.switch, "link", "set", "control", "master", "br0", "up")
        run("ip", "addr", "add", f"{self.controller}/24", "dev", leg)
        run("ip", "link", "set", leg, "up")


def main() -> None:
    bed = Bed(os.environ.get("AUTOTUNE_BED", "bed"))
    match sys.argv[1:]:
        case ["up"]:
            reason = reason_against()
            if reason is not None:
                sys.exit(f"no test bed here: {reason}")
            bed.up()
        case ["wipe"]:
            bed.wipe()
        case _:
            sys.exit(__doc__)
    for host in bed.hosts:
        print(host.name, host.unix, host.tcp, host.ssh)


if __name__ == "__main__":
    main()
