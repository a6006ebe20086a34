"""Stand-ins for `sbatch`, `srun` and `scontrol` that do what Slurm does with two nodes, both of them this machine."""

import stat
import sys
from pathlib import Path

SBATCH = """
import os, re, subprocess, sys, time
from pathlib import Path

here, job = Path({folder!r}), sys.argv[1]
text = Path(job).read_text()
said = dict(re.findall(r"^#SBATCH --([a-z-]+)=(\\S+)$", text, re.MULTILINE))
assert said["signal"] == "B:USR1@600" and said["ntasks-per-node"] == "1", said
assert "#SBATCH --requeue\\n" in text
environment = {{
    **os.environ, "SLURM_JOB_ID": "7", "SLURM_NNODES": said["nodes"], "SLURM_CPUS_PER_TASK": said["cpus-per-task"],
    "SLURM_JOB_NODELIST": "node[1-%s]" % said["nodes"], "HF_HUB_OFFLINE": "1",
}}
if os.fork():
    print("Submitted batch job 7")
    sys.exit()
os.setsid()
for stream in (1, 2):
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream)  # whoever reads them would wait for the job
while True:
    with open(here / "job.log", "a") as log:
        batch = subprocess.Popen(["bash", job], env=environment, stdout=log, stderr=log)
    (here / "batch.pid").write_text(str(batch.pid))
    code = batch.wait()
    with open(here / "codes", "a") as codes:
        print(code, file=codes)
    if not (here / "requeue").exists():
        break
    (here / "requeue").unlink()
(here / "done").touch()
"""

SRUN = """
import os, signal, socket, subprocess, sys, time

words = sys.argv[1:]
options = []
while words[0].startswith("--"):
    options.append(words.pop(0).partition("=")[0])
assert set(options) <= {{"--kill-on-bad-exit", "--wait", "--cpus-per-task"}}, options
tasks = []
signal.signal(signal.SIGUSR1, lambda *_: [task.send_signal(signal.SIGUSR1) for task in tasks])
signal.signal(signal.SIGTERM, lambda *_: [task.kill() for task in tasks])  # as srun does
for node in range(int(os.environ["SLURM_NNODES"])):
    mine = {{"SLURM_NODEID": str(node), "SLURM_PROCID": str(node), "PET_LOCAL_ADDR": "127.0.0.1"}}
    tasks.append(subprocess.Popen(words, env={{**os.environ, **mine}}))
    port = words[words.index("--main_process_port") + 1]
    while node == 0 and tasks[0].poll() is None:  # two machines have a port each; here the first must have it first
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", int(port))) == 0:
                break
        time.sleep(0.05)
codes = []
for task in tasks:
    code = task.wait()
    codes.append(128 - code if code < 0 else code)
sys.exit(max(codes))
"""

SCONTROL = """
import signal, sys
from pathlib import Path

signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # as a program in C has it: `head -n 1` closes the pipe
if sys.argv[1:3] == ["show", "hostnames"]:
    assert sys.argv[3].startswith("node[1-")
    print("127.0.0.1")
    print("127.0.0.1")
else:
    assert sys.argv[1:] == ["requeue", "7"], sys.argv
    Path({folder!r}, "requeue").touch()
"""


def install(folder: Path) -> Path:
    """Write the stand-ins; returns the folder to put on PATH. What happened stands in `folder` itself."""
    place = folder / "bin"
    place.mkdir(parents=True)
    for name, text in (("sbatch", SBATCH), ("srun", SRUN), ("scontrol", SCONTROL)):
        write_program(place / name, text.format(folder=str(folder)))
    return place


def write_program(file: Path, text: str) -> None:
    """An executable Python program."""
    file.write_text(f"#!{sys.executable}\n{text}")
    file.chmod(file.stat().st_mode | stat.S_IXUSR)
