#!/bin/bash
# A stage or a pipeline on one node or several. Copy it, change it, `sbatch` it from the folder that recipes' paths start
# from; or have `alignment launch RECIPE --on slurm` fill it in. Partition and account: here, or SBATCH_PARTITION and
# SBATCH_ACCOUNT in the environment.
#SBATCH --job-name=alignment
#SBATCH --nodes=2
# One launcher a node, which starts a process for each GPU, with all the cores that they share.
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=64
#SBATCH --time=24:00:00
# Ten minutes before the time is up, or before it is preempted: save. --requeue lets the job be queued again.
#SBATCH --signal=B:USR1@600
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=%x-%j.log
set -uo pipefail

PYTHON=python
CONFIG=launch/accelerate/zero3.yaml
PROCESSES=8

first=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
export PET_RDZV_ID=$SLURM_JOB_ID
each=(srun --kill-on-bad-exit=0 --wait=300 --cpus-per-task="$SLURM_CPUS_PER_TASK")
launch=("$PYTHON" -m alignment.launch.workers --config_file "$CONFIG"
  --num_machines "$SLURM_NNODES" --num_processes "$((SLURM_NNODES * PROCESSES))"
  --main_process_ip "$first" --main_process_port "$((20000 + SLURM_JOB_ID % 10000))"
  --rdzv_backend c10d --max_restarts 3)

# A pipeline: "$PYTHON" -m alignment.cli run my/pipeline.yaml --launch "${each[*]@Q} ${launch[*]@Q}" &
"${each[@]}" "${launch[@]}" --module recipes.ppo --config my/ppo.yaml &

# The processes are told by SIGUSR1, for srun kills on SIGTERM. They save together and end with 143. SIGTERM comes where
# somebody cancelled the job, or where Slurm preempts it and queues it again by itself.
stage=$! told=0 requeue=0
trap 'told=$((told + 1)); requeue=1; kill -USR1 "$stage"' USR1
trap 'told=$((told + 1)); kill -USR1 "$stage"' TERM
while :; do
  before=$told
  wait "$stage"
  code=$?
  [ "$told" -eq "$before" ] && break # else a signal ended the wait, not the stage
done
if [ "$requeue" -eq 1 ] && [ "$code" -eq 143 ]; then
  scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
