r"""The command that a job file starts on each node: `accelerate launch` with the exit code of its workers.

    python -m alignment.launch.workers --config_file launch/accelerate/zero3.yaml --num_processes 8 \
        --module recipes.ppo --config my/ppo.yaml

Accelerate's own command is killed by SIGUSR1, gives workers 30 seconds to save, and always ends with 1 if one fails.
"""

import logging
import os
import signal
import sys
from types import FrameType
from typing import Any

from alignment.errors import AlignmentError
from alignment.launch.files import found
from alignment.run.processes import LAUNCHERS
from alignment.run.script import parsed, script
from alignment.run.signals import PREEMPTED, SIGNALS


def main(argv: list[str] | None = None) -> None:
    """Start the workers and wait for them."""
    for name, value in LAUNCHERS.items():
        os.environ.setdefault(name, value)  # torchrun reads them
    from accelerate.commands import launch
    from accelerate.utils.launch import prepare_simple_launcher_cmd_env

    args, kind = _settled(launch, argv), _settled(launch, argv)
    launch._validate_launch_command(kind)  # adds the values of the file
    if kind.use_cpu:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""  # the processes would take the GPUs that they see
    if kind.num_machines == 1:
        args.standalone, args.main_process_port = True, 0  # one machine: any free port
    if not (kind.use_deepspeed or kind.use_fsdp or kind.multi_gpu or kind.tpu):
        # Run a single process in this one, so that it receives signals, and its exit code is the command's.
        command, environment = prepare_simple_launcher_cmd_env(kind)
        os.execvpe(command[0], command, environment)
    code = _run(launch.launch_command, args)
    sys.stdout.flush()
    if code:
        sys.exit(code)


def _settled(launch: Any, argv: list[str] | None) -> Any:
    args = parsed(launch.launch_command_parser(), argv)
    if args.config_file is None:
        raise AlignmentError("--config_file: name one of launch/accelerate/*.yaml, or a file of your own.")
    args.config_file = str(found(args.config_file))
    if args.machine_rank is None and "SLURM_NODEID" in os.environ:
        args.machine_rank = int(os.environ["SLURM_NODEID"])  # srun gives all nodes the same command line
    return args


def _run(start: Any, args: Any) -> int:
    from torch.distributed import DistError
    from torch.distributed.elastic.agent.server import api as agent
    from torch.distributed.elastic.multiprocessing import api
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.elastic.rendezvous.api import RendezvousError

    def told_once(signum: int, frame: FrameType | None) -> None:
        for each in SIGNALS:
            # torchrun's handler would stop waiting for its workers at the second signal
            signal.signal(each, signal.SIG_IGN)
        for logger in (agent.logger, api.logger):
            logger.addFilter(_is_news)
        raise api.SignalException("told to end", sigval=signal.Signals(signum))

    api._terminate_process_handler = told_once
    try:
        start(args)
    except ChildFailedError as error:
        _, failure = error.get_first_failure()
        code = failure.exitcode if failure.exitcode >= 0 else 128 - failure.exitcode
        if code != PREEMPTED:
            print(f"process {failure.local_rank} of this node ended with code {code}", file=sys.stderr)  # noqa: T201
        return int(code)
    except api.SignalException as told:
        return PREEMPTED if told.sigval in SIGNALS else 128 + told.sigval
    except (RendezvousError, DistError) as lost:
        print(f"no connection to the other nodes: {lost}", file=sys.stderr)  # noqa: T201
        return PREEMPTED  # they start again, as must this node
    return 0


def _is_news(record: logging.LogRecord) -> bool:
    """Whether a log record of torchrun matters after the user ended the job; those about signals do not."""
    return not record.getMessage().startswith(("Received", "Sending process"))


if __name__ == "__main__":
    script(main)
